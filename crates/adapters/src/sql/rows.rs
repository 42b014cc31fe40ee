//! Records of bookings as both databases keep them: columns, and the values read from them. A database has its own type
//! for an instant (`T`) and for a small number (`I`).

use super::columns::{Id, Json, State, Word};
use boxoffice_domain::batch::Occupied;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    ConcertId, ConcertRef, DateId, DateRef, Event, Fingerprint, Outcome, Payment, PaymentId, Refund, Rejection, Reservation, ReservationId,
    ReservationStatus, Seat, SeatAtSale, SeatKey, SeatState, StoredReply, Timestamp, UserId,
};
use boxoffice_ports::{OutboxRow, StoreError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

/// A row that no write can have left, or a value that no column takes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Contradiction(pub(crate) String);

impl From<Contradiction> for StoreError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Broken(contradiction.into())
    }
}

/// A reservation's own copy of its concert, date and seats, as they were when it was held. It never changes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Snapshot<'a> {
    name: Cow<'a, Arc<str>>,
    venue: Cow<'a, Arc<str>>,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    seats: Cow<'a, [SeatAtSale]>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn of(reservation: &'a Reservation) -> Self {
        Self {
            name: Cow::Borrowed(&reservation.concert.name),
            venue: Cow::Borrowed(&reservation.concert.venue),
            starts_at: reservation.date.starts_at,
            ends_at: reservation.date.ends_at,
            seats: Cow::Borrowed(&reservation.seats),
        }
    }
}

/// The columns of a reservation `r`, and how they are read.
macro_rules! reservation_columns {
    () => {
        "r.id, r.user_id, r.concert_id, r.date_id, r.status, r.created_at, r.expires_at, r.extensions, r.payment_id, r.version, r.snapshot"
    };
}
pub(crate) use reservation_columns;
pub(crate) type ReservationRow<T, I> = (
    Id<ReservationId>,
    Id<UserId>,
    Id<ConcertId>,
    Id<DateId>,
    State<ReservationStatus>,
    T,
    T,
    I,
    Option<Id<PaymentId>>,
    i64,
    Json<Snapshot<'static>>,
);

/// With its version.
pub(crate) fn reservation<T, I>(row: ReservationRow<T, I>) -> Result<(Reservation, i64), Contradiction>
where
    T: Into<Timestamp>,
    I: TryInto<u32> + Copy + Display,
{
    let (id, user, concert, date, status, created_at, expires_at, extensions, payment, version, Json(snapshot)) = row;
    let reservation = Reservation {
        id: id.0,
        user: user.0,
        concert: ConcertRef { id: concert.0, name: snapshot.name.into_owned(), venue: snapshot.venue.into_owned() },
        date: DateRef { id: date.0, starts_at: snapshot.starts_at, ends_at: snapshot.ends_at },
        seats: snapshot.seats.into_owned(),
        status: status.0,
        created_at: created_at.into(),
        expires_at: expires_at.into(),
        extensions: narrow("extensions", extensions)?,
        payment: payment.map(|id| id.0),
    };
    Ok((reservation, version))
}

/// The columns of a payment `p`, and how they are read.
macro_rules! payment_columns {
    () => {
        "p.id, p.reservation_id, p.user_id, p.amount, p.points_spent, p.points_granted, p.paid_at, \
         p.refund_amount, p.points_restored, p.points_taken, p.shortfall, p.refunded_at, p.version"
    };
}
pub(crate) use payment_columns;
pub(crate) type PaymentRow<T> = (
    Id<PaymentId>,
    Id<ReservationId>,
    Id<UserId>,
    Money,
    Points,
    Points,
    T,
    Option<Money>,
    Option<Points>,
    Option<Points>,
    Option<Money>,
    Option<T>,
    i64,
);

/// With its version.
pub(crate) fn payment<T: Into<Timestamp>>(row: PaymentRow<T>) -> (Payment, i64) {
    let (id, reservation, user, amount, points_spent, points_granted, paid_at, refund, restored, taken, shortfall, refunded_at, version) =
        row;
    let refund = match (refund, restored, taken, shortfall, refunded_at) {
        (Some(amount), Some(points_restored), Some(points_taken_back), Some(shortfall), Some(refunded_at)) => {
            Some(Refund { amount, points_restored, points_taken_back, shortfall, refunded_at: refunded_at.into() })
        }
        // The schema has all five or none.
        _ => None,
    };
    let (id, reservation, user, paid_at) = (id.0, reservation.0, user.0, paid_at.into());
    (Payment { id, reservation, user, amount, points_spent, points_granted, paid_at, refund }, version)
}

/// The columns of a seat but for its date, and how they are read.
pub(crate) type SeatRow<T, I> =
    (I, Option<String>, Option<String>, String, Money, State<StateWord>, Option<Id<ReservationId>>, Option<T>, i64);

/// The first of the three columns of a seat's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateWord {
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
pub(crate) fn seat_state(state: SeatState) -> (&'static str, Option<ReservationId>, Option<Timestamp>) {
    match state {
        SeatState::Available => (StateWord::Available.word(), None, None),
        SeatState::Held { reservation, until } => (StateWord::Held.word(), Some(reservation), Some(until)),
        SeatState::Sold { reservation } => (StateWord::Sold.word(), Some(reservation), None),
    }
}

/// The state that the three columns mean.
pub(crate) fn seat_state_of(
    state: StateWord,
    reservation: Option<ReservationId>,
    until: Option<Timestamp>,
) -> Result<SeatState, Contradiction> {
    match (state, reservation, until) {
        (StateWord::Available, None, None) => Ok(SeatState::Available),
        (StateWord::Held, Some(reservation), Some(until)) => Ok(SeatState::Held { reservation, until }),
        (StateWord::Sold, Some(reservation), None) => Ok(SeatState::Sold { reservation }),
        _ => Err(Contradiction("a seat contradicts itself".to_owned())),
    }
}

/// With its version.
pub(crate) fn seat<T, I>(date: DateId, row: SeatRow<T, I>) -> Result<(Seat, i64), Contradiction>
where
    T: Into<Timestamp>,
    I: TryInto<u32> + Copy + Display,
{
    let (number, section, row, grade, price, state, reservation, until, version) = row;
    let state = seat_state_of(state.0, reservation.map(|id| id.0), until.map(Into::into))?;
    let key = SeatKey { date, number: narrow("seat number", number)? };
    let text = |text: Option<String>| text.map(Arc::from);
    Ok((Seat { key, section: text(section), row: text(row), grade: grade.into(), price, state }, version))
}

/// What counts against a user's limit for a date.
pub(crate) fn occupied<T, I>(seats: I, status: State<ReservationStatus>, expires_at: T) -> Result<Occupied, Contradiction>
where
    T: Into<Timestamp>,
    I: TryInto<u32> + Copy + Display,
{
    let live_until = (status.0 == ReservationStatus::Held).then(|| expires_at.into());
    Ok(Occupied { seats: narrow("seats of a reservation", seats)?, live_until })
}

/// A reply but for its key: fingerprint, body, `decided_at`, `expires_at`.
pub(crate) type ReplyRow<T> = (Vec<u8>, Json<Result<Outcome, Rejection>>, T, T);

pub(crate) fn stored_reply<T: Into<Timestamp>>(row: ReplyRow<T>) -> Result<StoredReply, Contradiction> {
    let (fingerprint, Json(result), decided_at, expires_at) = row;
    let fingerprint = fingerprint.try_into().map_err(|_| Contradiction("a fingerprint is not 32 bytes".to_owned()))?;
    Ok(StoredReply { fingerprint: Fingerprint(fingerprint), result, decided_at: decided_at.into(), expires_at: expires_at.into() })
}

/// Counting the unsent events stops here.
pub(crate) const UNSENT_COUNT_MAX: i64 = 100_000;

/// An event of a shard: id, payload, `occurred_at`.
pub(crate) type EventRow<T> = (i64, Json<Event>, T);

pub(crate) fn outbox_rows<T: Into<Timestamp>>(shard: u32, found: Vec<EventRow<T>>) -> Vec<OutboxRow> {
    found.into_iter().map(|(id, Json(event), at)| OutboxRow { shard, id, event, occurred_at: at.into() }).collect()
}

/// The number in an integer column whose values fit 32 bits without a sign.
pub(crate) fn narrow<I: TryInto<u32> + Copy + Display>(what: &str, value: I) -> Result<u32, Contradiction> {
    value.try_into().map_err(|_| Contradiction(format!("{what} {value} is out of range")))
}

/// A count as it is stored.
pub(crate) fn stored(count: u64) -> Result<i64, Contradiction> {
    i64::try_from(count).map_err(|_| Contradiction(format!("{count} is out of range")))
}
