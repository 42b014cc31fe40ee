//! What is special about a file: it outlives its process, is shared with other processes, and may be locked or too old.

use super::support::Place;
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_domain::{Batch, ConcertId, DateId, Decision, Outcome, Request, ReservationStatus};
use boxoffice_ports::contract::build::{admission, charge, demo_plan, hold, policy, seats, user};
use boxoffice_ports::{Clock, Deadline, Guard, LedgerError, StoreError, Stores};
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use std::sync::Arc;
use std::time::Duration;

async fn transact(stores: &Stores, requests: Vec<Request>) -> Vec<Decision> {
    let batch = Batch::new(requests, Arc::new(policy()));
    let committed = stores.ledger.transact(batch, Guard::RowLock, Deadline::after(Duration::from_secs(30))).await.expect("committed");
    committed.replies.into_iter().map(|reply| reply.decision).collect()
}

/// The demo concert and its first date.
async fn on_sale(place: &Place, stores: &Stores) -> (ConcertId, DateId) {
    let imported = stores.catalog.import(vec![demo_plan(place.clock.now())], admission()).await.expect("imported");
    (imported[0].id, imported[0].dates[0].id)
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_keeps_balances_holds_and_tickets() {
    let place = Place::new();
    let (ann, bob) = (user(), user());
    let (reservation, payment) = {
        let stores = place.open().stores();
        let (_, date) = on_sale(&place, &stores).await;
        let decisions =
            transact(&stores, vec![charge(ann, "c", 1_000_000), hold(ann, "h", date, &[1, 2]), hold(bob, "h", date, &[3])]).await;
        let Decision::Done(Outcome::Held { reservation, .. }) = &decisions[1] else { panic!("{decisions:?}") };
        let pay = boxoffice_ports::contract::build::pay(ann, "p", reservation.id, 0);
        let decisions = transact(&stores, vec![pay]).await;
        let Decision::Done(Outcome::Paid { payment, reservation, .. }) = &decisions[0] else { panic!("{decisions:?}") };
        (reservation.clone(), payment.clone())
    };
    let stores = place.open().stores();
    let paid = stores.queries.payment(ann, payment.id).await.expect("read").expect("a payment");
    assert_eq!((paid.payment, paid.reservation), (payment.clone(), reservation.clone()));
    let wallet = stores.queries.wallet(ann).await.expect("read");
    assert_eq!((wallet.balance, wallet.points), (1_000_000 - payment.amount, payment.points_granted));
    let held = stores.queries.reservations(bob, None, 10).await.expect("read").items;
    assert_eq!(held[0].status, ReservationStatus::Held);
    // The same command is still de-duplicated.
    let again = transact(&stores, vec![charge(ann, "c", 1_000_000)]).await;
    assert!(matches!(&again[0], Decision::Done(Outcome::Entered { entry }) if entry.balance == 1_000_000));
    assert_eq!(stores.queries.wallet(ann).await.expect("read"), wallet);
    assert_eq!(stores.audit.audit(4).await.expect("audited").breaches, []);
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn count(place: &Place, sql: &str) -> i64 {
    sql_query(sql).get_result::<Count>(&mut place.outside()).expect(sql).n
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_runs_to_its_end_when_its_caller_goes_away() {
    let place = Place::new();
    let stores = place.open().stores();
    let ann = user();
    let mut outside = place.outside();
    outside.batch_execute("BEGIN IMMEDIATE").expect("the lock");
    let call = tokio::time::timeout(std::time::Duration::from_millis(20), transact(&stores, vec![charge(ann, "c", 5)]));
    assert!(call.await.is_err(), "it waits for the other process");
    outside.batch_execute("COMMIT").expect("released");
    // The writer works in order, so its next answer comes after the abandoned batch.
    transact(&stores, vec![charge(ann, "d", 1)]).await;
    assert_eq!(stores.queries.wallet(ann).await.expect("read").balance, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_stays_locked_makes_a_batch_retryable() {
    let place = Place::new();
    let stores = place.open().stores();
    let mut outside = place.outside();
    outside.batch_execute("BEGIN IMMEDIATE").expect("the lock");
    let batch = Batch::new(vec![charge(user(), "c", 5)], Arc::new(policy()));
    let refused = stores.ledger.transact(batch, Guard::Version, Deadline::after(Duration::from_secs(30))).await;
    assert!(matches!(refused, Err(LedgerError::Retryable(_))), "{refused:?}");
    outside.batch_execute("COMMIT").expect("released");
    assert_eq!(count(&place, "SELECT count(*) AS n FROM entries"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_that_could_not_begin_by_its_deadline_is_given_up() {
    let place = Place::new();
    let stores = place.open().stores();
    let ann = user();
    let mut outside = place.outside();
    outside.batch_execute("BEGIN IMMEDIATE").expect("the lock");
    let deadline = Deadline::after(Duration::from_millis(50));
    let ledger = stores.ledger.clone();
    let batch = Batch::new(vec![charge(ann, "late", 5)], Arc::new(policy()));
    let late = tokio::spawn(async move { ledger.transact(batch, Guard::RowLock, deadline).await });
    assert!(deadline.bound(std::future::pending::<()>()).await.is_err());
    outside.batch_execute("COMMIT").expect("released");
    let late = late.await.expect("no panic");
    assert!(matches!(late, Err(LedgerError::Unavailable(_))), "{late:?}");
    transact(&stores, vec![charge(ann, "d", 1)]).await;
    assert_eq!(stores.queries.wallet(ann).await.expect("read").balance, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_that_breaks_a_constraint_leaves_nothing() {
    let place = Place::new();
    let stores = place.open().stores();
    let (ann, bob) = (user(), user());
    transact(&stores, vec![charge(ann, "a", 1)]).await;
    // A stray entry has the number of the account's next one.
    let stray = "INSERT INTO entries SELECT user_id, 2, randomblob(16), 'charge', 1, 1, 2, NULL, NULL, NULL, 1 FROM accounts";
    place.outside().batch_execute(stray).expect("a stray entry");
    let batch = Batch::new(vec![charge(bob, "b", 1), charge(ann, "b", 1)], Arc::new(policy()));
    let refused = stores.ledger.transact(batch, Guard::RowLock, Deadline::after(Duration::from_secs(30))).await;
    assert!(matches!(refused, Err(LedgerError::Refused(_))), "{refused:?}");
    assert_eq!(stores.queries.wallet(bob).await.expect("read").balance, 0);
    assert_eq!(count(&place, "SELECT count(*) AS n FROM replies"), 1);
    assert!(matches!(transact(&stores, vec![charge(bob, "b", 1)]).await[0], Decision::Done(_)), "the other command alone is accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_processs_import_shows_at_once() {
    let place = Place::new();
    let (server, importer) = (place.open().stores(), place.open().stores());
    assert_eq!(server.queries.catalog().await.expect("read"), []);
    let mut plan = demo_plan(place.clock.now());
    plan.dates[0].seats = vec![seats(1, 20_000, "R", 100, None)];
    importer.catalog.import(vec![plan], admission()).await.expect("imported");
    let catalog = server.queries.catalog().await.expect("read");
    assert_eq!((catalog[0].dates[0].total, catalog[0].dates[0].seats_version), (20_000, 1));
    assert_eq!(server.queries.seats(catalog[0].dates[0].date.id).await.expect("read").len(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_replays_writes_nothing() {
    let place = Place::new();
    let stores = place.open().stores();
    let requests: Vec<_> = (0..10).map(|at| charge(user(), &at.to_string(), 1)).collect();
    transact(&stores, requests.clone()).await;
    let log = place.folder.path().join("boxoffice.db-wal");
    let written = std::fs::metadata(&log).expect("a log").len();
    transact(&stores, requests.clone()).await;
    assert_eq!(std::fs::metadata(&log).expect("a log").len(), written);
    transact(&stores, vec![charge(user(), "new", 1)]).await;
    assert!(std::fs::metadata(&log).expect("a log").len() > written, "the log grows with a new command");
}

#[test]
fn a_second_server_of_a_file_is_refused() {
    let place = Place::new();
    let first = sqlite::lock_for_serving(&place.path()).expect("the only server");
    let refused = sqlite::lock_for_serving(&place.path()).expect_err("the second");
    assert!(refused.to_string().contains("another server is running on"), "{refused}");
    drop(first);
    sqlite::lock_for_serving(&place.path()).expect("after the first has stopped");
}

#[test]
fn a_file_that_is_missing_or_not_migrated_is_refused() {
    let place = Place::new();
    let refused = |path| {
        SqliteStore::open(SqliteOptions { path, readers: 1 }, place.clock.clone(), &*boxoffice_ports::contract::supervisor())
            .map(drop)
            .expect_err("refused")
    };
    let missing = refused(place.folder.path().join("none.db"));
    assert!(missing.to_string().contains("boxoffice migrate"), "{missing}");
    assert!(!place.folder.path().join("none.db").exists(), "opening creates nothing");
    let empty = place.folder.path().join("empty.db");
    std::fs::write(&empty, b"").expect("a file");
    assert!(matches!(refused(empty), StoreError::Unavailable(_)));
    let text = place.folder.path().join("text.db");
    std::fs::write(&text, b"this is no database, but a text that is longer than a header of one hundred bytes; it goes on and on")
        .expect("a file");
    refused(text);
}

#[test]
fn migrating_again_applies_nothing() {
    let place = Place::new();
    assert_eq!(sqlite::migrate(&place.path()).expect("migrated"), Vec::<String>::new());
    let mut reverted = sqlite::revert(&place.path()).expect("reverted");
    reverted.reverse();
    assert_eq!(reverted, ["0001", "0002", "0003", "0004", "0005"]);
    assert_eq!(sqlite::migrate(&place.path()).expect("migrated").len(), reverted.len());
}
