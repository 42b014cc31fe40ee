//! Lists and their pages: columns, and the values read from them.

use super::columns::{Id, State};
use super::rows::{self, Contradiction};
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{EntryId, EntryKind, PaymentId, PointsEntry, PointsKind, ReservationId, Timestamp, UserId, WalletEntry};
use boxoffice_ports::{Page, PaymentRow};
use std::fmt::Display;
use uuid::Uuid;

/// Above every id that is given out.
pub(crate) const LAST: Uuid = Uuid::max();

/// A page of `found`, which has one row more than `limit` if there are more.
pub(crate) fn page<R, T>(found: Vec<R>, limit: u32, item: impl FnMut(R) -> Result<T, Contradiction>) -> Result<Page<T>, Contradiction> {
    let more = found.len() > limit as usize;
    let items = found.into_iter().take(limit as usize).map(item).collect::<Result<_, _>>()?;
    Ok(Page { items, more })
}

/// The columns of a wallet's entry, and how they are read.
macro_rules! entry_columns {
    () => {
        "seq, id, kind, amount, balance, memo, reservation_id, payment_id, created_at"
    };
}
pub(crate) use entry_columns;
pub(crate) type EntryRow<T> =
    (i64, Id<EntryId>, State<EntryKind>, Money, Money, Option<String>, Option<Id<ReservationId>>, Option<Id<PaymentId>>, T);

pub(crate) fn entry<T: Into<Timestamp>>(user: UserId, row: EntryRow<T>) -> WalletEntry {
    let (seq, id, kind, amount, balance, memo, reservation, payment, created_at) = row;
    let (reservation, payment) = (reservation.map(|id| id.0), payment.map(|id| id.0));
    WalletEntry { id: id.0, user, seq, kind: kind.0, amount, balance, memo, reservation, payment, created_at: created_at.into() }
}

/// The columns of a points entry, and how they are read.
macro_rules! points_entry_columns {
    () => {
        "seq, id, kind, points, balance, payment_id, created_at"
    };
}
pub(crate) use points_entry_columns;
pub(crate) type PointsEntryRow<T> = (i64, Id<EntryId>, State<PointsKind>, Points, Points, Id<PaymentId>, T);

pub(crate) fn points_entry<T: Into<Timestamp>>(user: UserId, row: PointsEntryRow<T>) -> PointsEntry {
    let (seq, id, kind, points, balance, payment, created_at) = row;
    PointsEntry { id: id.0, user, seq, kind: kind.0, points, balance, payment: payment.0, created_at: created_at.into() }
}

/// A payment and the reservation that it paid.
pub(crate) fn payment_row<T, I>(
    (payment, reservation): (rows::PaymentRow<T>, rows::ReservationRow<T, I>),
) -> Result<PaymentRow, Contradiction>
where
    T: Into<Timestamp>,
    I: TryInto<u32> + Copy + Display,
{
    Ok(PaymentRow { payment: rows::payment(payment).0, reservation: rows::reservation(reservation)?.0 })
}
