//! Rooms without a replica: what a durable log restores.

use super::*;
use boxoffice_domain::waiting::ENDED_KEPT_S;
use boxoffice_domain::{Admission, ConcertId, PerInterval, QueueEntryId, Stock, Timestamp, UserId};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, RoomError, WaitingRoom};
use chrono::TimeDelta;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

async fn opened(room: &Rooms, stores: &Stores, clock: &SystemClock) -> ConcertId {
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    room.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    concert
}

async fn reopened(log: Arc<dyn RoomLog>, stores: &Stores, clock: &Arc<SystemClock>, concert: ConcertId) -> Arc<Rooms> {
    let room = instance(log, stores, clock.clone());
    room.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    room
}

async fn join(room: &Rooms, concert: ConcertId, user: UserId) -> boxoffice_domain::Place {
    room.join(concert, user, None, fresh()).await.unwrap().place
}

/// Over `first`, and then over `second`, which starts without a replica.
async fn places_and_turns_are_kept(first: Arc<dyn RoomLog>, second: Arc<dyn RoomLog>, stores: Stores, clock: Arc<SystemClock>) {
    let users: Vec<UserId> = (0..6).map(|_| user()).collect();
    let slow = Admission { max_active: 2, per_interval: Some(PerInterval { count: 2, seconds: 30 }), ..admission() };
    let room = instance(first, &stores, clock.clone());
    let concert = opened(&room, &stores, &clock).await;
    let was = room.admission(concert).await.unwrap();
    assert!(room.set_admission(concert, was, slow).await.unwrap());
    let mut entries = Vec::new();
    for user in &users {
        entries.push(join(&room, concert, *user).await.entry);
    }
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().promoted, 2);
    room.finish(concert, users[0], Timestamp::MAX_UTC).await.unwrap();
    room.leave(concert, entries[3]).await.unwrap();
    let mut before = Vec::new();
    for entry in &entries {
        before.push(room.place(concert, *entry).await.unwrap().unwrap());
    }
    drop(room);
    let room = reopened(second, &stores, &clock, concert).await;
    assert_eq!(room.admission(concert).await.unwrap(), slow, "an operator's change is kept");
    for (entry, before) in entries.iter().zip(&before) {
        let after = room.place(concert, *entry).await.unwrap().unwrap();
        let shown = |place: &boxoffice_domain::Place| (place.status, place.arrival, place.ahead, place.active_until);
        assert_eq!(shown(&after), shown(before));
    }
    let counts = room.counts(concert).await.unwrap();
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left), (3, 1, 1, 1));
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().promoted, 0, "the rate holds over the restart");
    let entered = room.join(concert, users[5], None, fresh()).await.unwrap();
    assert_eq!((entered.new, entered.place.entry), (false, entries[5]));
    assert_eq!(join(&room, concert, user()).await.arrival, 7, "no place is given twice");
    clock.advance(TimeDelta::seconds(30));
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().promoted, 1, "one of two turns is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_places_and_turns_over_a_restart() {
    let (clock, folder) = (Arc::new(SystemClock::default()), tempfile::tempdir().unwrap());
    let (first, second) = (sqlite_store(&folder, &clock), sqlite_store(&folder, &clock));
    places_and_turns_are_kept(first.room_log(), second.room_log(), second.stores(), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_places_and_turns_over_a_restart() {
    let (clock, url) = (Arc::new(SystemClock::default()), database());
    let (first, second) = (postgres_store(&url, &clock).await, postgres_store(&url, &clock).await);
    places_and_turns_are_kept(first.room_log(), second.room_log(), second.stores(), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_entry_is_forgotten_after_a_day_and_still_counted_after_a_restart() {
    let (clock, folder) = (Arc::new(SystemClock::default()), tempfile::tempdir().unwrap());
    let store = sqlite_store(&folder, &clock);
    let room = instance(store.room_log(), &store.stores(), clock.clone());
    let concert = opened(&room, &store.stores(), &clock).await;
    let mut last: QueueEntryId = fresh();
    for _ in 0..3 {
        last = join(&room, concert, user()).await.entry;
        room.leave(concert, last).await.unwrap();
    }
    drop(room);
    clock.advance(TimeDelta::seconds(ENDED_KEPT_S + 1));
    let room = reopened(store.room_log(), &store.stores(), &clock, concert).await;
    room.tick(concert, Stock { obtainable: 0, linked: true }).await.unwrap();
    assert_eq!(room.counts(concert).await.unwrap().left, 3);
    assert_eq!(room.place(concert, last).await.unwrap(), None, "ended entries are not kept one by one");
    assert_eq!(join(&room, concert, user()).await.arrival, 4);
}

/// A join that cannot be appended is not answered with success, and no later one depends on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_was_not_written_is_not_there() {
    let clock = Arc::new(SystemClock::default());
    let mut cluster = Postgres::start().unwrap();
    let url = cluster.database().unwrap();
    drop(postgres::migrate(&url).unwrap());
    let store = postgres_store(&url, &clock).await;
    let room = instance(store.room_log(), &store.stores(), clock.clone());
    let concert = opened(&room, &store.stores(), &clock).await;
    const USERS: usize = 600;
    let users: Vec<UserId> = (0..USERS).map(|_| user()).collect();
    let mut tasks = JoinSet::new();
    for ann in users.clone() {
        let room = room.clone();
        tasks.spawn(async move { (ann, room.join(concert, ann, None, fresh()).await) });
    }
    let (mut answered, mut killed) = (HashMap::new(), false);
    while let Some(joined) = tasks.join_next().await {
        let (ann, entered) = joined.unwrap();
        if let Ok(entered) = entered {
            answered.insert(ann, entered.place.arrival);
        }
        if !killed {
            cluster.kill().unwrap();
            killed = true;
        }
    }
    let refused = room.join(concert, user(), None, fresh()).await;
    assert!(matches!(refused, Err(RoomError::Unavailable(_))), "{refused:?}");
    cluster.restart().unwrap();
    let mut arrivals = Vec::with_capacity(USERS);
    for ann in users {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let place = loop {
            match room.join(concert, ann, None, fresh()).await {
                Ok(entered) => break entered.place,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let first = answered.get(&ann);
        assert!(first.is_none_or(|arrival| *arrival == place.arrival), "{first:?} and now {}", place.arrival);
        arrivals.push(place.arrival);
    }
    arrivals.sort_unstable();
    arrivals.dedup();
    assert_eq!(arrivals.len(), USERS, "one place for each user");
}

/// A caller that waits while a server ends must not delay the end.
#[test]
fn a_room_whose_runtime_has_ended_is_unavailable() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (ending, lives) = (runtime(), runtime());
    let (room, concert) = ending.block_on(async {
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        let room = instance(store.room_log(), &store.stores(), clock.clone());
        let concert = opened(&room, &store.stores(), &clock).await;
        (room, concert)
    });
    // Until its threads are gone: one that is still ending might answer.
    ending.shutdown_timeout(Duration::from_secs(20));
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(lives.block_on(room.admission(concert))));
    let answer = answers.recv_timeout(Duration::from_secs(20)).expect("an answer");
    assert!(matches!(answer, Err(RoomError::Unavailable(_))), "{answer:?}");
}
