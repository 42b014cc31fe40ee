//! The SQL types of the records' columns (see [`crate::rows`]).

use super::failure::Failure;
use super::sql::At;
use crate::rows::{self, Contradiction};
use boxoffice_domain::Timestamp;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

pub(super) use crate::rows::{
    AdmissionRow, AdmissionTypes, Snapshot, admission, admission_columns, draw, narrow, payment, payment_columns, reservation,
    reservation_columns, seat, seat_state, stored_admission,
};

impl From<Contradiction> for Failure {
    fn from(contradiction: Contradiction) -> Self {
        Self::Data(contradiction.0)
    }
}

impl From<At> for Timestamp {
    fn from(at: At) -> Self {
        at.0
    }
}

pub(super) type ReservationTypes = (Binary, Binary, Binary, Binary, Text, BigInt, BigInt, BigInt, Nullable<Binary>, BigInt, Text);
pub(super) type ReservationRow = rows::ReservationRow<At, i64>;

type N = Nullable<BigInt>;
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
