//! Rows as the domain knows them: the columns of each kind in one place, and what they make.

use super::failure::Failure;
use super::sql::{At, Id, Json, State};
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    ConcertId, ConcertRef, DateId, DateRef, Payment, PaymentId, Refund, Reservation, ReservationId, ReservationStatus, Seat, SeatAtSale,
    SeatKey, SeatState, Timestamp, UserId,
};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
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
pub(super) type ReservationTypes = (Binary, Binary, Binary, Binary, Text, BigInt, BigInt, BigInt, Nullable<Binary>, BigInt, Text);
pub(super) type ReservationRow = (
    Id<ReservationId>,
    Id<UserId>,
    Id<ConcertId>,
    Id<DateId>,
    State<ReservationStatus>,
    At,
    At,
    i64,
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
        created_at: created_at.0,
        expires_at: expires_at.0,
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
pub(super) type PaymentTypes = (Binary, Binary, Binary, BigInt, BigInt, BigInt, BigInt, N, N, N, N, N, BigInt);
pub(super) type PaymentRow = (
    Id<PaymentId>,
    Id<ReservationId>,
    Id<UserId>,
    Money,
    Points,
    Points,
    At,
    Option<Money>,
    Option<Points>,
    Option<Points>,
    Option<Money>,
    Option<At>,
    i64,
);

/// With its version.
pub(super) fn payment(row: PaymentRow) -> (Payment, i64) {
    let (id, reservation, user, amount, points_spent, points_granted, paid_at, refund, restored, taken, shortfall, refunded_at, version) =
        row;
    let refund = match (refund, restored, taken, shortfall, refunded_at) {
        (Some(amount), Some(points_restored), Some(points_taken_back), Some(shortfall), Some(At(refunded_at))) => {
            Some(Refund { amount, points_restored, points_taken_back, shortfall, refunded_at })
        }
        // The schema has all five or none.
        _ => None,
    };
    let payment =
        Payment { id: id.0, reservation: reservation.0, user: user.0, amount, points_spent, points_granted, paid_at: paid_at.0, refund };
    (payment, version)
}

/// The columns of a seat, but for its date.
macro_rules! seat_columns {
    () => {
        "number, section, \"row\", grade, price, state, reservation_id, held_until, version"
    };
}
pub(super) use seat_columns;
pub(super) type SeatTypes = (BigInt, Nullable<Text>, Nullable<Text>, Text, BigInt, Text, Nullable<Binary>, N, BigInt);
pub(super) type SeatColumns =
    (i64, Option<String>, Option<String>, String, Money, State<StateWord>, Option<Id<ReservationId>>, Option<At>, i64);

/// The first of the three columns of a seat's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateWord {
    Available,
    Held,
    Sold,
}

impl super::sql::Word for StateWord {
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
pub(super) fn seat_state(state: SeatState) -> (&'static str, Option<ReservationId>, Option<At>) {
    match state {
        SeatState::Available => ("available", None, None),
        SeatState::Held { reservation, until } => ("held", Some(reservation), Some(At(until))),
        SeatState::Sold { reservation } => ("sold", Some(reservation), None),
    }
}

/// With its version.
pub(super) fn seat(date: DateId, columns: SeatColumns) -> Result<(Seat, i64), Failure> {
    let (number, section, row, grade, price, state, reservation, until, version) = columns;
    let state = match (state.0, reservation, until) {
        (StateWord::Available, None, None) => SeatState::Available,
        (StateWord::Held, Some(Id(reservation)), Some(At(until))) => SeatState::Held { reservation, until },
        (StateWord::Sold, Some(Id(reservation)), None) => SeatState::Sold { reservation },
        _ => return Err(Failure::Data(format!("seat {number} of date {date} contradicts itself"))),
    };
    let key = SeatKey { date, number: narrow("seat number", number)? };
    let text = |text: Option<String>| text.map(Arc::from);
    Ok((Seat { key, section: text(section), row: text(row), grade: grade.into(), price, state }, version))
}

/// An integer column whose values fit 32 bits.
pub(super) fn narrow(what: &str, value: i64) -> Result<u32, Failure> {
    u32::try_from(value).map_err(|_| Failure::Data(format!("{what} {value} is out of range")))
}
