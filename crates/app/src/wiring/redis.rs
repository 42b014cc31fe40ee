//! What is kept in Redis: locks, waiting rooms, and the messages between instances. One connection carries all of it;
//! the nodes of `redlock` have their own.

use super::error::StartError;
use crate::config::{SecretUrl, Settings, StoreBackend, StrategyName};
use crate::http::{Health, Probe};
use boxoffice_adapters::redis::{Failure, PubSubLock, Redis, RedisFanout, RedisRoomLog, Redlock, SimpleLock, SpinLock};
use boxoffice_engine::Supervisor;
use boxoffice_ports::{Clock, Fanout, Lock, RoomLog, Traffic};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use std::sync::Arc;

/// See the module's opening.
pub(super) struct RedisParts {
    /// The one of `redis.urls`; nothing is sent before it is needed.
    shared: Option<Redis>,
    /// The nodes of `redis.redlock_nodes` with their addresses, if a strategy is `redlock`.
    nodes: Vec<(String, Redis)>,
    traffic: Arc<Traffic>,
    tasks: Arc<Supervisor>,
}

impl RedisParts {
    pub(super) fn open(settings: &Settings, traffic: &Arc<Traffic>, tasks: &Arc<Supervisor>) -> Result<Self, StartError> {
        let urls = &settings.redis.urls;
        let shared = (!urls.is_empty()).then(|| Redis::open(&exposed(urls), traffic.clone()));
        let shared = shared.transpose().map_err(failed("redis.urls"))?;
        let needed = settings.strategy.classes().into_iter().any(|(_, name)| name == StrategyName::Redlock);
        let node = |url: &SecretUrl| Ok((url.masked(), Redis::open(&[url.expose().to_owned()], traffic.clone())?));
        let nodes = settings.redis.redlock_nodes.iter().filter(|_| needed).map(node).collect::<Result<_, _>>();
        let nodes = nodes.map_err(failed("redis.redlock_nodes"))?;
        Ok(Self { shared, nodes, traffic: traffic.clone(), tasks: tasks.clone() })
    }

    /// `None` without Redis, and on a store that only one instance can use.
    pub(super) fn fanout(&self, settings: &Settings) -> Option<Arc<dyn Fanout>> {
        let redis = self.shared.clone().filter(|_| settings.store.backend == StoreBackend::Postgres);
        redis.map(|redis| Arc::new(RedisFanout::new(redis)) as Arc<dyn Fanout>)
    }

    /// The logs of the waiting rooms.
    pub(super) fn room_log(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn RoomLog>, StartError> {
        Ok(Arc::new(RedisRoomLog::new(self.shared()?, clock)))
    }

    /// The lock of a strategy that keeps its locks in Redis.
    pub(super) fn lock(&self, name: StrategyName, settings: &Settings) -> Result<Arc<dyn Lock>, StartError> {
        let lease = settings.strategy.lease();
        Ok(match name {
            StrategyName::Redlock => {
                let lock = Redlock::start(&exposed(&settings.redis.redlock_nodes), lease, self.traffic.clone(), &*self.tasks);
                Arc::new(lock.map_err(failed("redis.redlock_nodes"))?)
            }
            StrategyName::Simple => Arc::new(SimpleLock::new(self.shared()?, lease)),
            StrategyName::Spin => Arc::new(SpinLock::new(self.shared()?, lease)),
            _ => Arc::new(PubSubLock::start(self.shared()?, lease, &*self.tasks)),
        })
    }

    fn shared(&self) -> Result<Redis, StartError> {
        self.shared.clone().ok_or_else(|| failed("redis.urls")(Failure::Address("it names no Redis".to_owned())))
    }

    /// What readiness checks.
    pub(super) fn probes(&self, settings: &Settings) -> Vec<Arc<dyn Probe>> {
        let mut probes: Vec<Arc<dyn Probe>> = Vec::new();
        let locks = settings.strategy.classes().into_iter().any(|(_, name)| name.locks_in_redis());
        if let Some(redis) = self.shared.clone().filter(|_| locks) {
            probes.push(Arc::new(OneRedis(redis)));
        }
        if !self.nodes.is_empty() {
            probes.push(Arc::new(RedlockNodes(self.nodes.clone())));
        }
        probes
    }
}

fn exposed(urls: &[SecretUrl]) -> Vec<String> {
    urls.iter().map(|url| url.expose().to_owned()).collect()
}

fn failed(key: &'static str) -> impl FnOnce(Failure) -> StartError {
    move |failure| StartError::Redis { key, source: failure.into() }
}

/// The locks of `simple`, `spin` and `pubsub`.
struct OneRedis(Redis);

impl Probe for OneRedis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn check(&self) -> BoxFuture<'_, Health> {
        async { self.0.ping().await.map_or_else(|failure| Health::Failed(failure.into()), |()| Health::Good) }.boxed()
    }
}

/// The locks of `redlock`, which work while most of the nodes do.
struct RedlockNodes(Vec<(String, Redis)>);

impl Probe for RedlockNodes {
    fn name(&self) -> &'static str {
        "redlock"
    }

    fn check(&self) -> BoxFuture<'_, Health> {
        async {
            let answers = join_all(self.0.iter().map(|(_, node)| node.ping())).await;
            let down: Vec<_> =
                self.0.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|((url, _), _)| url.as_str()).collect();
            Health::of_nodes(self.0.len(), &down)
        }
        .boxed()
    }
}
