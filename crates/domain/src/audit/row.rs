//! The rows of the five passes. Within a key the variants of a pass come in the order in which they stand here, unless
//! it is stated otherwise.

use crate::account::{Account, EntryKind, PointsKind};
use crate::decide::Outcome;
use crate::ids::{CommandId, ConcertId, DateId, EntryId, PaymentId, ReservationId, UserId};
use crate::money::{Money, Points};
use crate::reservation::ReservationStatus;
use crate::seat::{SeatKey, SeatNumber, SeatState};
use crate::time::Timestamp;

/// A row under the key of its pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    OfUser(UserId, OfUser),
    OfPayment(PaymentId, OfPayment),
    OfReservation(ReservationId, OfReservation),
    OfDate(DateId, OfDate),
    OfEntry(EntryId, OfEntry),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfUser {
    Account(Account),
    /// Ascending by `seq`.
    Entry {
        seq: i64,
        kind: EntryKind,
        amount: Money,
        balance: Money,
    },
    /// Ascending by `seq`.
    Points {
        seq: i64,
        kind: PointsKind,
        points: Points,
        balance: Points,
    },
}

/// The lines of the journals come sorted by user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfPayment {
    Payment(PaymentMade),
    /// A wallet's entry that names the payment.
    Entry {
        user: UserId,
        kind: EntryKind,
        amount: Money,
    },
    Points {
        user: UserId,
        kind: PointsKind,
        points: Points,
    },
    /// What a reply claims of the payment, and of which reservation.
    Claim {
        claim: Claim,
        reservation: Option<ReservationId>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentMade {
    pub user: UserId,
    pub reservation: ReservationId,
    pub amount: Money,
    pub points_spent: Points,
    pub points_granted: Points,
    pub refund: Option<Refunded>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refunded {
    pub amount: Money,
    pub points_restored: Points,
    pub points_taken_back: Points,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfReservation {
    Reservation(ReservationMade),
    Payment(PaidFor),
    /// A seat that names the reservation.
    Seat(SeatNaming),
    Claim(Claim),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationMade {
    pub user: UserId,
    pub concert: ConcertId,
    pub date: DateId,
    pub status: ReservationStatus,
    pub expires_at: Timestamp,
    pub payment: Option<PaymentId>,
    /// How many seats it counts.
    pub seat_count: u32,
    /// The seats that it locks, ascending.
    pub seats: Vec<SeatNumber>,
    /// The seats that it was held for, ascending, with their prices.
    pub held_for: Vec<(SeatNumber, Money)>,
}

/// A payment as its reservation must agree with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidFor {
    pub payment: PaymentId,
    pub user: UserId,
    pub concert: ConcertId,
    pub amount: Money,
    pub points_spent: Points,
    pub refunded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatNaming {
    pub seat: SeatKey,
    /// The end of the hold; `None` when it is sold.
    pub held_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfDate {
    Date {
        seats_total: u64,
    },
    Seat(SeatState),
    /// One whose row is held or confirmed. Sorted by user.
    Reservation {
        user: UserId,
        status: ReservationStatus,
        expires_at: Timestamp,
        seat_count: u32,
    },
}

/// Sorted by user, then `seq`; a claim follows the entry that it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfEntry {
    Entry { user: UserId, seq: i64, amount: Money },
    Claim { claim: Claim, user: Option<UserId>, seq: Option<i64>, amount: Option<Money> },
}

/// A reply of success, of one command of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub user: UserId,
    pub command: CommandId,
    pub effect: Effect,
}

/// The effect that a reply claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Entered,
    Held,
    Extended,
    Released,
    Expired,
    Paid,
    Refunded,
}

impl Effect {
    pub const ALL: [Self; 7] = [Self::Entered, Self::Held, Self::Extended, Self::Released, Self::Expired, Self::Paid, Self::Refunded];

    /// As the outcome is tagged in a stored reply.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entered => "entered",
            Self::Held => "held",
            Self::Extended => "extended",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Paid => "paid",
            Self::Refunded => "refunded",
        }
    }
}

impl Row {
    /// The claim of a stored reply, under the key of what it claims.
    pub fn claim(user: UserId, command: CommandId, outcome: &Outcome) -> Self {
        let claim = |effect| Claim { user, command, effect };
        let of_reservation = |id, effect| Self::OfReservation(id, OfReservation::Claim(claim(effect)));
        let of_payment =
            |id, reservation, effect| Self::OfPayment(id, OfPayment::Claim { claim: claim(effect), reservation: Some(reservation) });
        match outcome {
            Outcome::Entered { entry } => {
                let (user, seq, amount) = (Some(entry.user), Some(entry.seq), Some(entry.amount));
                Self::OfEntry(entry.id, OfEntry::Claim { claim: claim(Effect::Entered), user, seq, amount })
            }
            Outcome::Held { reservation, .. } => of_reservation(reservation.id, Effect::Held),
            Outcome::Extended { reservation, .. } => of_reservation(reservation.id, Effect::Extended),
            Outcome::Released { reservation } => of_reservation(reservation.id, Effect::Released),
            Outcome::Expired { reservation } => of_reservation(reservation.id, Effect::Expired),
            Outcome::Paid { payment, reservation, .. } => of_payment(payment.id, reservation.id, Effect::Paid),
            Outcome::Refunded { payment, reservation } => of_payment(payment.id, reservation.id, Effect::Refunded),
        }
    }
}
