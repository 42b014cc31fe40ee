//! The audit: the invariants of a store, each stated once and judged here for the rows of any store.
//!
//! A store reads its rows in five passes ([`Row`]), all over one snapshot, and [`Audit::take`]s each row. A pass is
//! sorted by one key, so what rows of different tables claim of each other meets under that key: an entry and its
//! account under the user, a seat and its reservation under the reservation. The audit keeps the sums of one key, and
//! of each check the first [`BREACHES_MAX`] findings. Its memory does not grow with the store.
//!
//! A database sorts and extracts, which it does best and may do on disk, and judges nothing. Its schema already refuses
//! part of what is looked for here, for instance an amount with the wrong sign; a store without a schema does not.

mod claims;
mod dates;
mod entries;
mod found;
mod payments;
mod reservations;
mod row;
mod sums;
#[cfg(test)]
mod tests;
mod users;

pub use found::{AuditReport, BREACHES_MAX, Breach};
pub use row::{
    Claim, Effect, OfDate, OfEntry, OfPayment, OfReservation, OfUser, PaidFor, PaymentMade, Refunded, ReservationMade, Row, SeatNaming,
};

use crate::ids::{DateId, EntryId, PaymentId, ReservationId, UserId};
use crate::time::Timestamp;
use dates::DateSums;
use entries::EntrySums;
use found::Found;
use payments::PaymentSums;
use reservations::ReservationSums;
use users::UserSums;

/// One audit, from the first row to [`Audit::finish`].
#[derive(Debug)]
pub struct Audit {
    /// The store's clock, read in the snapshot or before it, so that no hold that ran out since counts as live.
    now: Timestamp,
    max_seats_per_user: u32,
    found: Found,
    users: Group<UserId, UserSums>,
    payments: Group<PaymentId, PaymentSums>,
    reservations: Group<ReservationId, ReservationSums>,
    dates: Group<DateId, DateSums>,
    entries: Group<EntryId, EntrySums>,
}

impl Audit {
    pub fn new(now: Timestamp, max_seats_per_user: u32) -> Self {
        Self {
            now,
            max_seats_per_user,
            found: Found::default(),
            users: Group::default(),
            payments: Group::default(),
            reservations: Group::default(),
            dates: Group::default(),
            entries: Group::default(),
        }
    }

    /// The next row of its pass. Passes may come in any order, or alternate.
    pub fn take(&mut self, row: Row) {
        let (found, now, limit) = (&mut self.found, self.now, self.max_seats_per_user);
        match row {
            Row::OfUser(user, row) => self.users.at(user, |user, sums| sums.close(user, found)).take(row, user, found),
            Row::OfPayment(payment, row) => {
                self.payments.at(payment, |payment, sums| sums.close(payment, found)).take(row, payment, found);
            }
            Row::OfReservation(reservation, row) => {
                let sums = self.reservations.at(reservation, |reservation, sums| sums.close(reservation, now, found));
                sums.take(row, reservation, now, found);
            }
            Row::OfDate(date, row) => self.dates.at(date, |date, sums| sums.close(date, limit, found)).take(row, date, now, limit, found),
            Row::OfEntry(entry, row) => self.entries.at(entry, |entry, sums| sums.close(entry, found)).take(row, found),
        }
    }

    /// What was found, once every pass has ended. `replies` is how many the store keeps, refusals included.
    pub fn finish(mut self, replies: u64) -> AuditReport {
        let found = &mut self.found;
        self.users.end(|user, sums| sums.close(user, found));
        self.payments.end(|payment, sums| sums.close(payment, found));
        self.reservations.end(|reservation, sums| sums.close(reservation, self.now, found));
        self.dates.end(|date, sums| sums.close(date, self.max_seats_per_user, found));
        self.entries.end(|entry, sums| sums.close(entry, found));
        self.found.report(replies)
    }
}

/// The sums of the key that a pass is at.
#[derive(Debug)]
struct Group<K, S>(Option<(K, S)>);

impl<K, S> Default for Group<K, S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Copy + PartialEq, S: Default> Group<K, S> {
    /// The sums of `key`; those of the key before it are closed first.
    fn at(&mut self, key: K, close: impl FnOnce(K, S)) -> &mut S {
        if self.0.as_ref().is_some_and(|(current, _)| *current != key) {
            self.end(close);
        }
        &mut self.0.get_or_insert_with(|| (key, S::default())).1
    }

    fn end(&mut self, close: impl FnOnce(K, S)) {
        if let Some((key, sums)) = self.0.take() {
            close(key, sums);
        }
    }
}
