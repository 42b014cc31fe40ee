//! The schema refuses rows that an invariant forbids, even from plain SQL that bypasses the ledger.

use super::support::Place;
use boxoffice_ports::contract::build::{admission, charge, demo_plan, hold, policy, user};
use boxoffice_ports::{Clock, Deadline, Guard};
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{RunQueryDsl, SqliteConnection, sql_query};

use boxoffice_domain::Batch;
use std::sync::Arc;
use std::time::Duration;

/// A place with one wallet of two entries, and one held seat.
async fn furnished() -> Place {
    let place = Place::new();
    let stores = place.open().stores();
    let imported = stores.catalog.import(vec![demo_plan(place.clock.now())], admission()).await.expect("imported");
    let ann = user();
    let requests = vec![charge(ann, "a", 500), charge(ann, "b", 1), hold(ann, "c", imported[0].dates[0].id, &[1])];
    stores
        .ledger
        .transact(Batch::new(requests, Arc::new(policy())), Guard::RowLock, Deadline::after(Duration::from_secs(30)))
        .await
        .expect("committed");
    place
}

/// The store's refusal of `sql`; `None` if it changes a row.
fn refusal(conn: &mut SqliteConnection, sql: &str) -> Option<DatabaseErrorKind> {
    match sql_query(sql).execute(conn) {
        Ok(rows) => {
            assert_ne!(rows, 0, "touches no row: {sql}");
            None
        }
        Err(Error::DatabaseError(kind, _)) => Some(kind),
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[track_caller]
fn refuses(conn: &mut SqliteConnection, kind: fn(&DatabaseErrorKind) -> bool, sql: &str) {
    let refusal = refusal(conn, sql);
    assert!(refusal.as_ref().is_some_and(kind), "{sql}: {refusal:?}");
}

fn check(kind: &DatabaseErrorKind) -> bool {
    matches!(kind, DatabaseErrorKind::CheckViolation)
}

fn unique(kind: &DatabaseErrorKind) -> bool {
    matches!(kind, DatabaseErrorKind::UniqueViolation)
}

#[tokio::test(flavor = "multi_thread")]
async fn seat_that_contradicts_itself_is_refused() {
    let place = furnished().await;
    let conn = &mut place.outside();
    refuses(conn, check, "UPDATE seats SET state = 'sold' WHERE number = 2");
    refuses(conn, check, "UPDATE seats SET state = 'held', held_until = 1 WHERE number = 2");
    refuses(conn, check, "UPDATE seats SET state = 'held', reservation_id = randomblob(16) WHERE number = 2");
    refuses(conn, check, "UPDATE seats SET reservation_id = randomblob(16) WHERE number = 2");
    refuses(conn, check, "UPDATE seats SET state = 'available' WHERE state = 'held'");
    refuses(conn, check, "UPDATE seats SET state = 'sold' WHERE state = 'held'");
    refuses(conn, check, "UPDATE seats SET held_until = NULL WHERE state = 'held'");
    let again =
        "INSERT INTO seats SELECT date_id, number, section, \"row\", grade, price, 'sold', randomblob(16), NULL, 1 FROM seats LIMIT 1";
    refuses(conn, unique, again);
    let sold = "UPDATE seats SET state = 'sold', held_until = NULL WHERE state = 'held'";
    assert!(refusal(conn, sold).is_none(), "consistent rows are accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_payment_of_a_reservation_is_refused() {
    let place = furnished().await;
    let conn = &mut place.outside();
    let pay = "INSERT INTO payments (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at, version)
               SELECT randomblob(16), id, user_id, concert_id, 1, 0, 0, 1, 1 FROM reservations";
    assert!(refusal(conn, pay).is_none());
    refuses(conn, unique, pay);
    refuses(conn, check, "UPDATE payments SET refund_amount = 1");
    refuses(conn, check, "UPDATE payments SET refund_amount = 2, points_restored = 0, points_taken = 0, shortfall = 0, refunded_at = 1");
    refuses(conn, check, "UPDATE reservations SET status = 'confirmed'");
}

#[tokio::test(flavor = "multi_thread")]
async fn wallet_that_does_not_add_up_is_refused() {
    let place = furnished().await;
    let conn = &mut place.outside();
    refuses(conn, check, "UPDATE accounts SET balance = -1");
    refuses(conn, check, "UPDATE accounts SET points = -1");
    refuses(conn, check, "UPDATE entries SET amount = amount + 1 WHERE seq = 2");
    refuses(conn, check, "UPDATE entries SET balance = balance + 1 WHERE seq = 2");
    refuses(conn, check, "UPDATE entries SET kind = 'use' WHERE seq = 2");
    let line = |seq: u32, before: i64, amount: i64, balance: i64| {
        format!(
            "INSERT INTO entries (user_id, seq, id, kind, amount, before, balance, created_at)
             SELECT user_id, {seq}, randomblob(16), 'use', {amount}, {before}, {balance}, 1 FROM accounts"
        )
    };
    refuses(conn, unique, &line(2, 500, -1, 499));
    refuses(conn, check, &line(3, 1, -2, -1));
    assert!(refusal(conn, &line(3, 501, -1, 500)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_do_not_add_up_or_come_twice_are_refused() {
    let place = furnished().await;
    let conn = &mut place.outside();
    let grant = |seq: u32, kind: &str, before: i64, points: i64, balance: i64| {
        format!(
            "INSERT INTO points_entries SELECT user_id, {seq}, randomblob(16), '{kind}', {points}, {before}, {balance}, user_id, 1
             FROM accounts"
        )
    };
    assert!(refusal(conn, &grant(1, "grant", 0, 5, 5)).is_none());
    refuses(conn, unique, &grant(2, "grant", 5, 5, 10));
    refuses(conn, unique, &grant(1, "restore", 5, 5, 10));
    refuses(conn, check, &grant(2, "restore", 5, 5, 11));
    refuses(conn, check, &grant(2, "spend", 5, 5, 10));
    refuses(conn, check, &grant(2, "spend", 1, -5, -4));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_reply_of_a_key_is_refused() {
    let place = furnished().await;
    let conn = &mut place.outside();
    refuses(conn, unique, "INSERT INTO replies SELECT user_id, command_id, fingerprint, body, decided_at, expires_at FROM replies LIMIT 1");
    refuses(conn, check, "UPDATE replies SET fingerprint = randomblob(31)");
}

/// A column accepts only sensible values, and columns that belong together are set together.
#[tokio::test(flavor = "multi_thread")]
async fn columns_refuse_nonsense() {
    let place = furnished().await;
    let conn = &mut place.outside();
    for fine in [
        "INSERT INTO payments (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at, version)
         SELECT randomblob(16), id, user_id, concert_id, 1, 0, 0, 1, 1 FROM reservations",
        "INSERT INTO points_entries SELECT user_id, 1, randomblob(16), 'grant', 5, 0, 5, user_id, 1 FROM accounts",
        "INSERT INTO mirrored_rooms (concert_id, last_place, promoted_to, served, expired, left)
         SELECT concert_id, 1, 1, 0, 0, 0 FROM reservations",
    ] {
        assert!(refusal(conn, fine).is_none(), "{fine}");
    }
    let settled = "refund_amount = 0, points_restored = 0, points_taken = 0, shortfall = 0, refunded_at = 1";
    let without = |column: &str| format!("payments SET {}", settled.replace(column, &format!("{} = NULL", &column[..column.len() - 4])));
    for nonsense in [
        "concerts SET id = x'01'",
        "concerts SET mode = 'open'",
        "concerts SET max_active = 0",
        "concerts SET per_interval_count = 0, per_interval_s = 1",
        "concerts SET per_interval_count = 1, per_interval_s = 0",
        "concerts SET per_interval_count = 1",
        "concerts SET per_interval_s = 1",
        "dates SET id = x'01' WHERE key = 'day-1'",
        "dates SET seats_total = -1",
        "seats SET number = 0 WHERE number = 2",
        "seats SET price = 0",
        "seats SET state = 'gone', reservation_id = randomblob(16) WHERE number = 2",
        "reservations SET id = x'01'",
        "reservations SET status = 'gone'",
        "reservations SET extensions = -1",
        "reservations SET seat_count = 0",
        "payments SET id = x'01'",
        "payments SET amount = -1",
        "payments SET points_spent = -1",
        "payments SET points_granted = -1",
        &without("refund_amount = 0"),
        &without("points_restored = 0"),
        &without("points_taken = 0"),
        &without("shortfall = 0"),
        &without("refunded_at = 1"),
        "accounts SET user_id = x'01'",
        "accounts SET entries = -1",
        "accounts SET points_entries = -1",
        "entries SET seq = 0 WHERE seq = 1",
        "entries SET id = x'01'",
        "entries SET kind = 'gift', amount = -1, balance = before - 1 WHERE seq = 2",
        "entries SET before = -1, amount = balance + 1",
        "entries SET amount = 0, before = balance",
        "points_entries SET seq = 0",
        "points_entries SET id = x'01'",
        "points_entries SET kind = 'gift', points = -1, before = balance + 1",
        "points_entries SET before = -1, points = balance + 1",
        "points_entries SET points = 0, before = balance",
        "outbox SET shard = 16",
        "outbox SET shard = -1",
        "mirrored_rooms SET concert_id = x'01'",
        "mirrored_rooms SET last_place = -1",
        "mirrored_rooms SET promoted_to = -1",
    ] {
        refuses(conn, check, &format!("UPDATE {nonsense}"));
    }
    let whole = format!("UPDATE payments SET {settled}");
    assert!(refusal(conn, &whole).is_none(), "consistent rows are accepted");
}

/// The audit finds every kind of broken row that the schema accepts, under its invariant.
#[tokio::test(flavor = "multi_thread")]
async fn audit_sees_what_no_constraint_can() {
    for (invariant, sql) in [
        ("I1", "UPDATE seats SET reservation_id = randomblob(16) WHERE state = 'held'"),
        ("I1", "UPDATE seats SET state = 'sold', held_until = NULL WHERE state = 'held'"),
        ("I1", "UPDATE seats SET state = 'available', reservation_id = NULL, held_until = NULL WHERE state = 'held'"),
        ("I1", "UPDATE seats SET held_until = held_until + 1 WHERE state = 'held'"),
        ("I1", "DELETE FROM reservations"),
        ("I2", "UPDATE accounts SET balance = balance + 1"),
        ("I2", "UPDATE entries SET amount = amount + 1, balance = balance + 1 WHERE seq = 1"),
        ("I2", "DELETE FROM entries WHERE seq = 2"),
        ("I2", "DELETE FROM accounts"),
        ("I3", "DELETE FROM entries WHERE seq = 2"),
        ("I3", "UPDATE entries SET id = (SELECT id FROM entries WHERE seq = 1)"),
        ("I3", "UPDATE replies SET body = (SELECT body FROM replies WHERE body LIKE '%\"amount\":500%') WHERE body LIKE '%\"amount\":1,%'"),
        ("I6", "DELETE FROM seats WHERE number = 50"),
        ("I6", "UPDATE dates SET seats_total = 49"),
        ("I9", "UPDATE accounts SET points = 1"),
        ("I10", "UPDATE reservations SET seat_count = 5"),
        (
            "I11",
            "INSERT INTO payments (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at, version)
             SELECT randomblob(16), id, user_id, concert_id, 1, 0, 0, 1, 1 FROM reservations",
        ),
    ] {
        let place = furnished().await;
        let store = place.open();
        let clean = store.stores().audit.audit(4).await.expect("audited");
        assert_eq!(clean.breaches, [], "before: {sql}");
        place.outside().batch_execute(sql).expect(sql);
        let report = store.stores().audit.audit(4).await.expect("audited");
        assert!(report.breaches.iter().any(|breach| breach.invariant == invariant), "{invariant}, {sql}: {:?}", report.breaches);
    }
}
