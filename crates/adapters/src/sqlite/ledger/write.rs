//! The write: changed rows at the version they were read at, then inserts. Every row count is checked, so a row that is
//! missing or has changed fails the transaction instead of being skipped.

use crate::sqlite::failure::Failure;
use crate::sqlite::rows::{Snapshot, seat_state};
use crate::sqlite::sql::{At, Word, run, statements};
use crate::sqlite::writer::Session;
use boxoffice_domain::batch::Written;
use boxoffice_domain::{Account, Payment, Reservation, Seat, Timestamp, Tracked, WorkingSet};
use diesel::SqliteConnection;
use std::collections::HashMap;
use std::hash::Hash;

statements! {
    InsertAccount = "INSERT INTO accounts (balance, points, entries, points_entries, version, user_id) VALUES (?, ?, ?, ?, ?, ?)";
    UpdateAccount = "UPDATE accounts SET balance = ?, points = ?, entries = ?, points_entries = ?, version = ?
        WHERE user_id = ? AND version = ?";
    UpdateSeat = "UPDATE seats SET state = ?, reservation_id = ?, held_until = ?, version = ?
        WHERE date_id = ? AND number = ? AND version = ?";
    InsertReservation = "INSERT INTO reservations
        (id, user_id, concert_id, date_id, status, created_at, expires_at, extensions, seat_count, payment_id, snapshot, version)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    UpdateReservation = "UPDATE reservations SET status = ?, expires_at = ?, extensions = ?, payment_id = ?, version = ?
        WHERE id = ? AND version = ?";
    InsertPayment = "INSERT INTO payments
        (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at, version)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    UpdatePayment = "UPDATE payments
        SET refund_amount = ?, points_restored = ?, points_taken = ?, shortfall = ?, refunded_at = ?, version = ?
        WHERE id = ? AND version = ?";
    InsertEntry = "INSERT INTO entries
        (user_id, seq, id, kind, amount, before, balance, memo, reservation_id, payment_id, created_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    InsertPointsEntry = "INSERT INTO points_entries (user_id, seq, id, kind, points, before, balance, payment_id, created_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    // A key whose reply has expired runs again even before its row is pruned; a live reply is never overwritten.
    UpsertReply = "INSERT INTO replies (user_id, command_id, fingerprint, body, decided_at, expires_at)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (user_id, command_id) DO UPDATE SET fingerprint = excluded.fingerprint, body = excluded.body,
            decided_at = excluded.decided_at, expires_at = excluded.expires_at
        WHERE replies.expires_at <= excluded.decided_at";
    InsertEvent = "INSERT INTO outbox (shard, id, payload, occurred_at) VALUES (?, ?, ?, ?)";
}

pub(super) fn working_set(session: &mut Session, mut set: WorkingSet) -> Result<(), Failure> {
    let conn = &mut session.conn;
    for payment in changed(&set.payments) {
        let concert = set.reservations.get(&payment.value.reservation).map(|row| row.value.concert.id);
        write_payment(conn, payment, concert.ok_or_else(|| Failure::Data("a payment without its reservation".to_owned()))?)?;
    }
    for row in changed(&set.reservations) {
        write_reservation(conn, row)?;
    }
    for row in changed(&set.seats) {
        write_seat(conn, row)?;
    }
    for row in changed(&set.accounts) {
        write_account(conn, row)?;
    }
    append_entries(conn, &set.written)?;
    let now = set.now;
    for key in std::mem::take(&mut set.written.replies) {
        let Some(reply) = set.replies.get(&key) else { continue };
        let body = serde_json::to_string(&reply.result)?;
        let (decided_at, expires_at) = (At(reply.decided_at), At(reply.expires_at));
        let binds = (key.user, key.command, reply.fingerprint.0.as_slice(), body.as_str(), decided_at, expires_at);
        if run::<UpsertReply>(conn, binds)? != 1 {
            return Err(Failure::ReplyTaken);
        }
    }
    append_events(session, &set.written, now)
}

/// Rows to write, by key: neighbours lie on the same pages.
fn changed<K: Ord + Hash, T>(rows: &HashMap<K, Tracked<T>>) -> Vec<&Tracked<T>> {
    let mut changed: Vec<_> = rows.iter().filter(|(_, row)| row.dirty).collect();
    changed.sort_unstable_by_key(|(key, _)| *key);
    changed.into_iter().map(|(_, row)| row).collect()
}

fn write_account(conn: &mut SqliteConnection, row: &Tracked<Account>) -> Result<(), Failure> {
    let Account { user, balance, points, entries, points_entries } = row.value;
    let next = row.next_version();
    let written = match row.version {
        None => run::<InsertAccount>(conn, (balance, points, entries, points_entries, next, user))?,
        Some(version) => run::<UpdateAccount>(conn, (balance, points, entries, points_entries, next, user, version))?,
    };
    Failure::check_count("accounts", written, 1)
}

/// An update alone: only imports insert seats.
fn write_seat(conn: &mut SqliteConnection, row: &Tracked<Seat>) -> Result<(), Failure> {
    let (state, reservation, until) = seat_state(row.value.state);
    let key = row.value.key;
    let binds = (state, reservation, until.map(At), row.next_version(), key.date, i64::from(key.number), row.version.unwrap_or(0));
    Failure::check_count("seats", run::<UpdateSeat>(conn, binds)?, 1)
}

fn write_reservation(conn: &mut SqliteConnection, row: &Tracked<Reservation>) -> Result<(), Failure> {
    let it = &row.value;
    let (status, expires_at, extensions) = (it.status.word(), At(it.expires_at), i64::from(it.extensions));
    let next = row.next_version();
    let written = match row.version {
        None => {
            let snapshot = serde_json::to_string(&Snapshot::of(it))?;
            let (created_at, seats) = (At(it.created_at), it.seats.len() as i64);
            let binds = (
                it.id,
                it.user,
                it.concert.id,
                it.date.id,
                status,
                created_at,
                expires_at,
                extensions,
                seats,
                it.payment,
                snapshot.as_str(),
                next,
            );
            run::<InsertReservation>(conn, binds)?
        }
        Some(version) => run::<UpdateReservation>(conn, (status, expires_at, extensions, it.payment, next, it.id, version))?,
    };
    Failure::check_count("reservations", written, 1)
}

fn write_payment(conn: &mut SqliteConnection, row: &Tracked<Payment>, concert: boxoffice_domain::ConcertId) -> Result<(), Failure> {
    let it = &row.value;
    let next = row.next_version();
    let mut read_at = row.version;
    if read_at.is_none() {
        let binds = (it.id, it.reservation, it.user, concert, it.amount, it.points_spent, it.points_granted, At(it.paid_at), next);
        Failure::check_count("payments", run::<InsertPayment>(conn, binds)?, 1)?;
        // Paid and refunded in one batch: the row that was just written is then changed.
        read_at = it.refund.is_some().then_some(next);
    }
    if let (Some(refund), Some(version)) = (&it.refund, read_at) {
        let (amount, restored, taken) = (refund.amount, refund.points_restored, refund.points_taken_back);
        let binds = (amount, restored, taken, refund.shortfall, At(refund.refunded_at), next, it.id, version);
        Failure::check_count("payments", run::<UpdatePayment>(conn, binds)?, 1)?;
    }
    Ok(())
}

fn append_entries(conn: &mut SqliteConnection, written: &Written) -> Result<(), Failure> {
    for it in &written.entries {
        let binds = (
            it.user,
            it.seq,
            it.id,
            it.kind.word(),
            it.amount,
            it.balance - it.amount,
            it.balance,
            it.memo.as_deref(),
            it.reservation,
            it.payment,
            At(it.created_at),
        );
        Failure::check_count("entries", run::<InsertEntry>(conn, binds)?, 1)?;
    }
    for it in &written.points_entries {
        let before = it.balance - it.points;
        let binds = (it.user, it.seq, it.id, it.kind.word(), it.points, before, it.balance, it.payment, At(it.created_at));
        Failure::check_count("points entries", run::<InsertPointsEntry>(conn, binds)?, 1)?;
    }
    Ok(())
}

fn append_events(session: &mut Session, written: &Written, now: Timestamp) -> Result<(), Failure> {
    for event in &written.events {
        let payload = serde_json::to_string(event)?;
        let binds = (i64::from(event.shard()), session.outbox_id(now), payload.as_str(), At(now));
        Failure::check_count("events", run::<InsertEvent>(&mut session.conn, binds)?, 1)?;
    }
    Ok(())
}
