//! What only a file can do: outlive its process, be shared with other processes, be locked, be too old.

use super::support::Place;
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_domain::room::ENDED_KEPT_S;
use boxoffice_domain::{Batch, ConcertId, DateId, Decision, Outcome, PerInterval, QueueStatus, Request, ReservationStatus, Stock, UserId};
use boxoffice_ports::contract::build::{admission, charge, demo_plan, fresh, hold, policy, seats, user};
use boxoffice_ports::{Clock, Guard, LedgerError, RoomTerms, StoreError, Stores, WaitingRoom};
use chrono::TimeDelta;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use std::sync::Arc;
use tokio::task::JoinSet;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

async fn transact(stores: &Stores, requests: Vec<Request>) -> Vec<Decision> {
    let batch = Batch::new(requests, Arc::new(policy()));
    let committed = stores.ledger.transact(batch, Guard::RowLock).await.expect("committed");
    committed.replies.into_iter().map(|reply| reply.decision).collect()
}

/// The demo concert and its first date.
async fn on_sale(place: &Place, stores: &Stores) -> (ConcertId, DateId) {
    let imported = stores.catalog.import(vec![demo_plan(place.clock.now())], admission()).await.expect("imported");
    (imported[0].id, imported[0].dates[0].id)
}

async fn open_room(room: &Arc<dyn WaitingRoom>, concert: ConcertId) {
    room.open(RoomTerms { concert, sale_starts_at: None, admission: admission() }).await.expect("a room");
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
        let Decision::Done(Outcome::Paid { payment, reservation }) = &decisions[0] else { panic!("{decisions:?}") };
        (reservation.clone(), payment.clone())
    };
    let stores = place.open().stores();
    let paid = stores.queries.payment(ann, payment.id).await.expect("read").expect("a payment");
    assert_eq!((paid.payment, paid.reservation), (payment.clone(), reservation.clone()));
    let wallet = stores.queries.wallet(ann).await.expect("read");
    assert_eq!((wallet.balance, wallet.points), (1_000_000 - payment.amount, payment.points_granted));
    let held = stores.queries.reservations(bob, None, 10).await.expect("read").items;
    assert_eq!(held[0].status, ReservationStatus::Held);
    // The same command is known, too.
    let again = transact(&stores, vec![charge(ann, "c", 1_000_000)]).await;
    assert!(matches!(&again[0], Decision::Done(Outcome::Entered { entry }) if entry.balance == 1_000_000));
    assert_eq!(stores.queries.wallet(ann).await.expect("read"), wallet);
    assert_eq!(stores.audit.audit(4).await.expect("audited").breaches, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_keeps_queue_places_and_turns() {
    let place = Place::new();
    let users: Vec<UserId> = (0..6).map(|_| user()).collect();
    let slow = boxoffice_domain::Admission { max_active: 2, per_interval: Some(PerInterval { count: 2, seconds: 30 }), ..admission() };
    let (concert, entries, before) = {
        let (store, room) = place.serve().await;
        let (concert, _) = on_sale(&place, &store.stores()).await;
        open_room(&room, concert).await;
        let was = room.admission(concert).await.expect("an admission");
        assert!(room.set_admission(concert, was, slow).await.expect("set"));
        let mut entries = Vec::new();
        for user in &users {
            entries.push(room.join(concert, *user, fresh()).await.expect("joined").place.entry);
        }
        assert_eq!(room.tick(concert, PLENTY).await.expect("a tick").promoted, 2);
        room.finish(concert, users[0], boxoffice_domain::Timestamp::MAX_UTC).await.expect("finished");
        room.leave(concert, entries[3]).await.expect("left");
        let mut before = Vec::new();
        for entry in &entries {
            before.push(room.place(concert, *entry).await.expect("read").expect("a place"));
        }
        (concert, entries, before)
    };
    let (_store, room) = place.serve().await;
    open_room(&room, concert).await;
    assert_eq!(room.admission(concert).await.expect("read"), slow, "an operator's change is kept");
    for (entry, before) in entries.iter().zip(&before) {
        let after = room.place(concert, *entry).await.expect("read").expect("a place");
        assert_eq!(
            (after.status, after.arrival, after.ahead, after.active_until),
            (before.status, before.arrival, before.ahead, before.active_until)
        );
    }
    let counts = room.counts(concert).await.expect("read");
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left), (3, 1, 1, 1));
    assert_eq!(room.tick(concert, PLENTY).await.expect("a tick").promoted, 0, "the rate holds over the restart");
    let entered = room.join(concert, users[5], fresh()).await.expect("joined");
    assert_eq!((entered.new, entered.place.entry), (false, entries[5]));
    let newcomer = room.join(concert, user(), fresh()).await.expect("joined");
    assert_eq!(newcomer.place.arrival, 7, "no place is given twice");
    place.clock.advance(TimeDelta::seconds(30));
    assert_eq!(room.tick(concert, PLENTY).await.expect("a tick").promoted, 1, "one of two turns is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_after_a_day_counts_who_ended_and_gives_no_place_twice() {
    let place = Place::new();
    let (concert, entry) = {
        let (store, room) = place.serve().await;
        let (concert, _) = on_sale(&place, &store.stores()).await;
        open_room(&room, concert).await;
        let mut last = fresh();
        for _ in 0..3 {
            last = room.join(concert, user(), fresh()).await.expect("joined").place.entry;
            room.leave(concert, last).await.expect("left");
        }
        (concert, last)
    };
    place.clock.advance(TimeDelta::seconds(ENDED_KEPT_S + 1));
    let (_store, room) = place.serve().await;
    open_room(&room, concert).await;
    assert_eq!(room.counts(concert).await.expect("read").left, 3);
    assert_eq!(room.place(concert, entry).await.expect("read"), None, "and they are not kept one by one");
    assert_eq!(room.join(concert, user(), fresh()).await.expect("joined").place.arrival, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_whose_write_failed_is_loaded_again() {
    let place = Place::new();
    let (store, room) = place.serve().await;
    let (concert, _) = on_sale(&place, &store.stores()).await;
    open_room(&room, concert).await;
    let (ann, bob) = (user(), user());
    let first = room.join(concert, ann, fresh()).await.expect("joined").place;
    place
        .outside()
        .batch_execute("CREATE TRIGGER broken BEFORE INSERT ON queue_entries BEGIN SELECT RAISE(ABORT, 'broken'); END")
        .expect("a trigger");
    let lost = fresh();
    room.join(concert, bob, lost).await.expect_err("the write fails");
    assert_eq!(room.place(concert, lost).await.expect("read"), None, "what was not written is not there");
    let kept = room.place(concert, first.entry).await.expect("read").expect("a place");
    assert_eq!((kept.arrival, kept.ahead, kept.status), (1, Some(0), QueueStatus::Waiting));
    place.outside().batch_execute("DROP TRIGGER broken").expect("no trigger");
    let bobs = room.join(concert, bob, fresh()).await.expect("joined");
    assert!(bobs.new);
    assert_eq!((bobs.place.arrival, bobs.place.ahead), (2, Some(1)));
    assert_eq!(room.counts(concert).await.expect("read").waiting, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_joins_at_once_share_commits() {
    const USERS: u64 = 2_000;
    let place = Place::new();
    let (store, room) = place.serve().await;
    let (concert, _) = on_sale(&place, &store.stores()).await;
    open_room(&room, concert).await;
    // While another process holds the file, joins queue up behind it.
    let mut outside = place.outside();
    outside.batch_execute("BEGIN IMMEDIATE").expect("the lock");
    let mut joins = JoinSet::new();
    for _ in 0..USERS {
        let room = room.clone();
        joins.spawn(async move { room.join(concert, user(), fresh()).await.expect("joined").place.arrival });
    }
    tokio::task::yield_now().await;
    outside.batch_execute("COMMIT").expect("released");
    let mut arrivals = joins.join_all().await;
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>());
    assert_eq!(count(&place, "SELECT count(*) AS n FROM queue_entries"), USERS as i64);
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
    // The writer works in order, so what it answers next comes after the abandoned batch.
    transact(&stores, vec![charge(ann, "d", 1)]).await;
    assert_eq!(stores.queries.wallet(ann).await.expect("read").balance, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_stays_locked_makes_a_batch_retryable() {
    let place = Place::new();
    let stores = place.open().stores();
    let mut outside = place.outside();
    outside.batch_execute("BEGIN IMMEDIATE").expect("the lock");
    let batch = Batch::new(vec![charge(user(), "c", 5)], Arc::new(policy()));
    let refused = stores.ledger.transact(batch, Guard::Version).await;
    assert!(matches!(refused, Err(LedgerError::Retryable(_))), "{refused:?}");
    outside.batch_execute("COMMIT").expect("released");
    assert_eq!(count(&place, "SELECT count(*) AS n FROM entries"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_that_breaks_a_constraint_leaves_nothing() {
    let place = Place::new();
    let stores = place.open().stores();
    let (ann, bob) = (user(), user());
    transact(&stores, vec![charge(ann, "a", 1)]).await;
    // A line that the account does not know of takes the next one's number.
    let stray = "INSERT INTO entries SELECT user_id, 2, randomblob(16), 'charge', 1, 1, 2, NULL, NULL, NULL, 1 FROM accounts";
    place.outside().batch_execute(stray).expect("a stray line");
    let batch = Batch::new(vec![charge(bob, "b", 1), charge(ann, "b", 1)], Arc::new(policy()));
    let refused = stores.ledger.transact(batch, Guard::RowLock).await;
    assert!(matches!(refused, Err(LedgerError::Refused(_))), "{refused:?}");
    assert_eq!(stores.queries.wallet(bob).await.expect("read").balance, 0);
    assert_eq!(count(&place, "SELECT count(*) AS n FROM replies"), 1);
    assert!(matches!(transact(&stores, vec![charge(bob, "b", 1)]).await[0], Decision::Done(_)), "the neighbour alone is fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_of_another_process_shows_at_once() {
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
async fn batch_of_replays_writes_nothing() {
    let place = Place::new();
    let stores = place.open().stores();
    let requests: Vec<_> = (0..10).map(|at| charge(user(), &at.to_string(), 1)).collect();
    transact(&stores, requests.clone()).await;
    let log = place.folder.path().join("boxoffice.db-wal");
    let written = std::fs::metadata(&log).expect("a log").len();
    transact(&stores, requests.clone()).await;
    assert_eq!(std::fs::metadata(&log).expect("a log").len(), written);
    transact(&stores, vec![charge(user(), "new", 1)]).await;
    assert!(std::fs::metadata(&log).expect("a log").len() > written, "the log grows with what is new");
}

#[test]
fn second_server_of_a_file_is_refused() {
    let place = Place::new();
    let first = sqlite::lock_for_serving(&place.path()).expect("the only server");
    let refused = sqlite::lock_for_serving(&place.path()).expect_err("the second");
    assert!(refused.to_string().contains("another server is running on"), "{refused}");
    drop(first);
    sqlite::lock_for_serving(&place.path()).expect("after the first has gone");
}

#[test]
fn file_that_is_missing_or_not_migrated_is_refused() {
    let place = Place::new();
    let refused = |path| SqliteStore::open(SqliteOptions { path, readers: 1 }, place.clock.clone()).map(drop).expect_err("refused");
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
    assert_eq!(reverted, ["0001", "0002"]);
    assert_eq!(sqlite::migrate(&place.path()).expect("migrated").len(), reverted.len());
}
