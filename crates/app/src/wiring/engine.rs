//! What runs between HTTP and the store: the strategies as they are named, the views, the background.

use super::stores::Open;
use super::{StartError, SystemIds};
use crate::config::{Settings, StrategyName};
use crate::http;
use boxoffice_adapters::memory::MemoryLock;
use boxoffice_domain::Policy;
use boxoffice_engine::{
    BackgroundSettings, Combining, CombiningSettings, Direct, Locked, Parts, RoomTeller, SeatView, Shows, Siblings, SingleFlight, Stats,
    Watched,
};
use boxoffice_ports::{Clock, Executor, Guard, Ids, InstanceId, Ledger, Lock, Stores, Traffic, WaitingRoom};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

pub(super) struct Engine<'a> {
    open: &'a Open,
    pub(super) stores: Stores,
    pub(super) room: Arc<dyn WaitingRoom>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    policy: Arc<Policy>,
    pub(super) stats: Arc<Stats>,
    traffic: Arc<Traffic>,
    pub(super) seats: Arc<SeatView>,
    siblings: Arc<Siblings>,
    shows: Arc<Shows>,
    teller: Arc<RoomTeller>,
    /// The store's, watched.
    ledger: Arc<dyn Ledger>,
    /// To be at the ledger with one command: as many as it has connections for, whatever the strategies.
    permits: Arc<Semaphore>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(open: &'a Open, settings: &Settings, clock: Arc<dyn Clock>, traffic: Arc<Traffic>) -> Self {
        let (stores, room) = (open.stores.clone(), open.room.clone());
        let seats = SeatView::new(stores.queries.clone(), clock.clone());
        let teller = RoomTeller::new(room.clone(), stores.queries.clone());
        let siblings = Siblings::start(open.redis.fanout(settings));
        let ledger = Watched::start(stores.ledger.clone(), seats.clone(), siblings.clone(), teller.clone());
        let shows = Shows::new(stores.queries.clone());
        let (ids, policy, stats) = (Arc::new(SystemIds), Arc::new(settings.policy()), Arc::default());
        let permits = Arc::new(Semaphore::new(settings.store.commands_at_once()));
        Self { open, stores, room, clock, ids, policy, stats, traffic, seats, siblings, shows, teller, ledger, permits }
    }

    pub(super) fn background_parts(&self) -> Parts {
        Parts {
            instance: InstanceId(self.ids.fresh()),
            sink: None,
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

    pub(super) fn background_settings(&self, settings: &Settings) -> BackgroundSettings {
        BackgroundSettings {
            tick: Duration::from_millis(settings.admission.tick_ms),
            sweep: Duration::from_millis(settings.hold.sweep_ms),
            stock_linked: settings.admission.stock_linked,
        }
    }

    pub(super) fn http_parts(&self, settings: &Arc<Settings>) -> Result<http::Parts, StartError> {
        let strategy = &settings.strategy;
        let mut executors = HashMap::new();
        // A strategy serves all the classes it is named for, so that their commands share batches, or locks.
        let mut named = |name| match executors.entry(name) {
            Entry::Occupied(entry) => Ok::<_, StartError>(Arc::clone(entry.get())),
            Entry::Vacant(entry) => Ok(entry.insert(self.executor(name, settings)?).clone()),
        };
        Ok(http::Parts {
            seat: named(strategy.seat)?,
            wallet: named(strategy.wallet)?,
            payment: named(strategy.payment)?,
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
            traffic: self.traffic.clone(),
            probes: self.open.redis.probes(settings),
        })
    }

    fn executor(&self, name: StrategyName, settings: &Settings) -> Result<Arc<dyn Executor>, StartError> {
        let (strategy, wait) = (&settings.strategy, settings.strategy.wait());
        let (ledger, policy, stats, permits) = (self.ledger.clone(), self.policy.clone(), self.stats.clone(), self.permits.clone());
        let locked = |lock: Arc<dyn Lock>| Locked::new(lock, ledger.clone(), policy.clone(), wait, permits.clone(), stats.clone());
        let direct = |guard| Direct::new(ledger.clone(), guard, policy.clone(), wait, permits.clone(), stats.clone());
        let inner: Arc<dyn Executor> = match name {
            StrategyName::Combining => {
                let (lanes, batch_max, queue_max) = (settings.lane_count(), strategy.batch_max, strategy.queue_max);
                Combining::start(ledger, policy, CombiningSettings { lanes, batch_max, queue_max, wait }, stats)
            }
            StrategyName::Pessimistic => direct(Guard::RowLock),
            StrategyName::Optimistic => direct(Guard::Version),
            StrategyName::Kafka | StrategyName::Rabbitmq => {
                return Err(StartError::Lacking { key: "strategy", name: name.name(), feature: name.name() });
            }
            StrategyName::Memory => locked(Arc::new(MemoryLock::new())),
            StrategyName::Simple | StrategyName::Spin | StrategyName::Pubsub | StrategyName::Redlock => {
                locked(self.open.redis.lock(name, settings)?)
            }
        };
        Ok(SingleFlight::new(inner, self.clock.clone(), wait))
    }
}
