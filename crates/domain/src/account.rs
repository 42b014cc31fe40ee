//! The wallet and the points of one user: one row, which is also the user's mutex, and two append-only journals.

use crate::money::{Money, Points};
use crate::{EntryId, PaymentId, ReservationId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Balance and points, never below zero. `entries` and `points_entries` count the journals' lines and number the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub user: UserId,
    pub balance: Money,
    pub points: Points,
    pub entries: i64,
    pub points_entries: i64,
}

impl Account {
    pub fn empty(user: UserId) -> Self {
        Self { user, balance: 0, points: 0, entries: 0, points_entries: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    Charge,
    Use,
    Payment,
    Refund,
}

/// One line of a wallet's journal. `amount` is signed; `balance` is what it left; `seq` counts from 1 for each user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletEntry {
    pub id: EntryId,
    pub user: UserId,
    pub seq: i64,
    pub kind: EntryKind,
    pub amount: Money,
    pub balance: Money,
    pub memo: Option<String>,
    pub reservation: Option<ReservationId>,
    pub payment: Option<PaymentId>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointsKind {
    Grant,
    Spend,
    Restore,
    TakeBack,
}

/// One line of the points' journal, always about a payment. `points` is signed; `balance` is what it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsEntry {
    pub id: EntryId,
    pub user: UserId,
    pub seq: i64,
    pub kind: PointsKind,
    pub points: Points,
    pub balance: Points,
    pub payment: PaymentId,
    pub created_at: Timestamp,
}
