//! The memory adapters keep every contract.

use std::any::Any;
use std::sync::Arc;

use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::memory::{MemoryLock, MemoryStore};
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::contract::room_log::RoomLogFixture;
use boxoffice_ports::{Clock, Lock, Stores};

#[path = "shared/edges.rs"]
mod edges;

async fn make_fixture() -> Fixture {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    Fixture { stores: store.stores(), advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(store) }
}

async fn make_still(clock: Arc<dyn Clock>) -> (Stores, Box<dyn Any + Send + Sync>) {
    let store = MemoryStore::new(clock);
    (store.stores(), Box::new(store))
}

async fn make_lock() -> Arc<dyn Lock> {
    Arc::new(MemoryLock::new())
}

async fn make_room_log() -> RoomLogFixture {
    let clock = Arc::new(SystemClock::default());
    let store = MemoryStore::new(clock.clone());
    let (log, other) = (store.room_log(), store.room_log());
    RoomLogFixture { log, other, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(store) }
}

boxoffice_ports::ledger_contract!(make_fixture);
boxoffice_ports::mirror_contract!(make_fixture);
boxoffice_ports::room_log_contract!(make_room_log);
boxoffice_ports::lock_contract!(make_lock);
