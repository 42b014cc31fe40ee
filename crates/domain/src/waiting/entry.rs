//! One stay in a waiting room: how it reads, and what is reported of it.

use crate::draw::Hash32;
use crate::{Eta, QueueEntryId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Which of a concert's lines an entry stands in. 0 is the general one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane(pub u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueStatus {
    PreSale,
    Waiting,
    /// Waiting while nothing can be had.
    SoldOut,
    Active,
    Done,
    Expired,
    Left,
}

impl QueueStatus {
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Expired | Self::Left)
    }

    pub fn is_waiting(self) -> bool {
        matches!(self, Self::PreSale | Self::Waiting | Self::SoldOut)
    }
}

/// An entry whose status has changed: its kept status is `Waiting`, `Active`, `Done`, `Expired` or `Left`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomChange {
    pub entry: QueueEntryId,
    pub user: UserId,
    /// 0: it has none before the draw.
    pub place: u64,
    pub lane: Lane,
    pub was: Option<QueueStatus>,
    pub status: QueueStatus,
    pub promoted_at: Option<Timestamp>,
    pub active_until: Option<Timestamp>,
}

/// What an entry reads as at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub entry: QueueEntryId,
    pub user: UserId,
    pub lane: Lane,
    pub status: QueueStatus,
    /// The fixed ordinal, from 1; 0 before the draw. For tokens it is known even while the public answer hides it.
    pub arrival: u64,
    /// How many wait before it in its lane; 0 is next. `None` unless it waits or is active.
    pub ahead: Option<u64>,
    pub active_until: Option<Timestamp>,
    pub eta: Option<Eta>,
    /// How likely a seat is still to be had when the turn comes, in thousandths.
    pub chance: Option<u16>,
    pub sale_starts_at: Option<Timestamp>,
    /// The draw's commitment, and the seed once it is revealed.
    pub draw: Option<(Hash32, Option<Hash32>)>,
}

/// What came of joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub place: Place,
    /// False: the user was there already.
    pub new: bool,
}

/// What came of asking for a longer turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    To(Place),
    /// It was lengthened as often as may be.
    LimitReached,
    /// It has no turn, or is not known.
    NotActive,
}

/// Seats that could still be had: available or in a live hold, on dates whose booking has not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    pub obtainable: u64,
    /// Whether active places are limited by it.
    pub linked: bool,
}

/// What a tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    pub promoted: u64,
    pub expired: u64,
    /// Whose turn ended because they were gone: their unpaid holds go back.
    pub abandoned: Vec<UserId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomCounts {
    pub waiting: u64,
    pub active: u64,
    pub served: u64,
    pub left: u64,
    pub expired: u64,
    pub admitted_per_s: f64,
    /// The share of forecast ranges that the true wait fell into; `None` before any was judged.
    pub eta_calibration: Option<f64>,
    /// The share of turns that their buyer did not come for.
    pub no_shows: f64,
}

/// When to poll again, milliseconds: soon for an entry near the front, seldom for one far behind or before the sale.
pub fn poll_after_ms(place: &Place, now: Timestamp) -> Option<u32> {
    const SLOWEST_MS: u64 = 10_000;
    let ms = match place.status {
        QueueStatus::PreSale => {
            let left = place.sale_starts_at.map_or(0, |start| (start - now).num_milliseconds().max(0));
            (left.unsigned_abs() / 2).clamp(1_000, SLOWEST_MS)
        }
        QueueStatus::Waiting => (1_000 + place.ahead.unwrap_or(0)).min(SLOWEST_MS),
        QueueStatus::SoldOut | QueueStatus::Active => SLOWEST_MS,
        QueueStatus::Done | QueueStatus::Expired | QueueStatus::Left => return None,
    };
    Some(ms as u32)
}
