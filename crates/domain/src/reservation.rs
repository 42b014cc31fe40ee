//! A reservation: all of its seats or none. Owner, date, seats and prices never change after the hold.

use crate::money::Money;
use crate::{ConcertRef, DateRef, PaymentId, ReservationId, SeatKey, SeatNumber, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// The status in the row. A `Held` one whose time is over *reads* as `Expired`: ask [`Reservation::status_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    Held,
    Confirmed,
    Released,
    Expired,
    Cancelled,
}

/// A seat with the grade and price it had when it was held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatAtSale {
    pub number: SeatNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<std::sync::Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<std::sync::Arc<str>>,
    pub grade: std::sync::Arc<str>,
    pub price: Money,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub id: ReservationId,
    pub user: UserId,
    /// Concert and date as they were when it was held.
    pub concert: ConcertRef,
    pub date: DateRef,
    /// Ascending by number, never empty.
    pub seats: Vec<SeatAtSale>,
    pub status: ReservationStatus,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// How often it was extended.
    pub extensions: u32,
    pub payment: Option<PaymentId>,
}

impl Reservation {
    /// The status as it is at `now`: expiry takes effect at its instant, not when a sweep writes it.
    pub fn status_at(&self, now: Timestamp) -> ReservationStatus {
        match self.status {
            ReservationStatus::Held if self.expires_at <= now => ReservationStatus::Expired,
            status => status,
        }
    }

    /// Whether its seats count against the user's limit at `now`: a live hold, or sold.
    pub fn occupies_at(&self, now: Timestamp) -> bool {
        matches!(self.status_at(now), ReservationStatus::Held | ReservationStatus::Confirmed)
    }

    /// The sum of its seats' prices as held.
    pub fn total(&self) -> Money {
        self.seats.iter().map(|seat| seat.price).sum()
    }

    pub fn seat_keys(&self) -> impl Iterator<Item = SeatKey> + '_ {
        let date = self.date.id;
        self.seats.iter().map(move |seat| SeatKey { date, number: seat.number })
    }
}
