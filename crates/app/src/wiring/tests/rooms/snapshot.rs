//! A room's snapshot is made in the background: neither the tick that finds it due nor polls wait for it.

use super::faulty::Faulty;
use super::*;
use boxoffice_domain::{QueueStatus, Stock};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, user};
use boxoffice_ports::{Opening, WaitingRoom};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };
/// Longer than any step of this test needs.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn neither_its_tick_nor_polls_wait_for_a_snapshot() {
    // The only thread for blocking work is occupied.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        let (stores, log) = (store.stores(), Faulty::new(store.room_log(), false));
        let room = instance(log.clone(), &stores, clock.clone());
        let concert = stores.catalog.import(vec![demo_plan(clock.now())], admission()).await.unwrap()[0].id;
        let opening = Opening { concert, sale_starts_at: None, admission: admission() };
        room.open(opening).await.unwrap();
        // The log grows, and its room does not.
        let ann = user();
        let entry = room.join(concert, ann, None, fresh()).await.unwrap().place.entry;
        for _ in 0..52 {
            let mut joins = JoinSet::new();
            for _ in 0..2_000 {
                let room = room.clone();
                joins.spawn(async move { room.join(concert, ann, None, fresh()).await.unwrap() });
            }
            joins.join_all().await;
        }
        let (release, released) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || released.recv().is_err());
        let ticked = timeout(LONG, room.tick(concert, PLENTY)).await;
        assert_eq!(ticked.expect("it waits for no snapshot").unwrap().promoted, 1);
        for _ in 0..10 {
            tokio::task::yield_now().await;
            let polled = timeout(LONG, room.place(concert, entry)).await.expect("nor does a poll");
            assert_eq!(polled.unwrap().map(|place| place.status), Some(QueueStatus::Active));
        }
        assert_eq!(log.compacts(), 0);
        drop(release);
        assert!(taken.await.unwrap(), "the thread is free again");
        timeout(LONG, async {
            while log.compacts() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the snapshot is made in the end");
        room.tick(concert, PLENTY).await.unwrap();
        // Another instance starts from the snapshot.
        let other = instance(store.room_log(), &stores, clock);
        other.open(opening).await.unwrap();
        assert_eq!(other.place(concert, entry).await.unwrap().map(|place| place.status), Some(QueueStatus::Active));
    });
}
