//! A seat of one date. Its row names the one reservation it belongs to, so a double claim cannot be written down.

use crate::{DateId, ReservationId, Timestamp};
use std::sync::Arc;

/// The number of a seat within its date, from 1.
pub type SeatNumber = u32;

/// How a seat is addressed. Ordered by date, then number: the order in which rows are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatKey {
    pub date: DateId,
    pub number: SeatNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    Available,
    /// Until `until`; from that instant on it reads as available, even if the row still says held.
    Held {
        reservation: ReservationId,
        until: Timestamp,
    },
    Sold {
        reservation: ReservationId,
    },
}

impl SeatState {
    /// Whether it could be held at `now`.
    pub fn is_free(&self, now: Timestamp) -> bool {
        match self {
            Self::Available => true,
            Self::Held { until, .. } => *until <= now,
            Self::Sold { .. } => false,
        }
    }

    /// The reservation its row names.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::Available => None,
            Self::Held { reservation, .. } | Self::Sold { reservation } => Some(*reservation),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub key: SeatKey,
    pub section: Option<Arc<str>>,
    pub row: Option<Arc<str>>,
    pub grade: Arc<str>,
    pub price: crate::money::Money,
    pub state: SeatState,
}
