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
/// Longer than anything here needs.
const ROUNDS_MAX: u32 = 3_000;

/// There from a certain question on; each time it is asked it says something else.
struct Late {
    from: AtomicU64,
    asked: AtomicU64,
}

#[async_trait]
impl Beacon for Late {
    async fn value(&self, _: Timestamp) -> Result<String, Source> {
        let nth = self.asked.fetch_add(1, Ordering::SeqCst);
        if nth < self.from.load(Ordering::SeqCst) { Err("not yet".into()) } else { Ok(format!("pulse {nth}")) }
    }
}

async fn a_late_beacon_delays_the_draw(logs: [Arc<dyn RoomLog>; 2], stores: Stores, clock: Arc<SystemClock>) {
    let beacon = Arc::new(Late { from: AtomicU64::new(u64::MAX), asked: AtomicU64::new(0) });
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
        if beacon.asked.load(Ordering::SeqCst) >= 4 {
            break;
        }
    }
    let asked = beacon.asked.load(Ordering::SeqCst);
    assert!(asked >= 4, "it is asked again and again, and was {asked} times");
    let closed = rooms[0].draw(concert).await.unwrap().unwrap();
    assert_eq!((closed.keys.as_ref().map(Vec::len), closed.seed), (Some(20), None), "the list is closed, the seed is not told");
    for place in &places {
        let place = rooms[1].touch(concert, place.entry).await.unwrap().unwrap();
        assert_eq!((place.status, place.arrival), (QueueStatus::PreSale, 0), "nobody goes before the draw");
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
            assert_eq!((place.status, place.arrival), (QueueStatus::Active, arrival), "by the pulse that was written first");
        }
    }
    if let Some(kept) = stores.mirror.draw(concert).await.unwrap() {
        assert_eq!((kept.seed, kept.beacon), (seed, Some(pulse)), "the mirror has what was drawn by");
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
