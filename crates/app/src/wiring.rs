//! Puts stores, engine and HTTP together. The only place that names concrete adapters.
//!
//! [`start`] makes a whole server inside this process, for `main` and for tests alike; what it cannot start it takes
//! down again. [`Running::stop`] goes the other way: requests in flight are answered, then the background ends after
//! the round it is in, then the store is closed.

#[cfg(feature = "sqlite")]
use crate::config::QueueBackend;
use crate::config::{Settings, StoreBackend, StrategyName};
use crate::http::{self, App, Bound};
use crate::season::{self, SeasonError};
use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use boxoffice_adapters::memory::{MemoryLock, MemoryStore, MemoryWaitingRoom};
#[cfg(feature = "sqlite")]
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_domain::Policy;
use boxoffice_engine::{
    Background, BackgroundSettings, Combining, CombiningSettings, Direct, Locked, Parts, RoomTeller, SeatView, Shows, Siblings,
    SingleFlight, Stats, Watched,
};
use boxoffice_ports::{Clock, Executor, Guard, Ids, Ledger, Source, Stores, Traffic, WaitingRoom};
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

mod scratch;

pub use boxoffice_adapters::clock::{SystemClock, SystemIds};
pub use scratch::{ScratchDatabase, service_versions};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] crate::config::ConfigError),
    #[error("{key} = \"{name}\" needs a build with the feature `{feature}`")]
    Lacking { key: &'static str, name: &'static str, feature: &'static str },
    /// For commands that work on what a server left, or beside it.
    #[error("store.backend = \"memory\" keeps nothing outside the server's own process")]
    NothingKept,
    #[error("store.sqlite_path: {0} does not exist")]
    NoStore(String),
    #[error("store.sqlite_path = \"{path}\": {source}")]
    Store { path: String, source: Source },
    #[error("store.postgres_url: a database of its own cannot be made there: {0}")]
    Scratch(#[source] Source),
    #[error("the waiting room cannot be opened: {0}")]
    Room(#[source] Source),
    #[error(transparent)]
    Season(#[from] SeasonError),
    #[error("the background work cannot start: {0}")]
    Background(#[source] Source),
    #[error(transparent)]
    Http(#[from] http::SetupError),
    #[error("http.listen: {listen} cannot be bound: {source}")]
    Bind { listen: SocketAddr, source: io::Error },
}

/// A server that serves.
pub struct Running {
    /// The bound address; with port 0 the one that was free.
    pub address: SocketAddr,
    pub settings: Arc<Settings>,
    pub clock: Arc<SystemClock>,
    /// The store's own ports, not watched by the engine.
    pub stores: Stores,
    pub room: Arc<dyn WaitingRoom>,
    pub stats: Arc<Stats>,
    /// What this server's adapters sent.
    pub traffic: Arc<Traffic>,
    pub executors: Executors,
    background: Background,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
    _open: Open,
}

/// What HTTP hands its commands to, one for each class.
#[derive(Clone)]
pub struct Executors {
    pub seat: Arc<dyn Executor>,
    pub wallet: Arc<dyn Executor>,
    pub payment: Arc<dyn Executor>,
}

/// Starts a server on `settings`, which are checked first.
pub async fn start(settings: Settings, clock: Arc<SystemClock>) -> Result<Running, StartError> {
    settings.check()?;
    let settings = Arc::new(settings);
    let traffic: Arc<Traffic> = Arc::default();
    let open = open(&settings, clock.clone()).await?;
    if settings.demo_season() {
        load_season(&settings, &open.stores).await?;
    }
    let engine = Engine::new(&open, &settings, clock.clone());
    let background = Background::start(engine.background_parts(), engine.background_settings(&settings));
    let background = background.await.map_err(StartError::Background)?;
    let parts = engine.http_parts(&settings);
    let executors = Executors { seat: parts.seat.clone(), wallet: parts.wallet.clone(), payment: parts.payment.clone() };
    let (server, address) = match bind(parts).await {
        Ok(Bound { server, addresses }) => (server, addresses.first().copied().unwrap_or(settings.http.listen)),
        Err(error) => {
            background.stop().await;
            return Err(error);
        }
    };
    announce(&settings, address);
    let handle = server.handle();
    let server = tokio::spawn(server);
    let Engine { stores, room, stats, .. } = engine;
    Ok(Running { address, settings, clock, stores, room, stats, traffic, executors, background, handle, server, _open: open })
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

    /// Answers what is in flight, then stops everything.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        if !self.server.is_finished()
            && let Err(error) = self.server.await
        {
            tracing::error!(%error, "the server did not end as it should");
        }
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
        "serving"
    );
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

/// What commands and reads go through.
struct Engine {
    stores: Stores,
    room: Arc<dyn WaitingRoom>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    policy: Arc<Policy>,
    stats: Arc<Stats>,
    seats: Arc<SeatView>,
    siblings: Arc<Siblings>,
    shows: Arc<Shows>,
    teller: Arc<RoomTeller>,
    /// The store's, watched.
    ledger: Arc<dyn Ledger>,
    /// To be at the ledger with one command: as many as it has connections for, whatever the strategies.
    permits: Arc<Semaphore>,
}

impl Engine {
    fn new(open: &Open, settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        let (stores, room) = (open.stores.clone(), open.room.clone());
        let seats = SeatView::new(stores.queries.clone(), clock.clone());
        let teller = RoomTeller::new(room.clone(), stores.queries.clone());
        let siblings = Siblings::start(None);
        let ledger = Watched::start(stores.ledger.clone(), seats.clone(), siblings.clone(), teller.clone());
        let shows = Shows::new(stores.queries.clone());
        let (ids, policy, stats) = (Arc::new(SystemIds), Arc::new(settings.policy()), Arc::default());
        let permits = Arc::new(Semaphore::new(settings.store.connection_count()));
        Self { stores, room, clock, ids, policy, stats, seats, siblings, shows, teller, ledger, permits }
    }

    fn background_parts(&self) -> Parts {
        Parts {
            stores: self.stores.clone(),
            ledger: self.ledger.clone(),
            room: self.room.clone(),
            shows: self.shows.clone(),
            seats: self.seats.clone(),
            siblings: self.siblings.clone(),
            teller: self.teller.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            policy: self.policy.clone(),
            stats: self.stats.clone(),
        }
    }

    fn background_settings(&self, settings: &Settings) -> BackgroundSettings {
        BackgroundSettings {
            tick: Duration::from_millis(settings.admission.tick_ms),
            sweep: Duration::from_millis(settings.hold.sweep_ms),
            stock_linked: settings.admission.stock_linked,
        }
    }

    fn http_parts(&self, settings: &Arc<Settings>) -> http::Parts {
        let strategy = &settings.strategy;
        let mut executors = HashMap::new();
        let mut named = |name| executors.entry(name).or_insert_with(|| self.executor(name, settings)).clone();
        http::Parts {
            seat: named(strategy.seat),
            wallet: named(strategy.wallet),
            payment: named(strategy.payment),
            settings: settings.clone(),
            policy: self.policy.clone(),
            stores: self.stores.clone(),
            ledger: self.ledger.clone(),
            room: self.room.clone(),
            seats: self.seats.clone(),
            shows: self.shows.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            stats: self.stats.clone(),
        }
    }

    /// A strategy serves all the classes it is named for, so that their commands share batches, or locks.
    fn executor(&self, name: StrategyName, settings: &Settings) -> Arc<dyn Executor> {
        let (strategy, wait) = (&settings.strategy, settings.strategy.wait());
        let (ledger, policy, stats) = (self.ledger.clone(), self.policy.clone(), self.stats.clone());
        let inner: Arc<dyn Executor> = match name {
            StrategyName::Combining => {
                let (lanes, batch_max, queue_max) = (settings.lane_count(), strategy.batch_max, strategy.queue_max);
                Combining::start(ledger, policy, CombiningSettings { lanes, batch_max, queue_max, wait }, stats)
            }
            StrategyName::Pessimistic => Direct::new(ledger, Guard::RowLock, policy, wait, self.permits.clone(), stats),
            StrategyName::Optimistic => Direct::new(ledger, Guard::Version, policy, wait, self.permits.clone(), stats),
            _ => Locked::new(Arc::new(MemoryLock::new()), ledger, policy, wait, self.permits.clone(), stats),
        };
        SingleFlight::new(inner, self.clock.clone(), wait)
    }
}

/// What HTTP is tested over: everything in memory, nothing in the background.
#[cfg(test)]
pub(crate) async fn parts_in_memory() -> http::Parts {
    let mut settings = Settings::defaults().expect("the defaults are valid");
    settings.store.backend = StoreBackend::Memory;
    let clock = Arc::new(SystemClock::default());
    let open = open(&settings, clock.clone()).await.expect("memory is there");
    Engine::new(&open, &settings, clock).http_parts(&Arc::new(settings))
}

/// An open store with its waiting rooms.
struct Open {
    stores: Stores,
    room: Arc<dyn WaitingRoom>,
    /// Keeps a second server off the same store.
    _serving: Option<Box<dyn Any + Send + Sync>>,
}

async fn open(settings: &Settings, clock: Arc<SystemClock>) -> Result<Open, StartError> {
    let active_ttl_s = settings.admission.active_ttl_s;
    match settings.store.backend {
        StoreBackend::Memory => {
            let stores = MemoryStore::new(clock.clone()).stores();
            Ok(Open { stores, room: Arc::new(MemoryWaitingRoom::new(clock, active_ttl_s)), _serving: None })
        }
        #[cfg(not(feature = "sqlite"))]
        StoreBackend::Sqlite => Err(lacking_store(StoreBackend::Sqlite)),
        StoreBackend::Postgres => Err(lacking_store(StoreBackend::Postgres)),
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => {
            let serving = sqlite::lock_for_serving(&settings.store.sqlite_path).map_err(store_error(settings))?;
            let store = open_sqlite(settings, clock.clone()).await?;
            let room = match settings.queue.backend {
                QueueBackend::Redis => return Err(lacking_queue(QueueBackend::Redis)),
                QueueBackend::Store => store.waiting_room(active_ttl_s).await.map_err(|error| StartError::Room(error.into()))?,
                QueueBackend::Memory => Arc::new(MemoryWaitingRoom::new(clock, active_ttl_s)),
            };
            Ok(Open { stores: store.stores(), room, _serving: Some(Box::new(serving)) })
        }
    }
}

/// A backend is refused by builds that lack the feature of its name.
fn lacking_store(backend: StoreBackend) -> StartError {
    StartError::Lacking { key: "store.backend", name: backend.name(), feature: backend.name() }
}

#[cfg(feature = "sqlite")]
fn lacking_queue(backend: QueueBackend) -> StartError {
    StartError::Lacking { key: "queue.backend", name: backend.name(), feature: backend.name() }
}

/// Brings the schema up to date; says which migrations that took.
pub async fn migrate(settings: &Settings) -> Result<Vec<String>, StartError> {
    match settings.store.backend {
        StoreBackend::Memory => Err(StartError::NothingKept),
        #[cfg(not(feature = "sqlite"))]
        StoreBackend::Sqlite => Err(lacking_store(StoreBackend::Sqlite)),
        StoreBackend::Postgres => Err(lacking_store(StoreBackend::Postgres)),
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => sqlite::migrate(&settings.store.sqlite_path).map_err(store_error(settings)),
    }
}

/// The store alone, for a command that works beside a running server. Created and migrated like a server's.
pub async fn open_stores(settings: &Settings) -> Result<Stores, StartError> {
    match settings.store.backend {
        StoreBackend::Memory => Err(StartError::NothingKept),
        #[cfg(not(feature = "sqlite"))]
        StoreBackend::Sqlite => Err(lacking_store(StoreBackend::Sqlite)),
        StoreBackend::Postgres => Err(lacking_store(StoreBackend::Postgres)),
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => Ok(open_sqlite(settings, Arc::new(SystemClock::default())).await?.stores()),
    }
}

/// [`open_stores`] for a command that only reads: a store that is not there, or whose schema is behind, stays so.
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
async fn open_sqlite(settings: &Settings, clock: Arc<SystemClock>) -> Result<Arc<SqliteStore>, StartError> {
    if settings.store.migrate_on_start {
        migrate(settings).await?;
    }
    let options = SqliteOptions { path: settings.store.sqlite_path.clone(), readers: settings.store.connection_count() };
    SqliteStore::open(options, clock).map_err(store_error(settings))
}

#[cfg(feature = "sqlite")]
fn store_error<E: Into<Source>>(settings: &Settings) -> impl FnOnce(E) -> StartError {
    let path = settings.store.sqlite_path.display().to_string();
    move |error| StartError::Store { path, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, load};
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    fn settings(set: &[&str]) -> Settings {
        let set = ["http.listen=127.0.0.1:0", "http.workers=1"].iter().chain(set).map(|key| (*key).to_owned()).collect();
        load(&Layers { set, ..Layers::default() }).unwrap()
    }

    async fn started(set: &[&str]) -> Result<Running, StartError> {
        start(settings(set), Arc::new(SystemClock::default())).await
    }

    /// The status line of an answer.
    async fn get(address: SocketAddr, path: &'static str) -> io::Result<String> {
        let call = move || {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.lines().next().unwrap_or_default().to_owned())
        };
        tokio::task::spawn_blocking(call).await.map_err(io::Error::other)?
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn server_answers_until_it_is_stopped() {
        let running = started(&["store.backend=memory", "demo.season=true"]).await.unwrap();
        let address = running.address;
        assert_eq!(get(address, "/health/live").await.unwrap(), "HTTP/1.1 200 OK");
        assert_eq!(get(address, "/api/v1/concerts").await.unwrap(), "HTTP/1.1 200 OK");
        assert_eq!(running.stores.queries.catalog().await.unwrap().len(), 3);
        running.stop().await;
        assert!(get(address, "/health/live").await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_strategy_starts_on_the_memory_store() {
        for strategy in ["combining", "pessimistic", "optimistic", "memory"] {
            let [seat, wallet, payment] = ["seat", "wallet", "payment"].map(|class| format!("strategy.{class}={strategy}"));
            let running = started(&["store.backend=memory", "strategy.lanes=2", &seat, &wallet, &payment]).await.unwrap();
            assert_eq!(get(running.address, "/health/ready").await.unwrap(), "HTTP/1.1 200 OK", "{strategy}");
            running.stop().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn address_in_use_is_named() {
        let running = started(&["store.backend=memory"]).await.unwrap();
        let listen = format!("http.listen={}", running.address);
        let refusal = started(&["store.backend=memory", &listen]).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("http.listen") && refusal.contains(&running.address.to_string()), "{refusal}");
        running.stop().await;
    }

    #[tokio::test]
    async fn commands_beside_a_server_need_a_store_that_lasts() {
        let memory = settings(&["store.backend=memory"]);
        assert!(matches!(open_stores(&memory).await, Err(StartError::NothingKept)));
        assert!(matches!(migrate(&memory).await, Err(StartError::NothingKept)));
    }

    #[cfg(not(feature = "sqlite"))]
    #[tokio::test]
    async fn sqlite_is_refused_by_a_build_without_it() {
        let refusal = started(&[]).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("feature `sqlite`"), "{refusal}");
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_file_serves_one_server_at_a_time_and_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("store.sqlite_path={}", folder.path().join("shop.db").display());
        assert!(matches!(open_existing_stores(&settings(&[&path])).await, Err(StartError::NoStore(_))));

        let first = started(&[&path]).await.unwrap();
        let season = first.stores.queries.catalog().await.unwrap();
        assert_eq!(season.len(), 3);
        assert!(started(&[&path]).await.is_err(), "a second server on the same file");
        let beside = open_existing_stores(&settings(&[&path])).await.unwrap();
        assert_eq!(beside.queries.catalog().await.unwrap(), season);
        drop(beside);
        first.stop().await;

        let second = started(&[&path]).await.unwrap();
        assert_eq!(second.stores.queries.catalog().await.unwrap(), season, "the season is loaded once");
        second.stop().await;
    }
}
