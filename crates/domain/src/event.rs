//! Events for other systems, written in the same transaction as their change.

use crate::money::{Money, Points};
use crate::{ConcertId, DateId, EntryId, PaymentId, Reservation, ReservationId, SeatKey, SeatNumber, UserId};
use serde::{Deserialize, Serialize};

/// How many ordered streams the outbox has. A seat's events always fall into the same one.
pub const OUTBOX_SHARDS: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationChange {
    Held,
    Released,
    Expired,
    Confirmed,
    Cancelled,
}

/// A change of a reservation is an event for each of its seats, in that seat's order, and one for the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Seat {
        change: ReservationChange,
        date: DateId,
        seat: SeatNumber,
        reservation: ReservationId,
    },
    Reservation {
        change: ReservationChange,
        reservation: ReservationId,
        user: UserId,
        concert: ConcertId,
        date: DateId,
        seats: Vec<SeatNumber>,
        total: Money,
    },
    PaymentPaid {
        payment: PaymentId,
        reservation: ReservationId,
        user: UserId,
        concert: ConcertId,
        amount: Money,
        points_spent: Points,
        points_granted: Points,
        /// No other live hold of the payer for this concert remained. Rows from before this was noted read so.
        #[serde(default = "noted_since")]
        last_hold: bool,
    },
    PaymentRefunded {
        payment: PaymentId,
        reservation: ReservationId,
        user: UserId,
        concert: ConcertId,
        amount: Money,
        points_restored: Points,
        points_taken_back: Points,
    },
    WalletCharged {
        user: UserId,
        entry: EntryId,
        amount: Money,
        balance: Money,
    },
    WalletUsed {
        user: UserId,
        entry: EntryId,
        amount: Money,
        balance: Money,
    },
}

fn noted_since() -> bool {
    true
}

impl Event {
    pub(crate) fn seat(change: ReservationChange, key: SeatKey, reservation: ReservationId) -> Self {
        Self::Seat { change, date: key.date, seat: key.number, reservation }
    }

    pub(crate) fn reservation(change: ReservationChange, of: &Reservation) -> Self {
        Self::Reservation {
            change,
            reservation: of.id,
            user: of.user,
            concert: of.concert.id,
            date: of.date.id,
            seats: of.seats.iter().map(|seat| seat.number).collect(),
            total: of.total(),
        }
    }

    /// The event's type as it is published.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Seat { change, .. } | Self::Reservation { change, .. } => match change {
                ReservationChange::Held => "reservation.held",
                ReservationChange::Released => "reservation.released",
                ReservationChange::Expired => "reservation.expired",
                ReservationChange::Confirmed => "reservation.confirmed",
                ReservationChange::Cancelled => "reservation.cancelled",
            },
            Self::PaymentPaid { .. } => "payment.paid",
            Self::PaymentRefunded { .. } => "payment.refunded",
            Self::WalletCharged { .. } => "wallet.charged",
            Self::WalletUsed { .. } => "wallet.used",
        }
    }

    /// The outbox shard, from 0: by seat, by reservation, or by wallet, so that each one's order holds.
    pub fn shard(&self) -> u32 {
        // The low half of a UUIDv7 is random.
        let spread = |id: uuid::Uuid, salt: u32| {
            let low = id.as_u128() as u64;
            (((low ^ u64::from(salt)).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32) as u32 % OUTBOX_SHARDS
        };
        match self {
            Self::Seat { date, seat, .. } => spread(date.0, *seat),
            Self::Reservation { reservation, .. } => spread(reservation.0, 0),
            Self::PaymentPaid { user, .. }
            | Self::PaymentRefunded { user, .. }
            | Self::WalletCharged { user, .. }
            | Self::WalletUsed { user, .. } => spread(user.0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    const CHANGES: [ReservationChange; 5] = [
        ReservationChange::Held,
        ReservationChange::Released,
        ReservationChange::Expired,
        ReservationChange::Confirmed,
        ReservationChange::Cancelled,
    ];

    fn seat_event(change: ReservationChange, date: u128, seat: SeatNumber, reservation: u128) -> Event {
        let key = SeatKey { date: Uuid::from_u128(date).into(), number: seat };
        Event::seat(change, key, Uuid::from_u128(reservation).into())
    }

    #[test]
    fn a_seats_events_share_a_shard_and_seats_spread_over_all() {
        let mut used = BTreeMap::new();
        for seat in 1..=1_600 {
            let shard = seat_event(ReservationChange::Held, 7, seat, 1).shard();
            assert!(shard < OUTBOX_SHARDS);
            *used.entry(shard).or_insert(0) += 1;
            for (reservation, change) in CHANGES.into_iter().enumerate() {
                assert_eq!(seat_event(change, 7, seat, reservation as u128).shard(), shard, "{change:?} of seat {seat}");
            }
        }
        assert_eq!(used.len() as u32, OUTBOX_SHARDS);
        assert!(used.values().all(|seats| (50..200).contains(seats)), "{used:?}");
    }

    #[test]
    fn a_wallets_events_share_a_shard() {
        let (user, other) = (UserId(Uuid::from_u128(5)), Uuid::from_u128(9));
        let charged = Event::WalletCharged { user, entry: other.into(), amount: 1, balance: 1 };
        let used = Event::WalletUsed { user, entry: other.into(), amount: 1, balance: 0 };
        assert_eq!(charged.shard(), used.shard());
    }

    #[test]
    fn events_survive_json_and_say_their_type() {
        let kinds: Vec<_> = CHANGES.iter().map(|change| seat_event(*change, 1, 2, 3).kind()).collect();
        assert_eq!(
            kinds,
            ["reservation.held", "reservation.released", "reservation.expired", "reservation.confirmed", "reservation.cancelled"]
        );
        let (user, concert, id) = (Uuid::from_u128(5).into(), Uuid::from_u128(6).into(), Uuid::from_u128(7));
        let paid = Event::PaymentPaid {
            payment: id.into(),
            reservation: id.into(),
            user,
            concert,
            amount: i64::MAX,
            points_spent: 0,
            points_granted: 3,
            last_hold: true,
        };
        assert_eq!(paid.kind(), "payment.paid");
        for event in [paid, seat_event(ReservationChange::Held, 1, u32::MAX, 3)] {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
    }
}
