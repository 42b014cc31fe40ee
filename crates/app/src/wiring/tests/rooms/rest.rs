//! Empty rooms: they cost the log almost nothing, and the first caller finds them up to date.

use super::faulty::Faulty;
use super::*;
use boxoffice_domain::{QueueStatus, Stock};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, WaitingRoom};
use std::time::Duration;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

#[tokio::test]
async fn an_empty_room_asks_its_log_nothing_until_a_caller_comes() {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let stores = store.stores();
    let counted = Faulty::new(store.room_log(), false);
    let (room, other) = (instance(counted.clone(), &stores, clock.clone()), instance(store.room_log(), &stores, clock.clone()));
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    let opening = Opening { concert, sale_starts_at: None, admission: admission() };
    for each in [&room, &other] {
        each.open(opening).await.unwrap();
    }
    room.tick(concert, PLENTY).await.unwrap();
    let exchanges = async |ticks: u64| {
        let before = counted.exchanges();
        for _ in 0..ticks {
            // The refresh of the catalogue opens it, too.
            room.open(opening).await.unwrap();
            room.tick(concert, PLENTY).await.unwrap();
        }
        counted.exchanges() - before
    };
    assert_eq!(exchanges(50).await, 0, "the room is empty");
    assert!(room.rests(concert) && room.is_open(&opening));
    // A user joins at the other instance, and polls this one.
    let entry = other.join(concert, user(), None, fresh()).await.unwrap().place.entry;
    other.tick(concert, PLENTY).await.unwrap();
    assert_eq!(room.place(concert, entry).await.unwrap().map(|place| place.status), Some(QueueStatus::Active));
    assert!(!room.rests(concert));
    assert_eq!(exchanges(50).await, 50, "a user is in the room");
    other.leave(concert, entry).await.unwrap();
    assert!(exchanges(50).await <= 2, "the user has left");
    assert!(room.rests(concert));
}

/// The first caller of a room that rests at this instance sees what other instances appended.
#[tokio::test(start_paused = true)]
async fn a_room_that_rests_is_asked_when_a_caller_asks() {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let stores = store.stores();
    let (room, other) = (instance(store.room_log(), &stores, clock.clone()), instance(store.room_log(), &stores, clock.clone()));
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    for each in [&room, &other] {
        each.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    }
    room.tick(concert, PLENTY).await.unwrap();
    let entry = other.join(concert, user(), None, fresh()).await.unwrap().place.entry;
    other.tick(concert, PLENTY).await.unwrap();
    // Longer than a room is served from memory without reading its log.
    tokio::time::advance(Duration::from_secs(10)).await;
    let counts = room.counts(concert).await.unwrap();
    assert_eq!((counts.active, counts.waiting), (1, 0));
    other.leave(concert, entry).await.unwrap();
    room.tick(concert, PLENTY).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(room.place(concert, entry).await.unwrap().map(|place| place.status), Some(QueueStatus::Left), "an ended entry as well");
    let summary = room.summary(concert).await.unwrap();
    assert!(summary.open);
}
