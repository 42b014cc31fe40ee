//! The SQL types of the records' columns (see [`crate::sql::rows`]).

use super::sql::At;
use crate::sql::rows;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

pub(super) use crate::sql::rows::{
    Snapshot, narrow, occupied, outbox_rows, payment, payment_columns, reservation, reservation_columns, seat, seat_state, stored_reply,
};

type N = Nullable<BigInt>;

pub(super) type ReservationTypes = (Binary, Binary, Binary, Binary, Text, BigInt, BigInt, BigInt, Nullable<Binary>, BigInt, Text);
pub(super) type ReservationRow = rows::ReservationRow<At, i64>;

pub(super) type PaymentTypes = (Binary, Binary, Binary, BigInt, BigInt, BigInt, BigInt, N, N, N, N, N, BigInt);
pub(super) type PaymentRow = rows::PaymentRow<At>;

/// The columns of a seat, but for its date.
macro_rules! seat_columns {
    () => {
        "number, section, \"row\", grade, price, state, reservation_id, held_until, version"
    };
}
pub(super) use seat_columns;
pub(super) type SeatTypes = (BigInt, Nullable<Text>, Nullable<Text>, Text, BigInt, Text, Nullable<Binary>, N, BigInt);
pub(super) type SeatColumns = rows::SeatRow<At, i64>;

pub(super) type ReplyTypes = (Binary, Text, BigInt, BigInt);
pub(super) type ReplyRow = rows::ReplyRow<At>;

pub(super) type EventTypes = (BigInt, Text, BigInt);
