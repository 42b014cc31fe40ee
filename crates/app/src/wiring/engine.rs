//! What runs between HTTP and the store: the configured strategies, the views, the background.

use super::beacon::{self, BeaconProbe};
use super::error::StartError;
use super::stores::Open;
use crate::config::{Settings, StrategyName};
use crate::http::{self, Probe};
use boxoffice_adapters::clock::SystemIds;
use boxoffice_adapters::http_beacon::HttpBeacon;
use boxoffice_adapters::memory::MemoryLock;
use boxoffice_domain::Policy;
use boxoffice_engine::{
    BackgroundParts, BackgroundSettings, Catalogue, Combining, CombiningSettings, Direct, HoldReturns, KnownHolds, Locked, ObservedLedger,
    Peers, Queued, QueuedParts, QueuedSettings, Rooms, RoomsParts, SeatView, ServerHealth, SingleFlight, Stats, StoreTime, Supervisor,
    TurnEnds,
};
use boxoffice_ports::{Beacon, Executor, Guard, Ids, InstanceId, Ledger, Lock, Stores, Traffic};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

pub(super) struct Engine<'a> {
    open: &'a Open,
    pub(super) stores: Stores,
    pub(super) room: Arc<Rooms>,
    beacon: Option<Arc<HttpBeacon>>,
    clock: Arc<StoreTime>,
    ids: Arc<dyn Ids>,
    instance: InstanceId,
    policy: Arc<Policy>,
    pub(super) stats: Arc<Stats>,
    pub(super) tasks: Arc<Supervisor>,
    traffic: Arc<Traffic>,
    pub(super) seats: Arc<SeatView>,
    peers: Arc<Peers>,
    catalogue: Arc<Catalogue>,
    turns: Arc<TurnEnds>,
    holds: Arc<KnownHolds>,
    returns: Arc<HoldReturns>,
    server_health: Arc<ServerHealth>,
    /// The store's, with the engine's views following what it commits.
    ledger: Arc<dyn Ledger>,
    /// One for each command that is decided alone: as many as the ledger has connections for, over all strategies.
    permits: Arc<Semaphore>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(open: &'a Open, settings: &Settings, clock: Arc<StoreTime>, traffic: Arc<Traffic>, tasks: Arc<Supervisor>) -> Self {
        let stores = open.stores.clone();
        let instance = InstanceId(SystemIds.fresh());
        let beacon = beacon::open(settings);
        let room = Rooms::new(RoomsParts {
            log: open.room_log.clone(),
            mirror: stores.mirror.clone(),
            secrets: stores.secrets.clone(),
            clock: clock.clone(),
            beacon: beacon.clone().map(|beacon| beacon as Arc<dyn Beacon>),
            instance,
            settings: settings.rooms(),
        });
        let seats = SeatView::new(stores.queries.clone(), clock.clone());
        let catalogue = Catalogue::new(stores.queries.clone());
        let turns = TurnEnds::new(room.clone(), catalogue.clone(), settings.admission.room_wait());
        let peers = Peers::start(open.redis.fanout(settings), &*tasks);
        let holds = Arc::<KnownHolds>::default();
        let ledger = ObservedLedger::new(stores.ledger.clone(), seats.clone(), peers.clone(), turns.clone(), holds.clone());
        let (ids, policy, stats) = (Arc::new(SystemIds), Arc::new(settings.policy()), Arc::default());
        let returns = HoldReturns::new(ledger.clone(), stores.queries.clone(), ids.clone(), policy.clone());
        let permits = Arc::new(Semaphore::new(settings.store.commands_at_once()));
        Self {
            open,
            stores,
            room,
            beacon,
            clock,
            ids,
            instance,
            policy,
            stats,
            tasks,
            traffic,
            seats,
            peers,
            catalogue,
            turns,
            holds,
            returns,
            server_health: Arc::default(),
            ledger,
            permits,
        }
    }

    pub(super) fn background_parts(&self) -> BackgroundParts {
        BackgroundParts {
            instance: self.instance,
            sink: self.open.brokers.sink(),
            stores: self.stores.clone(),
            ledger: self.ledger.clone(),
            room: self.room.clone(),
            catalogue: self.catalogue.clone(),
            seats: self.seats.clone(),
            peers: self.peers.clone(),
            turns: self.turns.clone(),
            returns: self.returns.clone(),
            server_health: self.server_health.clone(),
            time: self.clock.clone(),
            ids: self.ids.clone(),
            policy: self.policy.clone(),
            stats: self.stats.clone(),
            tasks: self.tasks.clone(),
        }
    }

    pub(super) fn background_settings(&self, settings: &Settings) -> BackgroundSettings {
        BackgroundSettings {
            tick: Duration::from_millis(settings.admission.tick_ms),
            sweep: Duration::from_millis(settings.hold.sweep_ms),
            stock_linked: settings.admission.stock_linked,
        }
    }

    pub(super) async fn http_parts(&self, settings: &Arc<Settings>) -> Result<http::Parts, StartError> {
        let (strategy, mut made) = (&settings.strategy, HashMap::new());
        Ok(http::Parts {
            seat: self.named(strategy.seat, settings, &mut made).await?,
            wallet: self.named(strategy.wallet, settings, &mut made).await?,
            payment: self.named(strategy.payment, settings, &mut made).await?,
            settings: settings.clone(),
            policy: self.policy.clone(),
            stores: self.stores.clone(),
            ledger: self.ledger.clone(),
            room: self.room.clone(),
            rooms: self.room.clone(),
            returns: self.returns.clone(),
            turns: self.turns.clone(),
            holds: self.holds.clone(),
            server_health: self.server_health.clone(),
            seats: self.seats.clone(),
            catalogue: self.catalogue.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            stats: self.stats.clone(),
            tasks: self.tasks.clone(),
            traffic: self.traffic.clone(),
            probes: self
                .open
                .redis
                .probes(settings)
                .into_iter()
                .chain(self.open.brokers.probes())
                .chain(self.beacon.clone().map(|beacon| Arc::new(BeaconProbe(beacon)) as Arc<dyn Probe>))
                .collect(),
        })
    }

    /// One executor serves all the classes that name a strategy, so that their commands share batches, locks or a log.
    async fn named(
        &self,
        name: StrategyName,
        settings: &Settings,
        made: &mut HashMap<StrategyName, Arc<dyn Executor>>,
    ) -> Result<Arc<dyn Executor>, StartError> {
        if let Some(executor) = made.get(&name) {
            return Ok(executor.clone());
        }
        let executor = self.executor(name, settings).await?;
        made.insert(name, executor.clone());
        Ok(executor)
    }

    async fn executor(&self, name: StrategyName, settings: &Settings) -> Result<Arc<dyn Executor>, StartError> {
        let strategy = &settings.strategy;
        let (ledger, policy, stats, permits) = (self.ledger.clone(), self.policy.clone(), self.stats.clone(), self.permits.clone());
        let locked = |lock: Arc<dyn Lock>| Locked::new(lock, ledger.clone(), policy.clone(), permits.clone(), stats.clone());
        let direct = |guard| Direct::new(ledger.clone(), guard, policy.clone(), permits.clone(), stats.clone());
        let inner: Arc<dyn Executor> = match name {
            StrategyName::Combining => {
                let (lanes, batch_max, queue_max) = (settings.lane_count(), strategy.batch_max, strategy.queue_max);
                Combining::start(ledger, policy, CombiningSettings { lanes, batch_max, queue_max }, stats, &*self.tasks)
            }
            StrategyName::Pessimistic => direct(Guard::RowLock),
            StrategyName::Optimistic => direct(Guard::Version),
            StrategyName::Kafka | StrategyName::Rabbitmq => {
                let (batch_max, backlog_max) = (strategy.batch_max, strategy.backlog_max);
                let queued = QueuedSettings { batch_max, backlog_max, wait: strategy.wait(), retention: settings.command_retention() };
                let log = self.open.brokers.log(name)?;
                let (clock, instance) = (self.clock.clone(), self.instance);
                let parts = QueuedParts { log, ledger, policy, clock, instance, stats };
                Queued::start(parts, queued, &*self.tasks).await.map_err(StartError::Log)?
            }
            StrategyName::Memory => locked(Arc::new(MemoryLock::new())),
            StrategyName::Simple | StrategyName::Spin | StrategyName::Pubsub | StrategyName::Redlock => {
                locked(self.open.redis.lock(name, settings)?)
            }
        };
        Ok(SingleFlight::new(inner, self.clock.clone()))
    }
}
