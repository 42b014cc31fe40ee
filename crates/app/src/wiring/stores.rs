//! The store as it is configured, with its waiting rooms: for a server, and for commands that work beside one.
//!
//! A build without a store's feature refuses it by name.

use super::brokers::BrokerParts;
use super::error::StartError;
use super::redis::RedisParts;
use crate::config::{QueueBackend, Settings, StoreBackend};
use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::memory::MemoryStore;
#[cfg(feature = "postgres")]
use boxoffice_adapters::postgres::{self, PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_engine::Supervisor;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use boxoffice_ports::Source;
use boxoffice_ports::{RoomLog, Stores, Traffic};
use std::any::Any;
use std::sync::Arc;

/// An open store, with the logs of its waiting rooms.
pub(super) struct Open {
    pub(super) stores: Stores,
    pub(super) room_log: Arc<dyn RoomLog>,
    pub(super) redis: RedisParts,
    pub(super) brokers: BrokerParts,
    /// Keeps a second server off a store that only one can use.
    _serving: Option<Box<dyn Any + Send + Sync>>,
}

/// Opens what a server needs, and migrates the store if the configuration allows it.
pub(super) async fn open(
    settings: &Settings,
    clock: Arc<SystemClock>,
    traffic: &Arc<Traffic>,
    tasks: &Arc<Supervisor>,
) -> Result<Open, StartError> {
    let redis = RedisParts::open(settings, traffic, tasks)?;
    let brokers = BrokerParts::open(settings, traffic, tasks).await?;
    let in_memory = || MemoryStore::new(clock.clone()).room_log();
    let elsewhere = match settings.queue.backend {
        QueueBackend::Store => None,
        QueueBackend::Memory => Some(in_memory()),
        QueueBackend::Redis => Some(redis.room_log(clock.clone())?),
    };
    let (stores, own, serving): (_, _, Option<Box<dyn Any + Send + Sync>>) = match settings.store.backend {
        StoreBackend::Memory => {
            let store = MemoryStore::new(clock.clone());
            (store.stores(), store.room_log(), None)
        }
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => {
            let serving = sqlite::lock_for_serving(&settings.store.sqlite_path).map_err(store_error(settings))?;
            let store = open_sqlite(settings, clock.clone(), tasks).await?;
            (store.stores(), store.room_log(), Some(Box::new(serving)))
        }
        #[cfg(feature = "postgres")]
        StoreBackend::Postgres => {
            let store = open_postgres(settings, clock.clone(), traffic).await?;
            (store.stores(), store.room_log(), None)
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        lacking => return Err(lacking_store(lacking)),
    };
    let room_log = elsewhere.unwrap_or(own);
    Ok(Open { stores, room_log, redis, brokers, _serving: serving })
}

/// Brings the schema up to date; returns the names of the migrations that were applied.
pub async fn migrate(settings: &Settings) -> Result<Vec<String>, StartError> {
    match settings.store.backend {
        StoreBackend::Memory => Err(StartError::NothingKept),
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => sqlite::migrate(&settings.store.sqlite_path).map_err(store_error(settings)),
        #[cfg(feature = "postgres")]
        StoreBackend::Postgres => {
            let url = settings.store.postgres_url.expose().to_owned();
            // It blocks, and of several instances all but one wait for the advisory lock.
            let applied = tokio::task::spawn_blocking(move || postgres::migrate(&url)).await;
            applied.map_err(store_error(settings))?.map_err(store_error(settings))
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        lacking => Err(lacking_store(lacking)),
    }
}

/// The store alone, for a command that works beside a running server. Created and migrated like a server's.
pub async fn open_stores(settings: &Settings) -> Result<Stores, StartError> {
    match settings.store.backend {
        StoreBackend::Memory => Err(StartError::NothingKept),
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => Ok(open_sqlite(settings, Arc::new(SystemClock::default()), &Supervisor::new()).await?.stores()),
        #[cfg(feature = "postgres")]
        StoreBackend::Postgres => Ok(open_postgres(settings, Arc::new(SystemClock::default()), &Arc::default()).await?.stores()),
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        lacking => Err(lacking_store(lacking)),
    }
}

/// [`open_stores`] for a command that only reads: it creates no store and migrates none.
pub async fn open_existing_stores(settings: &Settings) -> Result<Stores, StartError> {
    let store = &settings.store;
    if store.backend == StoreBackend::Sqlite && !store.sqlite_path.exists() {
        return Err(StartError::NoStore(store.sqlite_path.display().to_string()));
    }
    let mut settings = settings.clone();
    settings.store.migrate_on_start = false;
    open_stores(&settings).await
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(settings: &Settings, clock: Arc<SystemClock>, tasks: &Arc<Supervisor>) -> Result<Arc<SqliteStore>, StartError> {
    if settings.store.migrate_on_start {
        migrate(settings).await?;
    }
    let options = SqliteOptions { path: settings.store.sqlite_path.clone(), readers: settings.store.connection_count() };
    SqliteStore::open(options, clock, &**tasks).map_err(store_error(settings))
}

#[cfg(feature = "postgres")]
async fn open_postgres(settings: &Settings, clock: Arc<SystemClock>, traffic: &Arc<Traffic>) -> Result<Arc<PostgresStore>, StartError> {
    if settings.store.migrate_on_start {
        migrate(settings).await?;
    }
    let options = PostgresOptions {
        url: settings.store.postgres_url.expose().to_owned(),
        connections: settings.store.connection_count(),
        lanes: settings.lane_count(),
        traffic: traffic.clone(),
    };
    PostgresStore::open(options, clock).await.map_err(store_error(settings))
}

/// A build without the feature of a store's name refuses that store.
#[cfg(not(all(feature = "sqlite", feature = "postgres")))]
fn lacking_store(backend: StoreBackend) -> StartError {
    StartError::Lacking { key: "store.backend", name: backend.name(), feature: backend.name() }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn store_error<E: Into<Source>>(settings: &Settings) -> impl FnOnce(E) -> StartError {
    let key = match settings.store.backend {
        StoreBackend::Postgres => "store.postgres_url",
        StoreBackend::Sqlite | StoreBackend::Memory => "store.sqlite_path",
    };
    let place = settings.store.place();
    move |error| StartError::Store { key, place, source: error.into() }
}
