//! Exchanges whose answer was lost, and tokens of entries that are forgotten.

use super::faulty::{Fault, Faulty};
use super::*;
use boxoffice_domain::{ConcertId, Lane, Stock};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, PlaceClaim, WaitingRoom};
use chrono::TimeDelta;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

async fn volatile_room() -> (Arc<Faulty>, Stores, Arc<SystemClock>, Arc<Rooms>, ConcertId) {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let (stores, log) = (store.stores(), Faulty::new(store.room_log(), true));
    let room = instance(log.clone(), &stores, clock.clone());
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    room.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    (log, stores, clock, room, concert)
}

#[tokio::test]
async fn promotions_whose_answer_was_lost_reach_the_mirror() {
    let (log, stores, _, room, concert) = volatile_room().await;
    let mut entries = Vec::new();
    for _ in 0..3 {
        entries.push(room.join(concert, user(), None, fresh()).await.unwrap().place.entry);
    }
    log.fail(Some(Fault::After));
    assert!(room.tick(concert, PLENTY).await.is_err(), "it was appended, and the instance does not know");
    log.fail(None);
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().promoted, 0, "they were promoted before");
    let (_, turns) = stores.mirror.load(concert).await.unwrap().unwrap();
    let mut mirrored: Vec<_> = turns.iter().map(|turn| turn.entry).collect();
    mirrored.sort_unstable();
    entries.sort_unstable();
    assert_eq!(mirrored, entries);
    // An end whose answer was lost reaches the mirror as well.
    log.fail(Some(Fault::After));
    assert!(room.leave(concert, entries[0]).await.is_err());
    log.fail(None);
    room.tick(concert, PLENTY).await.unwrap();
    let (_, turns) = stores.mirror.load(concert).await.unwrap().unwrap();
    assert_eq!(turns.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_polled_from_memory_however_long_the_log_is_away() {
    let (log, _, _, room, concert) = volatile_room().await;
    let ann = room.join(concert, user(), None, fresh()).await.unwrap().place;
    log.fail(Some(Fault::Before));
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(room.place(concert, ann.entry).await.unwrap().map(|place| place.entry), Some(ann.entry));
    assert!(room.touch(concert, ann.entry).await.is_err(), "a turn is checked against the log");
    assert!(room.counts(concert).await.is_err());
    log.fail(None);
    assert!(room.touch(concert, ann.entry).await.unwrap().is_some());
}

#[tokio::test]
async fn users_found_gone_by_a_tick_whose_answer_was_lost_are_named_by_the_next() {
    let (log, _, clock, room, concert) = volatile_room().await;
    let ann = room.join(concert, user(), None, fresh()).await.unwrap().place;
    room.connected(concert, ann.entry);
    room.tick(concert, PLENTY).await.unwrap();
    room.tick(concert, PLENTY).await.unwrap();
    room.disconnected(concert, ann.entry);
    room.tick(concert, PLENTY).await.unwrap();
    // In steps too short to count as an instance's death.
    for _ in 0..6 {
        clock.advance(TimeDelta::seconds(4));
        room.tick(concert, PLENTY).await.unwrap();
    }
    clock.advance(TimeDelta::seconds(8));
    log.fail(Some(Fault::After));
    assert!(room.tick(concert, PLENTY).await.is_err());
    log.fail(None);
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().abandoned, [ann.user]);
    assert_eq!(room.tick(concert, PLENTY).await.unwrap().abandoned, [], "once");
}

#[tokio::test]
async fn a_token_of_what_is_forgotten_appends_nothing_however_often_it_is_shown() {
    let (log, _, _, room, concert) = volatile_room().await;
    let known = room.join(concert, user(), None, fresh()).await.unwrap().place;
    room.leave(concert, known.entry).await.unwrap();
    // The place was given out; the entry is no longer known, as after a day.
    let claim = PlaceClaim { entry: fresh(), user: user(), lane: Lane(0), place: known.arrival, active_until: None };
    let before = log.appends();
    for _ in 0..20 {
        assert_eq!(room.restore(concert, claim).await.unwrap(), None);
    }
    assert_eq!(log.appends(), before);
    let drawn = PlaceClaim { place: 0, ..claim };
    assert_eq!(room.restore(concert, drawn).await.unwrap(), None);
    assert_eq!(log.appends(), before);
    // A token whose place is beyond the room's last one is restored.
    let beyond = PlaceClaim { place: known.arrival + 5, ..claim };
    assert!(room.restore(concert, beyond).await.unwrap().is_some());
    assert_eq!(log.appends(), before + 1);
}
