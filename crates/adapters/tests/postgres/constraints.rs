//! The schema refuses rows that an invariant forbids, even from plain SQL that bypasses the ledger.

use super::support::{Place, transact};
use boxoffice_ports::Guard;
use boxoffice_ports::contract::build::{charge, hold, user};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const CHECK: SqlState = SqlState::CHECK_VIOLATION;
const UNIQUE: SqlState = SqlState::UNIQUE_VIOLATION;
const MISSING: SqlState = SqlState::NOT_NULL_VIOLATION;

/// A place with one wallet of two entries, and one held seat.
async fn furnished() -> (Place, Client) {
    let place = Place::new();
    let store = place.open().await;
    let date = place.date(50).await;
    let ann = user();
    let requests = vec![charge(ann, "a", 500), charge(ann, "b", 1), hold(ann, "c", date, &[1])];
    transact(&store, requests, Guard::RowLock).await.expect("committed");
    let outside = place.outside().await;
    (place, outside)
}

/// The store's refusal of `sql`; `None` if it changes a row.
async fn refusal(conn: &Client, sql: &str) -> Option<SqlState> {
    match conn.execute(sql, &[]).await {
        Ok(rows) => {
            assert_ne!(rows, 0, "touches no row: {sql}");
            None
        }
        Err(error) => Some(error.code().cloned().unwrap_or_else(|| panic!("{sql}: {error}"))),
    }
}

async fn refuses(conn: &Client, state: SqlState, sql: &str) {
    assert_eq!(refusal(conn, sql).await, Some(state), "{sql}");
}

async fn accepts(conn: &Client, sql: &str) {
    assert_eq!(refusal(conn, sql).await, None, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seat_that_contradicts_itself_is_refused() {
    let (_place, conn) = furnished().await;
    refuses(&conn, CHECK, "UPDATE seats SET state = 'sold' WHERE number = 2").await;
    refuses(&conn, CHECK, "UPDATE seats SET state = 'held', held_until = now() WHERE number = 2").await;
    refuses(&conn, CHECK, "UPDATE seats SET state = 'held', reservation_id = gen_random_uuid() WHERE number = 2").await;
    refuses(&conn, CHECK, "UPDATE seats SET reservation_id = gen_random_uuid() WHERE number = 2").await;
    refuses(&conn, CHECK, "UPDATE seats SET state = 'available' WHERE state = 'held'").await;
    refuses(&conn, CHECK, "UPDATE seats SET state = 'sold' WHERE state = 'held'").await;
    refuses(&conn, CHECK, "UPDATE seats SET held_until = NULL WHERE state = 'held'").await;
    let again = "INSERT INTO seats SELECT date_id, number, section, \"row\", grade, price, 'sold', gen_random_uuid(), NULL, 1
                 FROM seats LIMIT 1";
    refuses(&conn, UNIQUE, again).await;
    accepts(&conn, "UPDATE seats SET state = 'sold', held_until = NULL WHERE state = 'held'").await;
}

const PAY: &str = "INSERT INTO payments (id, reservation_id, user_id, concert_id, amount, points_spent, points_granted, paid_at, version)
    SELECT gen_random_uuid(), id, user_id, concert_id, 1, 0, 0, now(), 1 FROM reservations";

#[tokio::test(flavor = "multi_thread")]
async fn second_payment_of_a_reservation_is_refused() {
    let (_place, conn) = furnished().await;
    accepts(&conn, PAY).await;
    refuses(&conn, UNIQUE, PAY).await;
    refuses(&conn, CHECK, "UPDATE payments SET refund_amount = 1").await;
    let too_much = "UPDATE payments SET refund_amount = 2, points_restored = 0, points_taken = 0, shortfall = 0, refunded_at = now()";
    refuses(&conn, CHECK, too_much).await;
    refuses(&conn, CHECK, "UPDATE reservations SET status = 'confirmed'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wallet_that_does_not_add_up_is_refused() {
    let (_place, conn) = furnished().await;
    refuses(&conn, CHECK, "UPDATE accounts SET balance = -1").await;
    refuses(&conn, CHECK, "UPDATE accounts SET points = -1").await;
    refuses(&conn, CHECK, "UPDATE entries SET amount = amount + 1 WHERE seq = 2").await;
    refuses(&conn, CHECK, "UPDATE entries SET balance = balance + 1 WHERE seq = 2").await;
    refuses(&conn, CHECK, "UPDATE entries SET kind = 'use' WHERE seq = 2").await;
    let line = |seq: u32, before: i64, amount: i64, balance: i64| {
        format!(
            "INSERT INTO entries (user_id, seq, id, kind, amount, before, balance, created_at)
             SELECT user_id, {seq}, gen_random_uuid(), 'use', {amount}, {before}, {balance}, now() FROM accounts"
        )
    };
    refuses(&conn, UNIQUE, &line(2, 500, -1, 499)).await;
    refuses(&conn, CHECK, &line(3, 1, -2, -1)).await;
    accepts(&conn, &line(3, 501, -1, 500)).await;
    refuses(&conn, UNIQUE, "INSERT INTO accounts SELECT * FROM accounts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_do_not_add_up_or_come_twice_are_refused() {
    let (_place, conn) = furnished().await;
    let grant = |seq: u32, kind: &str, before: i64, points: i64, balance: i64| {
        format!(
            "INSERT INTO points_entries
             SELECT user_id, {seq}, gen_random_uuid(), '{kind}', {points}, {before}, {balance}, user_id, now() FROM accounts"
        )
    };
    accepts(&conn, &grant(1, "grant", 0, 5, 5)).await;
    refuses(&conn, UNIQUE, &grant(2, "grant", 5, 5, 10)).await;
    refuses(&conn, UNIQUE, &grant(1, "restore", 5, 5, 10)).await;
    refuses(&conn, CHECK, &grant(2, "restore", 5, 5, 11)).await;
    refuses(&conn, CHECK, &grant(2, "spend", 5, 5, 10)).await;
    refuses(&conn, CHECK, &grant(2, "spend", 1, -5, -4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_reply_of_a_key_is_refused() {
    let (_place, conn) = furnished().await;
    refuses(&conn, UNIQUE, "INSERT INTO replies SELECT * FROM replies LIMIT 1").await;
    refuses(&conn, CHECK, "UPDATE replies SET fingerprint = '\\x00'").await;
}

/// A column accepts only sensible values, and columns that belong together are set together.
#[tokio::test(flavor = "multi_thread")]
async fn columns_refuse_nonsense() {
    let (_place, conn) = furnished().await;
    accepts(&conn, PAY).await;
    accepts(&conn, "INSERT INTO points_entries SELECT user_id, 1, user_id, 'grant', 5, 0, 5, user_id, now() FROM accounts").await;
    let settled = "refund_amount = 0, points_restored = 0, points_taken = 0, shortfall = 0, refunded_at = now()";
    for missing in ["refund_amount = 0", "points_restored = 0", "points_taken = 0", "shortfall = 0", "refunded_at = now()"] {
        let column = missing.split(' ').next().unwrap_or_default();
        let without = settled.replace(missing, &format!("{column} = NULL"));
        refuses(&conn, CHECK, &format!("UPDATE payments SET {without}")).await;
    }
    for nonsense in [
        "concerts SET mode = 'open'",
        "concerts SET max_active = 0",
        "concerts SET per_interval_count = 0, per_interval_s = 1",
        "concerts SET per_interval_count = 1, per_interval_s = 0",
        "concerts SET per_interval_count = 1",
        "concerts SET per_interval_s = 1",
        "dates SET seats_total = -1",
        "seats SET number = 0 WHERE number = 2",
        "seats SET price = 0",
        "seats SET state = 'gone', reservation_id = gen_random_uuid() WHERE number = 2",
        "reservations SET status = 'gone'",
        "reservations SET extensions = -1",
        "reservations SET seats = '{}'",
        "payments SET amount = -1",
        "payments SET points_spent = -1",
        "payments SET points_granted = -1",
        "accounts SET entries = -1",
        "accounts SET points_entries = -1",
        "entries SET seq = 0 WHERE seq = 1",
        "entries SET kind = 'gift', amount = -1, balance = before - 1 WHERE seq = 2",
        "entries SET before = -1, amount = balance + 1",
        "entries SET amount = 0, before = balance",
        "points_entries SET seq = 0",
        "points_entries SET kind = 'gift', points = -1, before = balance + 1",
        "points_entries SET before = -1, points = balance + 1",
        "points_entries SET points = 0, before = balance",
        "outbox SET shard = 16",
        "outbox SET shard = -1",
    ] {
        refuses(&conn, CHECK, &format!("UPDATE {nonsense}")).await;
    }
    for missing in ["seats SET version = NULL", "reservations SET user_id = NULL", "replies SET body = NULL", "outbox SET payload = NULL"] {
        refuses(&conn, MISSING, &format!("UPDATE {missing}")).await;
    }
    accepts(&conn, &format!("UPDATE payments SET {settled}")).await;
}
