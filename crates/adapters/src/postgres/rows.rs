//! Rows as the domain knows them: the columns of each kind in one place, and what they make.

use super::failure::Failure;
use super::sql::{Id, Json, State, Word};
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    ConcertId, ConcertRef, DateId, DateRef, Payment, PaymentId, Refund, Reservation, ReservationId, ReservationStatus, Seat, SeatAtSale,
    SeatKey, SeatState, Timestamp, UserId,
};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// What a reservation keeps of its concert, date and seats: as they were when it was held, and never changed.
#[derive(Serialize, Deserialize)]
pub(super) struct Snapshot<'a> {
    name: Cow<'a, Arc<str>>,
    venue: Cow<'a, Arc<str>>,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    seats: Cow<'a, [SeatAtSale]>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn of(reservation: &'a Reservation) -> Self {
        Self {
            name: Cow::Borrowed(&reservation.concert.name),
            venue: Cow::Borrowed(&reservation.concert.venue),
            starts_at: reservation.date.starts_at,
            ends_at: reservation.date.ends_at,
            seats: Cow::Borrowed(&reservation.seats),
        }
    }
}

/// The columns of a reservation `r`; their SQL types, and how they are read.
macro_rules! reservation_columns {
    () => {
        "r.id, r.user_id, r.concert_id, r.date_id, r.status, r.created_at, r.expires_at, r.extensions, r.payment_id, r.version, r.snapshot"
    };
}
pub(super) use reservation_columns;
pub(super) type ReservationTypes =
    (SqlUuid, SqlUuid, SqlUuid, SqlUuid, Text, Timestamptz, Timestamptz, Integer, Nullable<SqlUuid>, BigInt, Text);
pub(super) type ReservationRow = (
    Id<ReservationId>,
    Id<UserId>,
    Id<ConcertId>,
    Id<DateId>,
    State<ReservationStatus>,
    Timestamp,
    Timestamp,
    i32,
    Option<Id<PaymentId>>,
    i64,
    Json<Snapshot<'static>>,
);

/// With its version.
pub(super) fn reservation(row: ReservationRow) -> Result<(Reservation, i64), Failure> {
    let (id, user, concert, date, status, created_at, expires_at, extensions, payment, version, Json(snapshot)) = row;
    let reservation = Reservation {
        id: id.0,
        user: user.0,
        concert: ConcertRef { id: concert.0, name: snapshot.name.into_owned(), venue: snapshot.venue.into_owned() },
        date: DateRef { id: date.0, starts_at: snapshot.starts_at, ends_at: snapshot.ends_at },
        seats: snapshot.seats.into_owned(),
        status: status.0,
        created_at,
        expires_at,
        extensions: narrow("extensions", extensions)?,
        payment: payment.map(|id| id.0),
    };
    Ok((reservation, version))
}

/// The columns of a payment `p`.
macro_rules! payment_columns {
    () => {
        "p.id, p.reservation_id, p.user_id, p.amount, p.points_spent, p.points_granted, p.paid_at, \
         p.refund_amount, p.points_restored, p.points_taken, p.shortfall, p.refunded_at, p.version"
    };
}
pub(super) use payment_columns;
type N = Nullable<BigInt>;
pub(super) type PaymentTypes = (SqlUuid, SqlUuid, SqlUuid, BigInt, BigInt, BigInt, Timestamptz, N, N, N, N, Nullable<Timestamptz>, BigInt);
pub(super) type PaymentRow = (
    Id<PaymentId>,
    Id<ReservationId>,
    Id<UserId>,
    Money,
    Points,
    Points,
    Timestamp,
    Option<Money>,
    Option<Points>,
    Option<Points>,
    Option<Money>,
    Option<Timestamp>,
    i64,
);

/// With its version.
pub(super) fn payment(row: PaymentRow) -> (Payment, i64) {
    let (id, reservation, user, amount, points_spent, points_granted, paid_at, refund, restored, taken, shortfall, refunded_at, version) =
        row;
    let refund = match (refund, restored, taken, shortfall, refunded_at) {
        (Some(amount), Some(points_restored), Some(points_taken_back), Some(shortfall), Some(refunded_at)) => {
            Some(Refund { amount, points_restored, points_taken_back, shortfall, refunded_at })
        }
        // The schema has all five or none.
        _ => None,
    };
    let payment = Payment { id: id.0, reservation: reservation.0, user: user.0, amount, points_spent, points_granted, paid_at, refund };
    (payment, version)
}

/// The columns of a seat `s`.
macro_rules! seat_columns {
    () => {
        "s.date_id, s.number, s.section, s.\"row\", s.grade, s.price, s.state, s.reservation_id, s.held_until, s.version"
    };
}
pub(super) use seat_columns;
pub(super) type SeatTypes =
    (SqlUuid, Integer, Nullable<Text>, Nullable<Text>, Text, BigInt, Text, Nullable<SqlUuid>, Nullable<Timestamptz>, BigInt);
pub(super) type SeatColumns =
    (Id<DateId>, i32, Option<String>, Option<String>, String, Money, State<StateWord>, Option<Id<ReservationId>>, Option<Timestamp>, i64);

/// The first of the three columns of a seat's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateWord {
    Available,
    Held,
    Sold,
}

impl Word for StateWord {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Available, "available"), (Self::Held, "held"), (Self::Sold, "sold")];

    fn word(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Held => "held",
            Self::Sold => "sold",
        }
    }
}

/// The three columns that a seat's state is written as.
pub(super) fn seat_state(state: SeatState) -> (&'static str, Option<ReservationId>, Option<Timestamp>) {
    match state {
        SeatState::Available => (StateWord::Available.word(), None, None),
        SeatState::Held { reservation, until } => (StateWord::Held.word(), Some(reservation), Some(until)),
        SeatState::Sold { reservation } => (StateWord::Sold.word(), Some(reservation), None),
    }
}

/// The state that the three columns mean.
pub(super) fn seat_state_of(state: StateWord, reservation: Option<ReservationId>, until: Option<Timestamp>) -> Result<SeatState, Failure> {
    match (state, reservation, until) {
        (StateWord::Available, None, None) => Ok(SeatState::Available),
        (StateWord::Held, Some(reservation), Some(until)) => Ok(SeatState::Held { reservation, until }),
        (StateWord::Sold, Some(reservation), None) => Ok(SeatState::Sold { reservation }),
        _ => Err(Failure::Data("a seat contradicts itself".to_owned())),
    }
}

/// With its version.
pub(super) fn seat(columns: SeatColumns) -> Result<(Seat, i64), Failure> {
    let (date, number, section, row, grade, price, state, reservation, until, version) = columns;
    let state = seat_state_of(state.0, reservation.map(|id| id.0), until)?;
    let key = SeatKey { date: date.0, number: narrow("seat number", number)? };
    let text = |text: Option<String>| text.map(Arc::from);
    Ok((Seat { key, section: text(section), row: text(row), grade: grade.into(), price, state }, version))
}

/// An integer column whose values fit 32 bits without a sign.
pub(super) fn narrow<N: TryInto<u32> + Copy + std::fmt::Display>(what: &str, value: N) -> Result<u32, Failure> {
    value.try_into().map_err(|_| Failure::Data(format!("{what} {value} is out of range")))
}
