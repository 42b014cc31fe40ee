//! Rooms that nobody is in: they cost the log next to nothing, and whoever comes finds them as they are.

use super::*;
use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Lane, QueueStatus, Stock};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Exchanged, LogPosition, Opening, PlaceClaim, RoomLogError, WaitingRoom};
use std::sync::atomic::{AtomicU64, Ordering};

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

/// Counts what is asked of it.
struct Counted {
    log: Arc<dyn RoomLog>,
    exchanges: AtomicU64,
    /// Exchanges with something to append.
    appends: AtomicU64,
    is_volatile: bool,
}

impl Counted {
    fn new(log: Arc<dyn RoomLog>, is_volatile: bool) -> Arc<Self> {
        Arc::new(Self { log, exchanges: AtomicU64::new(0), appends: AtomicU64::new(0), is_volatile })
    }
}

#[async_trait]
impl RoomLog for Counted {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.appends.fetch_add(u64::from(!inputs.is_empty()), Ordering::Relaxed);
        self.log.exchange(concert, since, inputs).await
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        self.log.begin(concert, snapshot).await
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        self.log.compact(concert, upto, snapshot).await
    }

    fn is_volatile(&self) -> bool {
        self.is_volatile
    }
}

#[tokio::test]
async fn an_empty_room_asks_its_log_seldom_until_somebody_comes() {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let stores = store.stores();
    let counted = Counted::new(store.room_log(), false);
    let (room, other) = (instance(counted.clone(), &stores, clock.clone()), instance(store.room_log(), &stores, clock.clone()));
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    for each in [&room, &other] {
        each.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    }
    room.tick(concert, PLENTY).await.unwrap();
    let exchanges = async |ticks: u64| {
        let before = counted.exchanges.load(Ordering::Relaxed);
        for _ in 0..ticks {
            room.tick(concert, PLENTY).await.unwrap();
        }
        counted.exchanges.load(Ordering::Relaxed) - before
    };
    assert!(exchanges(50).await <= 2, "nobody is there");
    // Somebody comes to the other instance, and asks this one.
    let entry = other.join(concert, user(), None, fresh()).await.unwrap().place.entry;
    other.tick(concert, PLENTY).await.unwrap();
    assert_eq!(room.place(concert, entry).await.unwrap().map(|place| place.status), Some(QueueStatus::Active));
    assert_eq!(exchanges(50).await, 50, "somebody is there");
    other.leave(concert, entry).await.unwrap();
    assert!(exchanges(50).await <= 3, "and has gone");
}

#[tokio::test]
async fn a_token_that_is_forgotten_for_good_appends_nothing_to_a_log_that_may_be_lost() {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let stores = store.stores();
    let counted = Counted::new(store.room_log(), true);
    let room = instance(counted.clone(), &stores, clock.clone());
    let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
    room.open(Opening { concert, sale_starts_at: None, admission: admission() }).await.unwrap();
    let known = room.join(concert, user(), None, fresh()).await.unwrap().place;
    let before = counted.appends.load(Ordering::Relaxed);
    let forgotten = PlaceClaim { entry: fresh(), user: user(), lane: Lane(0), place: known.arrival, active_until: None };
    for _ in 0..20 {
        assert_eq!(room.restore(concert, forgotten).await.unwrap(), None);
    }
    assert_eq!(counted.appends.load(Ordering::Relaxed), before);
}
