//! Wallets, their journals, and rewards.

use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{EntryKind, PointsEntry, PointsKind, WalletEntry};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
pub(crate) struct WalletView<'a> {
    /// Minor units.
    pub(crate) balance: Money,
    #[schema(example = "KRW")]
    pub(crate) currency: &'a str,
}

#[derive(ToSchema)]
#[schema(as = EntryKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum EntryKindSchema {
    Charge,
    Use,
    Payment,
    Refund,
}

/// One line of a wallet's journal.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletEntry)]
pub(crate) struct WalletEntryView<'a> {
    id: Uuid,
    #[schema(value_type = EntryKindSchema)]
    kind: EntryKind,
    /// Signed.
    amount: Money,
    /// What it left.
    balance: Money,
    memo: Option<&'a str>,
    reservation_id: Option<Uuid>,
    payment_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

impl<'a> From<&'a WalletEntry> for WalletEntryView<'a> {
    fn from(entry: &'a WalletEntry) -> Self {
        Self {
            id: entry.id.0,
            kind: entry.kind,
            amount: entry.amount,
            balance: entry.balance,
            memo: entry.memo.as_deref(),
            reservation_id: entry.reservation.map(|id| id.0),
            payment_id: entry.payment.map(|id| id.0),
            created_at: entry.created_at,
        }
    }
}

#[derive(ToSchema)]
#[schema(as = RewardKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum PointsKindSchema {
    Grant,
    Spend,
    Restore,
    TakeBack,
}

/// One line of the points' journal.
#[derive(Serialize, ToSchema)]
#[schema(as = Reward)]
pub(crate) struct RewardView {
    id: Uuid,
    #[schema(value_type = PointsKindSchema)]
    kind: PointsKind,
    /// Signed.
    points: Points,
    /// What it left.
    balance: Points,
    payment_id: Uuid,
    created_at: DateTime<Utc>,
}

impl From<&PointsEntry> for RewardView {
    fn from(entry: &PointsEntry) -> Self {
        Self {
            id: entry.id.0,
            kind: entry.kind,
            points: entry.points,
            balance: entry.balance,
            payment_id: entry.payment.0,
            created_at: entry.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Rewards {
    /// What one owns now.
    pub(crate) points: Points,
    pub(crate) items: Vec<RewardView>,
    pub(crate) next_cursor: Option<String>,
}
