//! The load: every row that the batch's requests touch, by class, each looked up by its key.

use super::stored_reply;
use crate::sqlite::failure::Failure;
use crate::sqlite::rows::{
    PaymentRow, PaymentTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, narrow, payment, payment_columns, reservation,
    reservation_columns, seat, seat_columns,
};
use crate::sqlite::sql::{At, Id, State, row, rows, statements};
use boxoffice_domain::batch::{HoldOf, Occupied};
use boxoffice_domain::{
    Account, Batch, ConcertId, ConcertRef, DateId, DateRef, DateTerms, ReservationId, ReservationStatus, Roots, Timestamp, Tracked, UserId,
    WorkingSet,
};
use diesel::SqliteConnection;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use std::collections::HashMap;
use std::sync::Arc;

statements! {
    SelectPayment -> PaymentTypes = concat!("SELECT ", payment_columns!(), " FROM payments p WHERE p.id = ?");
    SelectReservation -> ReservationTypes = concat!("SELECT ", reservation_columns!(), " FROM reservations r WHERE r.id = ?");
    SelectSeat -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats WHERE date_id = ? AND number = ?");
    SelectAccount -> (BigInt, BigInt, BigInt, BigInt, BigInt) =
        "SELECT balance, points, entries, points_entries, version FROM accounts WHERE user_id = ?";
    SelectTerms -> (Binary, Text, Text, BigInt, Nullable<BigInt>, BigInt, BigInt, BigInt) =
        "SELECT c.id, c.name, c.venue, d.starts_at, d.ends_at, d.booking_opens_at, d.booking_closes_at, d.refund_closes_at
         FROM dates d JOIN concerts c ON c.id = d.concert_id WHERE d.id = ?";
    SelectOccupied -> (Binary, BigInt, Text, BigInt) =
        "SELECT id, seat_count, status, expires_at FROM reservations
         WHERE user_id = ? AND date_id = ? AND status IN ('held', 'confirmed')";
    /// Both conditions: by the first the partial index is found.
    SelectHolds -> (Binary, Binary, BigInt) =
        "SELECT id, concert_id, expires_at FROM reservations
         WHERE user_id = ? AND status IN ('held', 'confirmed') AND status = 'held'";
}

pub(super) fn working_set(conn: &mut SqliteConnection, batch: &Batch, now: Timestamp) -> Result<WorkingSet, Failure> {
    let mut roots = Roots::of(&batch.requests);
    let mut set = WorkingSet::new(now);
    for id in roots.payments {
        let Some(found) = row::<SelectPayment, _, PaymentRow>(conn, (id,))? else { continue };
        let (value, version) = payment(found);
        roots.reservations.insert(value.reservation);
        set.payments.insert(id, Tracked::read(value, version));
    }
    for id in roots.reservations {
        let Some(found) = row::<SelectReservation, _, ReservationRow>(conn, (id,))? else { continue };
        let (value, version) = reservation(found)?;
        roots.seats.extend(value.seat_keys());
        roots.dates.insert(value.date.id);
        set.reservations.insert(id, Tracked::read(value, version));
    }
    for key in roots.seats {
        let Some(found) = row::<SelectSeat, _, SeatColumns>(conn, (key.date, i64::from(key.number)))? else { continue };
        let (value, version) = seat(key.date, found)?;
        set.seats.insert(key, Tracked::read(value, version));
    }
    for user in roots.accounts {
        let Some(found) = row::<SelectAccount, _, (i64, i64, i64, i64, i64)>(conn, (user,))? else { continue };
        let (balance, points, entries, points_entries, version) = found;
        set.accounts.insert(user, Tracked::read(Account { user, balance, points, entries, points_entries }, version));
    }
    for key in roots.replies {
        if let Some(stored) = stored_reply(conn, key)? {
            set.replies.insert(key, stored);
        }
    }
    for id in roots.dates {
        if let Some(terms) = terms(conn, id)? {
            set.dates.insert(id, Arc::new(terms));
        }
    }
    for (user, date) in roots.occupied {
        set.occupied.insert((user, date), occupied(conn, user, date)?);
    }
    for user in roots.payers {
        let found: Vec<(Id<ReservationId>, Id<ConcertId>, At)> = rows::<SelectHolds, _, _>(conn, (user,))?;
        let holds = found.into_iter().map(|(id, concert, until)| (id.0, HoldOf { concert: concert.0, until: until.0 }));
        set.holds.insert(user, holds.collect());
    }
    Ok(set)
}

type TermsRow = (Id<ConcertId>, String, String, At, Option<At>, At, At, At);

fn terms(conn: &mut SqliteConnection, id: DateId) -> Result<Option<DateTerms>, Failure> {
    let found: Option<TermsRow> = row::<SelectTerms, _, _>(conn, (id,))?;
    Ok(found.map(|(concert, name, venue, starts_at, ends_at, opens_at, closes_at, refund_closes_at)| DateTerms {
        concert: ConcertRef { id: concert.0, name: name.into(), venue: venue.into() },
        date: DateRef { id, starts_at: starts_at.0, ends_at: ends_at.map(|at| at.0) },
        booking_opens_at: opens_at.0,
        booking_closes_at: closes_at.0,
        refund_closes_at: refund_closes_at.0,
    }))
}

fn occupied(conn: &mut SqliteConnection, user: UserId, date: DateId) -> Result<HashMap<ReservationId, Occupied>, Failure> {
    let found: Vec<(Id<ReservationId>, i64, State<ReservationStatus>, At)> = rows::<SelectOccupied, _, _>(conn, (user, date))?;
    let occupied = found.into_iter().map(|(id, seats, status, expires_at)| {
        let live_until = (status.0 == ReservationStatus::Held).then_some(expires_at.0);
        Ok((id.0, Occupied { seats: narrow("seat_count", seats)?, live_until }))
    });
    occupied.collect()
}
