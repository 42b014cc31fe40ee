//! Puts stores, engine and HTTP together. The only place that names concrete adapters.
//!
//! [`start`] makes a whole server inside this process, for `main` and for tests alike; if a part cannot start, the
//! parts before it are stopped. [`Running::stop`] goes the other way: requests in flight are answered, then the
//! background ends after its current round, then the store is closed.
//!
//! # Layout
//!
//! * [`stores`]: the store and its waiting rooms, for servers and for commands beside them. [`redis`]: what is kept in
//!   Redis, or refused by a build without it. [`brokers`]: the same for Kafka and RabbitMQ. [`beacon`]: the public
//!   randomness of draws.
//! * [`engine`]: strategies, and what runs between HTTP and the store.
//! * [`error`]: why a server cannot start. [`scratch`]: what comparisons need of the services.

mod beacon;
mod brokers;
mod engine;
mod error;
#[cfg(feature = "redis")]
mod redis;
#[cfg(not(feature = "redis"))]
#[path = "wiring/no_redis.rs"]
mod redis;
mod scratch;
mod stores;

use crate::config::{QueueBackend, Settings, StoreBackend, StrategyName};
use crate::crypto;
use crate::http::{self, App, Bound};
use crate::season::{self, SeasonError};
use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use boxoffice_engine::push::Hub;
use boxoffice_engine::{Background, Rooms, SeatView, Stats, StoreTime, Supervisor};
#[cfg(test)]
use boxoffice_ports::RoomLog;
use boxoffice_ports::{Deadline, Executor, Stores, Traffic};
use engine::Engine;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stores::Open;
use tokio::task::JoinHandle;

pub use boxoffice_adapters::clock::{SystemClock, SystemIds};
pub use error::StartError;
pub use scratch::{ScratchDatabase, ScratchLog, service_versions};
pub use stores::{migrate, open_existing_stores, open_stores};

/// A server that has started.
pub struct Running {
    /// The bound address; with port 0 the one that was free.
    pub address: SocketAddr,
    pub settings: Arc<Settings>,
    pub clock: Arc<SystemClock>,
    /// The store's own ports, without the engine's views around them.
    pub stores: Stores,
    pub room: Arc<Rooms>,
    /// This instance's view of the seat maps.
    pub seats: Arc<SeatView>,
    pub stats: Arc<Stats>,
    /// Counts what this server's adapters sent.
    pub traffic: Arc<Traffic>,
    pub executors: Executors,
    /// The tasks that live as long as this server.
    pub tasks: Arc<Supervisor>,
    hub: Arc<Hub>,
    background: Background,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
    _open: Open,
}

/// One executor for each class of operations.
#[derive(Clone)]
pub struct Executors {
    pub seat: Arc<dyn Executor>,
    pub wallet: Arc<dyn Executor>,
    pub payment: Arc<dyn Executor>,
    /// How long a request may take.
    pub wait: Duration,
}

impl Executors {
    /// The deadline of a request that arrives now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.wait)
    }
}

/// Checks `settings`, then starts a server on them.
pub async fn start(settings: Settings, clock: Arc<SystemClock>) -> Result<Running, StartError> {
    settings.check()?;
    crypto::install();
    // Boxed: the future of a whole start is too large for a caller's stack.
    Box::pin(start_checked(Arc::new(settings), clock)).await
}

async fn start_checked(settings: Arc<Settings>, clock: Arc<SystemClock>) -> Result<Running, StartError> {
    let (traffic, tasks): (Arc<Traffic>, _) = (Arc::default(), Supervisor::new());
    let open = stores::open(&settings, clock.clone(), &traffic, &tasks).await?;
    if settings.demo_season() {
        load_season(&settings, &open.stores).await?;
    }
    let time = StoreTime::start(open.stores.queries.clone(), clock.clone()).await.map_err(|error| StartError::Background(error.into()))?;
    let engine = Engine::new(&open, &settings, time, traffic.clone(), tasks.clone());
    let parts = engine.http_parts(&settings).await?;
    let background = Background::start(engine.background_parts(), engine.background_settings(&settings));
    let background = background.await.map_err(StartError::Background)?;
    let (seat, wallet, payment) = (parts.seat.clone(), parts.wallet.clone(), parts.payment.clone());
    let executors = Executors { seat, wallet, payment, wait: settings.strategy.wait() };
    let Bound { server, address, hub } = match bind(parts).await {
        Ok(bound) => bound,
        Err(error) => {
            background.stop().await;
            return Err(error);
        }
    };
    announce(&settings, address);
    let handle = server.handle();
    let server = tokio::spawn(server);
    let Engine { stores, room, seats, stats, .. } = engine;
    Ok(Running {
        address,
        settings,
        clock,
        stores,
        room,
        seats,
        stats,
        traffic,
        executors,
        tasks,
        hub,
        background,
        handle,
        server,
        _open: open,
    })
}

async fn bind(parts: http::Parts) -> Result<Bound, StartError> {
    let listen = parts.settings.http.listen;
    let app = App::build(parts).await?;
    http::bind(Data::new(app)).map_err(|source| StartError::Bind { listen, source })
}

impl Running {
    /// Returns when the server has ended without [`Running::stop`].
    pub async fn ended(&mut self) -> io::Result<()> {
        (&mut self.server).await.map_err(io::Error::other)?
    }

    /// Answers the requests in flight, then stops everything.
    pub async fn stop(self) {
        self.hub.close();
        self.handle.stop(true).await;
        if !self.server.is_finished()
            && let Err(error) = self.server.await
        {
            tracing::error!(%error, "the HTTP server ended with an error");
        }
        self.tasks.close();
        self.background.stop().await;
    }
}

fn announce(settings: &Settings, address: SocketAddr) {
    let Settings { store, queue, strategy, .. } = settings;
    tracing::info!(
        %address,
        store = store.backend.name(),
        store.place = store.place(),
        queue = queue.backend.name(),
        strategy.seat = strategy.seat.name(),
        strategy.wallet = strategy.wallet.name(),
        strategy.payment = strategy.payment.name(),
        auth.mode = ?settings.auth.mode,
        redis.urls = ?settings.redis.urls,
        events.sink = settings.events.sink.name(),
        "serving"
    );
    for warning in warnings(settings) {
        tracing::warn!("{warning}");
    }
}

/// Settings that are allowed, and may surprise.
fn warnings(settings: &Settings) -> Vec<String> {
    let Settings { store, queue, redis, strategy, .. } = settings;
    let mut warnings = Vec::new();
    if store.backend == StoreBackend::Postgres {
        if queue.backend == QueueBackend::Memory {
            warnings.push("queue.backend = \"memory\": each instance has waiting rooms of its own, and each admits by itself".to_owned());
        }
        if let Some((key, _)) = strategy.classes().into_iter().find(|(_, name)| *name == StrategyName::Memory) {
            warnings.push(format!("{key} = \"memory\": each instance has locks of its own; between instances the store alone decides"));
        }
    }
    let redlock = strategy.classes().into_iter().any(|(_, name)| name == StrategyName::Redlock);
    if redlock && redis.redlock_nodes.len().is_multiple_of(2) {
        warnings.push("redis.redlock_nodes: an even number of nodes tolerates no more failures than one node fewer".to_owned());
    }
    warnings
}

async fn load_season(settings: &Settings, stores: &Stores) -> Result<(), StartError> {
    match season::load(stores, settings.default_admission(), settings.money.amount_max).await {
        Ok(true) => tracing::info!("the store was empty: the demo season is loaded"),
        Ok(false) => {}
        Err(SeasonError::Unfit(fault)) => {
            tracing::warn!(field = fault.field, reason = fault.reason, "the demo season does not fit the configuration and is not loaded");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Parts for tests of HTTP: everything in memory, nothing in the background.
#[cfg(test)]
pub(crate) async fn parts_in_memory() -> http::Parts {
    parts_over("combining", |_, _| {}).await
}

/// The same with a strategy for all classes, over what `change` makes of the store's ports.
#[cfg(test)]
pub(crate) async fn parts_over(strategy: &str, change: impl FnOnce(&mut Stores, &mut Arc<dyn RoomLog>)) -> http::Parts {
    crypto::install();
    let set = ["seat", "wallet", "payment"].map(|class| format!("strategy.{class}={strategy}"));
    let set = set.into_iter().chain(["store.backend=memory".to_owned()]).collect();
    let settings = crate::config::load(&crate::config::Layers { set, ..Default::default() }).expect("they are valid");
    let (clock, traffic, tasks) = (Arc::new(SystemClock::default()), Arc::default(), Supervisor::new());
    let mut open = stores::open(&settings, clock.clone(), &traffic, &tasks).await.expect("memory is there");
    change(&mut open.stores, &mut open.room_log);
    let time = StoreTime::start(open.stores.queries.clone(), clock).await.expect("memory answers");
    Engine::new(&open, &settings, time, traffic, tasks).http_parts(&Arc::new(settings)).await.expect("it needs no service")
}

#[cfg(test)]
mod tests;
