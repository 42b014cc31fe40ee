//! Round trip 2: changed rows at the version they were read at, then inserts, by class and in the order of keys. Every row
//! count is checked, so a row that is missing or has changed fails the transaction instead of being skipped.

use super::load::Loaded;
use crate::postgres::failure::Failure;
use crate::postgres::rows::{Snapshot, seat_state};
use crate::postgres::session::{Known, Session, known};
use crate::postgres::sql::{Tid, Word, statements};
use boxoffice_domain::{
    Account, Event, IdempotencyKey, Payment, PointsEntry, Refund, Reservation, ReservationId, Seat, StoredReply, Timestamp, Tracked,
    WalletEntry, WorkingSet,
};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use uuid::Uuid;

/// Outbox ids are drawn once for a batch, this many. A batch with more events is refused, and the engine halves it.
pub(super) const EVENTS_MAX: usize = 1 << 20;

statements! {
    InsertPayments =
        "INSERT INTO payments (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at,
             refund_amount, points_restored, points_taken, shortfall, refunded_at, version)
         SELECT *, 1 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[],
             $8::timestamptz[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::timestamptz[])";
    UpdatePayments =
        "UPDATE payments p SET refund_amount = k.amount, points_restored = k.restored, points_taken = k.taken,
             shortfall = k.shortfall, refunded_at = k.at, version = p.version + 1
         FROM unnest($1::tid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[])
             k(place, version, amount, restored, taken, shortfall, at)
         WHERE p.ctid = k.place AND p.version = k.version";
    InsertReservations =
        "INSERT INTO reservations (id, user_id, concert_id, date_id, status, created_at, expires_at, extensions, seats,
             payment_id, snapshot, version)
         SELECT k.id, k.user_id, k.concert_id, k.date_id, k.status, $6, k.expires_at, k.extensions, k.seats::integer[],
             k.payment_id, k.snapshot, 1
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $7::timestamptz[], $8::integer[], $9::text[],
             $10::uuid[], $11::text[])
             k(id, user_id, concert_id, date_id, status, expires_at, extensions, seats, payment_id, snapshot)";
    UpdateReservations =
        "UPDATE reservations r SET status = k.status, expires_at = k.expires_at, extensions = k.extensions,
             payment_id = k.payment_id, version = r.version + 1
         FROM unnest($1::tid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::integer[], $6::uuid[])
             k(place, version, status, expires_at, extensions, payment_id)
         WHERE r.ctid = k.place AND r.version = k.version";
    UpdateSeats =
        "UPDATE seats s SET state = k.state, reservation_id = k.reservation_id, held_until = k.held_until,
             version = s.version + 1, changed_xid = pg_current_xact_id()
         FROM unnest($1::tid[], $2::bigint[], $3::text[], $4::uuid[], $5::timestamptz[])
             k(place, version, state, reservation_id, held_until)
         WHERE s.ctid = k.place AND s.version = k.version";
    InsertChangedAccounts =
        "INSERT INTO accounts (user_id, balance, points, entries, points_entries, version)
         SELECT *, 1 FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])";
    UpdateAccounts =
        "UPDATE accounts a SET balance = k.balance, points = k.points, entries = k.entries, points_entries = k.points_entries,
             version = a.version + 1
         FROM unnest($1::tid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
             k(place, version, balance, points, entries, points_entries)
         WHERE a.ctid = k.place AND a.version = k.version";
    InsertEntries =
        "INSERT INTO entries (user_id, seq, id, kind, amount, before, balance, memo, reservation_id, payment_id, created_at)
         SELECT k.user_id, k.seq, k.id, k.kind, k.amount, k.balance - k.amount, k.balance, k.memo, k.reservation_id, k.payment_id, $10
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::uuid[], $9::uuid[])
             k(user_id, seq, id, kind, amount, balance, memo, reservation_id, payment_id)";
    InsertPointsEntries =
        "INSERT INTO points_entries (user_id, seq, id, kind, points, before, balance, payment_id, created_at)
         SELECT k.user_id, k.seq, k.id, k.kind, k.points, k.balance - k.points, k.balance, k.payment_id, $8
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[])
             k(user_id, seq, id, kind, points, balance, payment_id)";
    /// For keys without a stored reply.
    InsertReplies =
        "INSERT INTO replies (user_id, command_id, fingerprint, body, decided_at, expires_at)
         SELECT k.user_id, k.command_id, k.fingerprint, k.body, $5, $6
         FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[]) k(user_id, command_id, fingerprint, body)";
    /// For keys whose reply has expired: a key runs again even before its row is pruned. A live reply is never overwritten.
    RenewReplies =
        "INSERT INTO replies (user_id, command_id, fingerprint, body, decided_at, expires_at)
         SELECT k.user_id, k.command_id, k.fingerprint, k.body, $5, $6
         FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[]) k(user_id, command_id, fingerprint, body)
         ON CONFLICT (user_id, command_id) DO UPDATE SET fingerprint = excluded.fingerprint, body = excluded.body,
             decided_at = excluded.decided_at, expires_at = excluded.expires_at
         WHERE replies.expires_at <= excluded.decided_at";
    /// One number is drawn for the batch, which owns all numbers up to the next one drawn.
    InsertEvents =
        "WITH drawn AS MATERIALIZED (SELECT nextval('outbox_ids') AS id)
         INSERT INTO outbox (shard, id, payload, occurred_at)
         SELECT k.shard, drawn.id + k.n, k.payload, $3
         FROM drawn CROSS JOIN unnest($1::integer[], $2::text[]) WITH ORDINALITY k(shard, payload, n)";
}

pub(super) fn statements_of_write() -> Vec<Known> {
    vec![
        known::<InsertPayments>(),
        known::<UpdatePayments>(),
        known::<InsertReservations>(),
        known::<UpdateReservations>(),
        known::<UpdateSeats>(),
        known::<InsertChangedAccounts>(),
        known::<UpdateAccounts>(),
        known::<InsertEntries>(),
        known::<InsertPointsEntries>(),
        known::<InsertReplies>(),
        known::<RenewReplies>(),
        known::<InsertEvents>(),
    ]
}

pub(super) async fn working_set(session: &Session, loaded: Loaded) -> Result<(), Failure> {
    let Loaded { mut set, places, answered, bumped } = loaded;
    let now = set.now;
    let events = set.written.events.len();
    if events >= EVENTS_MAX {
        return Err(Failure::Data(format!("{events} events in one batch")));
    }
    let (new_payments, payments) = changed(&set.payments);
    let (new_reservations, reservations) = changed(&set.reservations);
    let (_, seats) = changed(&set.seats);
    let (new_accounts, mut accounts) = changed(&set.accounts);
    // Accounts whose version alone had to rise were written by the load.
    accounts.retain(|row| bumped.get(&row.value.user) != Some(&row.value));
    let mut keys = std::mem::take(&mut set.written.replies);
    keys.sort_unstable();
    let (again, fresh): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| answered.contains(key));
    session
        .round_trip(async {
            tokio::try_join!(
                biased;
                insert_payments(session, &new_payments, &set),
                update_payments(session, &payments, |row| places.payments.get(&row.id).copied()),
                insert_reservations(session, &new_reservations, now),
                update_reservations(session, &reservations, |row| places.reservations.get(&row.id).copied()),
                update_seats(session, &seats, |row| places.seats.get(&row.key).copied()),
                insert_accounts(session, &new_accounts),
                update_accounts(session, &accounts, |row| places.accounts.get(&row.user).copied()),
                insert_entries(session, &set.written.entries, now),
                insert_points_entries(session, &set.written.points_entries, now),
                insert_replies(session, &fresh, &set.replies),
                renew_replies(session, &again, &set.replies),
                insert_events(session, &set.written.events, now),
            )
        })
        .await?;
    Ok(())
}

/// Rows to insert and rows to update, by key.
fn changed<K: Ord + Hash, T>(rows: &HashMap<K, Tracked<T>>) -> (Vec<&Tracked<T>>, Vec<&Tracked<T>>) {
    let mut changed: Vec<_> = rows.iter().filter(|(_, row)| row.dirty).collect();
    changed.sort_unstable_by_key(|(key, _)| *key);
    changed.into_iter().map(|(_, row)| row).partition(|row| row.version.is_none())
}

fn column<T, C>(rows: &[T], column: impl FnMut(&T) -> C) -> Vec<C> {
    rows.iter().map(column).collect()
}

/// The places of rows, and the versions they were read at.
fn read_at<T>(rows: &[&Tracked<T>], place: impl Fn(&T) -> Option<Tid>) -> Result<(Vec<Tid>, Vec<i64>), Failure> {
    let read_at = |row: &&Tracked<T>| Some((place(&row.value)?, row.version?));
    let found: Option<_> = rows.iter().map(read_at).collect();
    found.ok_or_else(|| Failure::Data("a changed row was never read".to_owned()))
}

async fn insert_payments(session: &Session, rows: &[&Tracked<Payment>], set: &WorkingSet) -> Result<(), Failure> {
    let concert = |row: &&Tracked<Payment>| Some(set.reservations.get(&row.value.reservation)?.value.concert.id.0);
    let concerts: Option<Vec<Uuid>> = rows.iter().map(concert).collect();
    let concerts = concerts.ok_or_else(|| Failure::Data("a payment without its reservation".to_owned()))?;
    // If the payment is refunded in the same batch, the row is inserted with its refund.
    let binds = (
        column(rows, |row| row.value.id.0),
        column(rows, |row| row.value.reservation.0),
        column(rows, |row| row.value.user.0),
        concerts,
        column(rows, |row| row.value.amount),
        column(rows, |row| row.value.points_spent),
        column(rows, |row| row.value.points_granted),
        column(rows, |row| row.value.paid_at),
        column(rows, |row| row.value.refund.as_ref().map(|refund| refund.amount)),
        column(rows, |row| row.value.refund.as_ref().map(|refund| refund.points_restored)),
        column(rows, |row| row.value.refund.as_ref().map(|refund| refund.points_taken_back)),
        column(rows, |row| row.value.refund.as_ref().map(|refund| refund.shortfall)),
        column(rows, |row| row.value.refund.as_ref().map(|refund| refund.refunded_at)),
    );
    session.write::<InsertPayments>("payments", rows.len(), binds).await
}

async fn update_payments(session: &Session, rows: &[&Tracked<Payment>], place: impl Fn(&Payment) -> Option<Tid>) -> Result<(), Failure> {
    let refunds: Option<Vec<&Refund>> = rows.iter().map(|row| row.value.refund.as_ref()).collect();
    let refunds = refunds.ok_or_else(|| Failure::Data("a payment changed without a refund".to_owned()))?;
    let (places, versions) = read_at(rows, place)?;
    let binds = (
        places,
        versions,
        column(&refunds, |refund| refund.amount),
        column(&refunds, |refund| refund.points_restored),
        column(&refunds, |refund| refund.points_taken_back),
        column(&refunds, |refund| refund.shortfall),
        column(&refunds, |refund| refund.refunded_at),
    );
    session.write::<UpdatePayments>("payments", rows.len(), binds).await
}

async fn insert_reservations(session: &Session, rows: &[&Tracked<Reservation>], now: Timestamp) -> Result<(), Failure> {
    let snapshots = rows.iter().map(|row| serde_json::to_string(&Snapshot::of(&row.value))).collect::<Result<Vec<_>, _>>()?;
    let binds = (
        column(rows, |row| row.value.id.0),
        column(rows, |row| row.value.user.0),
        column(rows, |row| row.value.concert.id.0),
        column(rows, |row| row.value.date.id.0),
        column(rows, |row| row.value.status.word()),
        now,
        column(rows, |row| row.value.expires_at),
        column(rows, |row| row.value.extensions as i32),
        column(rows, |row| numbers(&row.value)),
        column(rows, |row| row.value.payment.map(|id| id.0)),
        snapshots,
    );
    session.write::<InsertReservations>("reservations", rows.len(), binds).await
}

/// The text of an array: arrays of different lengths cannot be bound as one array of arrays.
fn numbers(reservation: &Reservation) -> String {
    let mut text = String::with_capacity(2 + 7 * reservation.seats.len());
    for (at, seat) in reservation.seats.iter().enumerate() {
        let before = if at == 0 { '{' } else { ',' };
        // Writing to a string never fails.
        let _ = write!(text, "{before}{}", seat.number);
    }
    text.push('}');
    text
}

async fn update_reservations(
    session: &Session,
    rows: &[&Tracked<Reservation>],
    place: impl Fn(&Reservation) -> Option<Tid>,
) -> Result<(), Failure> {
    let (places, versions) = read_at(rows, place)?;
    let binds = (
        places,
        versions,
        column(rows, |row| row.value.status.word()),
        column(rows, |row| row.value.expires_at),
        column(rows, |row| row.value.extensions as i32),
        column(rows, |row| row.value.payment.map(|id| id.0)),
    );
    session.write::<UpdateReservations>("reservations", rows.len(), binds).await
}

async fn update_seats(session: &Session, rows: &[&Tracked<Seat>], place: impl Fn(&Seat) -> Option<Tid>) -> Result<(), Failure> {
    let (places, versions) = read_at(rows, place)?;
    let states = column(rows, |row| seat_state(row.value.state));
    let binds = (
        places,
        versions,
        column(&states, |state| state.0),
        column(&states, |state| state.1.map(|ReservationId(id)| id)),
        column(&states, |state| state.2),
    );
    session.write::<UpdateSeats>("seats", rows.len(), binds).await
}

async fn insert_accounts(session: &Session, rows: &[&Tracked<Account>]) -> Result<(), Failure> {
    let binds = (
        column(rows, |row| row.value.user.0),
        column(rows, |row| row.value.balance),
        column(rows, |row| row.value.points),
        column(rows, |row| row.value.entries),
        column(rows, |row| row.value.points_entries),
    );
    session.write::<InsertChangedAccounts>("accounts", rows.len(), binds).await
}

async fn update_accounts(session: &Session, rows: &[&Tracked<Account>], place: impl Fn(&Account) -> Option<Tid>) -> Result<(), Failure> {
    let (places, versions) = read_at(rows, place)?;
    let binds = (
        places,
        versions,
        column(rows, |row| row.value.balance),
        column(rows, |row| row.value.points),
        column(rows, |row| row.value.entries),
        column(rows, |row| row.value.points_entries),
    );
    session.write::<UpdateAccounts>("accounts", rows.len(), binds).await
}

async fn insert_entries(session: &Session, rows: &[WalletEntry], now: Timestamp) -> Result<(), Failure> {
    let binds = (
        column(rows, |row| row.user.0),
        column(rows, |row| row.seq),
        column(rows, |row| row.id.0),
        column(rows, |row| row.kind.word()),
        column(rows, |row| row.amount),
        column(rows, |row| row.balance),
        rows.iter().map(|row| row.memo.as_deref()).collect::<Vec<_>>(),
        column(rows, |row| row.reservation.map(|id| id.0)),
        column(rows, |row| row.payment.map(|id| id.0)),
        now,
    );
    session.write::<InsertEntries>("entries", rows.len(), binds).await
}

async fn insert_points_entries(session: &Session, rows: &[PointsEntry], now: Timestamp) -> Result<(), Failure> {
    let binds = (
        column(rows, |row| row.user.0),
        column(rows, |row| row.seq),
        column(rows, |row| row.id.0),
        column(rows, |row| row.kind.word()),
        column(rows, |row| row.points),
        column(rows, |row| row.balance),
        column(rows, |row| row.payment.0),
        now,
    );
    session.write::<InsertPointsEntries>("points entries", rows.len(), binds).await
}

type ReplyBinds<'a> = (Vec<Uuid>, Vec<Uuid>, Vec<&'a [u8]>, Vec<String>, Timestamp, Timestamp);

/// All replies of a batch are decided at one instant, under one policy.
fn reply_binds<'a>(keys: &[IdempotencyKey], replies: &'a HashMap<IdempotencyKey, StoredReply>) -> Result<ReplyBinds<'a>, Failure> {
    let found: Vec<&StoredReply> = keys.iter().filter_map(|key| replies.get(key)).collect();
    let bodies = found.iter().map(|reply| serde_json::to_string(&reply.result)).collect::<Result<Vec<_>, _>>()?;
    let (decided_at, expires_at) = found.first().map(|reply| (reply.decided_at, reply.expires_at)).unwrap_or_default();
    let users = column(keys, |key| key.user.0);
    let commands = column(keys, |key| key.command.0);
    Ok((users, commands, found.iter().map(|reply| reply.fingerprint.0.as_slice()).collect(), bodies, decided_at, expires_at))
}

async fn insert_replies(session: &Session, keys: &[IdempotencyKey], replies: &HashMap<IdempotencyKey, StoredReply>) -> Result<(), Failure> {
    session.write::<InsertReplies>("replies", keys.len(), reply_binds(keys, replies)?).await
}

async fn renew_replies(session: &Session, keys: &[IdempotencyKey], replies: &HashMap<IdempotencyKey, StoredReply>) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let renewed = session.run::<RenewReplies>(reply_binds(keys, replies)?).await?;
    // Fewer rows: a live reply was stored meanwhile.
    if renewed < keys.len() { Err(Failure::ReplyTaken) } else { Failure::check_count("replies", renewed, keys.len()) }
}

async fn insert_events(session: &Session, events: &[Event], now: Timestamp) -> Result<(), Failure> {
    let payloads = events.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    let binds = (column(events, |event| event.shard() as i32), payloads, now);
    session.write::<InsertEvents>("events", events.len(), binds).await
}
