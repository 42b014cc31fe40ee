//! Stands in for Redis in a build without it: every setting that needs Redis is refused, by name.

use super::error::StartError;
use crate::config::{QueueBackend, Settings, StrategyName};
use crate::http::Probe;
use boxoffice_engine::Supervisor;
use boxoffice_ports::{Clock, Fanout, Lock, RoomLog, Traffic};
use std::sync::Arc;

pub(super) struct RedisParts;

impl RedisParts {
    pub(super) fn open(settings: &Settings, _: &Arc<Traffic>, _: &Arc<Supervisor>) -> Result<Self, StartError> {
        let needs_redis = |name: StrategyName| name.locks_in_redis() || name == StrategyName::Redlock;
        if settings.queue.backend == QueueBackend::Redis {
            return Err(lacking("queue.backend", settings.queue.backend.name()));
        }
        match settings.strategy.classes().into_iter().find(|(_, name)| needs_redis(*name)) {
            Some((key, name)) => Err(lacking(key, name.name())),
            // Without it, instances would not publish their changes to their peers.
            None if !settings.redis.urls.is_empty() => Err(lacking("redis.urls", "redis://…")),
            None => Ok(Self),
        }
    }

    pub(super) fn fanout(&self, _: &Settings) -> Option<Arc<dyn Fanout>> {
        None
    }

    pub(super) fn room_log(&self, _: Arc<dyn Clock>) -> Result<Arc<dyn RoomLog>, StartError> {
        Err(lacking("queue.backend", QueueBackend::Redis.name()))
    }

    pub(super) fn lock(&self, name: StrategyName, _: &Settings) -> Result<Arc<dyn Lock>, StartError> {
        Err(lacking("strategy", name.name()))
    }

    pub(super) fn probes(&self, _: &Settings) -> Vec<Arc<dyn Probe>> {
        Vec::new()
    }
}

fn lacking(key: &'static str, name: &'static str) -> StartError {
    StartError::Lacking { key, name, feature: "redis" }
}
