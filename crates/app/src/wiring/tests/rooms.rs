//! The waiting rooms over every log, beside the stores they are used with.

mod admission;
mod beacon;
mod doubt;
mod faulty;
mod loss;
mod rest;
mod restart;
mod snapshot;

use std::any::Any;
use std::sync::Arc;

use boxoffice_adapters::memory::MemoryStore;
use boxoffice_adapters::postgres::{self, PostgresOptions, PostgresStore};
use boxoffice_adapters::redis::{Redis, RedisRoomLog};
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_domain::waiting::LaneTerms;
use boxoffice_engine::{Rooms, RoomsParts, RoomsSettings};
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::contract::room::{EXTENSIONS_MAX, LANE, RoomFixture};
use boxoffice_ports::{Beacon, Clock, Ids, InstanceId, RoomLog, Stores, Traffic};
use boxoffice_services::{Postgres, Redis as Node};
use tempfile::TempDir;

use crate::wiring::{SystemClock, SystemIds};

/// How long a turn lasts in these tests.
pub(super) const TURN_S: u32 = 600;
/// A database with the current schema, copied for each test.
const TEMPLATE: &str = "boxoffice_rooms";

fn settings() -> RoomsSettings {
    RoomsSettings {
        active_ttl_s: TURN_S,
        extensions_max: EXTENSIONS_MAX,
        grace_s: 30,
        waiting_grace_s: 1_800,
        p99_target_ms: 500,
        lanes: vec![LaneTerms { name: LANE.0.to_owned(), share: LANE.1 }],
    }
}

/// One more instance of the rooms.
fn instance(log: Arc<dyn RoomLog>, stores: &Stores, clock: Arc<dyn Clock>) -> Arc<Rooms> {
    with_beacon(log, stores, clock, None)
}

fn with_beacon(log: Arc<dyn RoomLog>, stores: &Stores, clock: Arc<dyn Clock>, beacon: Option<Arc<dyn Beacon>>) -> Arc<Rooms> {
    let instance = InstanceId(SystemIds.fresh());
    let (mirror, secrets) = (stores.mirror.clone(), stores.secrets.clone());
    Rooms::new(RoomsParts { log, mirror, secrets, clock, beacon, instance, settings: settings() })
}

fn fixture(stores: Stores, logs: [Arc<dyn RoomLog>; 2], clock: &Arc<SystemClock>, keep: impl Any + Send + Sync) -> RoomFixture {
    let [room, other] = logs.map(|log| instance(log, &stores, clock.clone()));
    let moved = clock.clone();
    let store = Fixture { stores, advance: Arc::new(move |by| moved.advance(by)), keep: Box::new(keep) };
    RoomFixture { store, room, other }
}

fn redis_log(node: &Node, clock: &Arc<SystemClock>) -> Arc<dyn RoomLog> {
    let redis = Redis::open(&[node.url()], Arc::default()).unwrap();
    Arc::new(RedisRoomLog::new(redis, clock.clone()))
}

async fn postgres_store(url: &str, clock: &Arc<SystemClock>) -> Arc<PostgresStore> {
    let options = PostgresOptions { url: url.to_owned(), connections: 8, lanes: 2, traffic: Arc::new(Traffic::default()) };
    PostgresStore::open(options, clock.clone()).await.unwrap()
}

/// The address of a fresh database.
fn database() -> String {
    let cluster = Postgres::shared();
    cluster.template(TEMPLATE, |url| drop(postgres::migrate(url).unwrap())).unwrap();
    cluster.database_like(TEMPLATE).unwrap()
}

fn sqlite_store(folder: &TempDir, clock: &Arc<SystemClock>) -> Arc<SqliteStore> {
    let path = folder.path().join("boxoffice.db");
    sqlite::migrate(&path).unwrap();
    SqliteStore::open(SqliteOptions { path, readers: 4 }, clock.clone(), &*boxoffice_engine::Supervisor::new()).unwrap()
}

mod memory {
    use super::*;

    async fn make() -> RoomFixture {
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        fixture(store.stores(), [store.room_log(), store.room_log()], &clock, store)
    }

    boxoffice_ports::room_contract!(make);
}

mod on_sqlite {
    use super::*;

    async fn make() -> RoomFixture {
        let (clock, folder) = (Arc::new(SystemClock::default()), tempfile::tempdir().unwrap());
        let store = sqlite_store(&folder, &clock);
        fixture(store.stores(), [store.room_log(), store.room_log()], &clock, folder)
    }

    boxoffice_ports::room_contract!(make);
}

mod on_postgres {
    use super::*;

    async fn make() -> RoomFixture {
        let (clock, url) = (Arc::new(SystemClock::default()), database());
        let (one, other) = (postgres_store(&url, &clock).await, postgres_store(&url, &clock).await);
        fixture(one.stores(), [one.room_log(), other.room_log()], &clock, other)
    }

    boxoffice_ports::room_contract!(make);
}

mod on_redis {
    use super::*;

    async fn make() -> RoomFixture {
        let clock = Arc::new(SystemClock::default());
        let store = postgres_store(&database(), &clock).await;
        let node = Node::shared();
        fixture(store.stores(), [redis_log(node, &clock), redis_log(node, &clock)], &clock, store)
    }

    boxoffice_ports::room_contract!(make);
}
