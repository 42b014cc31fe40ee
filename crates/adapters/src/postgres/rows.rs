//! The SQL types of the records' columns (see [`crate::sql::rows`]).

use super::sql::{Id, State};
use crate::sql::rows::{self, Contradiction};
use boxoffice_domain::money::Money;
use boxoffice_domain::{DateId, ReservationId, Seat, Timestamp};
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};

pub(super) use crate::sql::rows::{
    Snapshot, StateWord, narrow, occupied, outbox_rows, payment, payment_columns, reservation, reservation_columns, seat_state,
    seat_state_of, stored_reply,
};

type N = Nullable<BigInt>;

pub(super) type ReservationTypes =
    (SqlUuid, SqlUuid, SqlUuid, SqlUuid, Text, Timestamptz, Timestamptz, Integer, Nullable<SqlUuid>, BigInt, Text);
pub(super) type ReservationRow = rows::ReservationRow<Timestamp, i32>;

pub(super) type PaymentTypes = (SqlUuid, SqlUuid, SqlUuid, BigInt, BigInt, BigInt, Timestamptz, N, N, N, N, Nullable<Timestamptz>, BigInt);
pub(super) type PaymentRow = rows::PaymentRow<Timestamp>;

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

/// With its version.
pub(super) fn seat(columns: SeatColumns) -> Result<(Seat, i64), Contradiction> {
    let (date, number, section, row, grade, price, state, reservation, until, version) = columns;
    rows::seat(date.0, (number, section, row, grade, price, state, reservation, until, version))
}

pub(super) type ReplyTypes = (Binary, Text, Timestamptz, Timestamptz);
pub(super) type ReplyRow = rows::ReplyRow<Timestamp>;

pub(super) type EventTypes = (BigInt, Text, Timestamptz);
