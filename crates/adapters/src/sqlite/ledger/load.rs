//! The load: every row that the batch's requests touch, by class, each looked up by its key.

use crate::sql::catalog::{TermsRow, terms, terms_columns};
use crate::sqlite::failure::Failure;
use crate::sqlite::rows::{
    PaymentRow, PaymentTypes, ReplyRow, ReplyTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, occupied, payment,
    payment_columns, reservation, reservation_columns, seat, seat_columns, stored_reply,
};
use crate::sqlite::sql::{At, Id, State, row, rows, statements};
use boxoffice_domain::batch::LiveHold;
use boxoffice_domain::{
    Account, Batch, ConcertId, IdempotencyKey, ReservationId, ReservationStatus, Roots, StoredReply, Timestamp, Tracked, WorkingSet,
};
use diesel::SqliteConnection;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use std::sync::Arc;

statements! {
    SelectPayment -> PaymentTypes = concat!("SELECT ", payment_columns!(), " FROM payments p WHERE p.id = ?");
    SelectReservation -> ReservationTypes = concat!("SELECT ", reservation_columns!(), " FROM reservations r WHERE r.id = ?");
    SelectSeat -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats WHERE date_id = ? AND number = ?");
    SelectAccount -> (BigInt, BigInt, BigInt, BigInt, BigInt) =
        "SELECT balance, points, entries, points_entries, version FROM accounts WHERE user_id = ?";
    SelectReply -> ReplyTypes = "SELECT fingerprint, body, decided_at, expires_at FROM replies WHERE user_id = ? AND command_id = ?";
    SelectTerms -> (Binary, Text, Text, BigInt, Nullable<BigInt>, BigInt, BigInt, BigInt) =
        concat!("SELECT ", terms_columns!(), " FROM dates d JOIN concerts c ON c.id = d.concert_id WHERE d.id = ?");
    SelectOccupied -> (Binary, BigInt, Text, BigInt) =
        "SELECT id, seat_count, status, expires_at FROM reservations
         WHERE user_id = ? AND date_id = ? AND status IN ('held', 'confirmed')";
    /// Two conditions on the status: the first repeats the partial index's own.
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
        if let Some(stored) = reply(conn, key)? {
            set.replies.insert(key, stored);
        }
    }
    for id in roots.dates {
        if let Some(found) = row::<SelectTerms, _, TermsRow<At>>(conn, (id,))? {
            set.dates.insert(id, Arc::new(terms(id, found)));
        }
    }
    for (user, date) in roots.occupied {
        let found: Vec<(Id<ReservationId>, i64, State<ReservationStatus>, At)> = rows::<SelectOccupied, _, _>(conn, (user, date))?;
        let of_date = found.into_iter().map(|(id, seats, status, expires_at)| Ok((id.0, occupied(seats, status, expires_at)?)));
        set.occupied.insert((user, date), of_date.collect::<Result<_, Failure>>()?);
    }
    for user in roots.payers {
        let found: Vec<(Id<ReservationId>, Id<ConcertId>, At)> = rows::<SelectHolds, _, _>(conn, (user,))?;
        let holds = found.into_iter().map(|(id, concert, until)| (id.0, LiveHold { concert: concert.0, until: until.0 }));
        set.holds.insert(user, holds.collect());
    }
    Ok(set)
}

pub(super) fn reply(conn: &mut SqliteConnection, key: IdempotencyKey) -> Result<Option<StoredReply>, Failure> {
    let found: Option<ReplyRow> = row::<SelectReply, _, _>(conn, (key.user, key.command))?;
    Ok(found.map(stored_reply).transpose()?)
}
