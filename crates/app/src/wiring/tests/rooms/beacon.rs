//! Draws that wait for a beacon, over two instances.

use super::*;
use async_trait::async_trait;
use boxoffice_domain::draw;
use boxoffice_domain::{QueueStatus, Stock, Timestamp};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, Source, WaitingRoom};
use chrono::TimeDelta;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };
/// More rounds than any step of these tests needs.
const ROUNDS_MAX: u32 = 3_000;

/// Has a value from a certain request on, another one for each request.
struct Late {
    from: AtomicU64,
    requests: AtomicU64,
}

#[async_trait]
impl Beacon for Late {
    async fn value(&self, _: Timestamp) -> Result<String, Source> {
        let nth = self.requests.fetch_add(1, Ordering::SeqCst);
        if nth < self.from.load(Ordering::SeqCst) { Err("not yet".into()) } else { Ok(format!("pulse {nth}")) }
    }
}

async fn a_late_beacon_delays_the_draw(logs: [Arc<dyn RoomLog>; 2], stores: Stores, clock: Arc<SystemClock>) {
    let beacon = Arc::new(Late { from: AtomicU64::new(u64::MAX), requests: AtomicU64::new(0) });
    let rooms = logs.map(|log| with_beacon(log, &stores, clock.clone(), Some(beacon.clone())));
    let start = stores.queries.now().await.unwrap() + TimeDelta::seconds(60);
    let concert = stores.catalog.import(vec![demo_plan(start)], admission()).await.unwrap()[0].id;
    let mut places = Vec::new();
    for room in &rooms {
        room.open(Opening { concert, sale_starts_at: Some(start), admission: admission() }).await.unwrap();
    }
    for at in 0..20 {
        places.push(rooms[at % 2].join(concert, user(), None, fresh()).await.unwrap().place);
    }
    clock.advance(TimeDelta::seconds(61));
    let step = async || {
        for room in &rooms {
            room.tick(concert, PLENTY).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    for _ in 0..ROUNDS_MAX {
        step().await;
        if beacon.requests.load(Ordering::SeqCst) >= 4 {
            break;
        }
    }
    let requests = beacon.requests.load(Ordering::SeqCst);
    assert!(requests >= 4, "a value is requested until there is one, and there were {requests} requests");
    let closed = rooms[0].draw(concert).await.unwrap().unwrap();
    assert_eq!((closed.keys.as_ref().map(Vec::len), closed.seed), (Some(20), None), "the list is closed, the seed is not revealed");
    for place in &places {
        let place = rooms[1].touch(concert, place.entry).await.unwrap().unwrap();
        assert_eq!((place.status, place.arrival), (QueueStatus::PreSale, 0), "no promotion before the draw");
    }
    beacon.from.store(0, Ordering::SeqCst);
    let mut draw = closed;
    for _ in 0..ROUNDS_MAX {
        step().await;
        draw = rooms[0].draw(concert).await.unwrap().unwrap();
        if draw.seed.is_some() {
            break;
        }
    }
    step().await;
    step().await;
    let (seed, pulse) = (draw.seed.expect("a seed"), draw.beacon.expect("a pulse"));
    let salt = draw::salt(&seed, Some(&pulse));
    let mut order: Vec<_> = places.iter().map(|place| (draw::rank(&salt, &draw::draw_key(place.user, concert)), place.entry)).collect();
    order.sort_unstable();
    for (arrival, (_, entry)) in (1..).zip(order) {
        for room in &rooms {
            let place = room.touch(concert, entry).await.unwrap().unwrap();
            assert_eq!((place.status, place.arrival), (QueueStatus::Active, arrival), "in the order of the pulse that was written first");
        }
    }
    if let Some(kept) = stores.mirror.draw(concert).await.unwrap() {
        assert_eq!((kept.seed, kept.beacon), (seed, Some(pulse)), "the mirror has the seed and the pulse of the draw");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draw_waits_for_its_beacon_over_a_log_that_lasts() {
    let (clock, folder) = (Arc::new(SystemClock::default()), tempfile::tempdir().unwrap());
    let store = sqlite_store(&folder, &clock);
    a_late_beacon_delays_the_draw([store.room_log(), store.room_log()], store.stores(), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draw_waits_for_its_beacon_over_a_log_that_can_be_lost() {
    let clock = Arc::new(SystemClock::default());
    let store = postgres_store(&database(), &clock).await;
    let node = Node::shared();
    a_late_beacon_delays_the_draw([redis_log(node, &clock), redis_log(node, &clock)], store.stores(), clock).await;
}
