//! The concurrency strategies, by name, and their bounds.

use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    Combining,
    Simple,
    Spin,
    Pubsub,
    Redlock,
    Pessimistic,
    Optimistic,
    Memory,
    Kafka,
    Rabbitmq,
}

impl StrategyName {
    pub const ALL: [Self; 10] = [
        Self::Combining,
        Self::Simple,
        Self::Spin,
        Self::Pubsub,
        Self::Redlock,
        Self::Pessimistic,
        Self::Optimistic,
        Self::Memory,
        Self::Kafka,
        Self::Rabbitmq,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Combining => "combining",
            Self::Simple => "simple",
            Self::Spin => "spin",
            Self::Pubsub => "pubsub",
            Self::Redlock => "redlock",
            Self::Pessimistic => "pessimistic",
            Self::Optimistic => "optimistic",
            Self::Memory => "memory",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }

    /// Whether commands wait in a log outside this process, and may be answered before they are decided.
    pub fn keeps_a_log(self) -> bool {
        matches!(self, Self::Kafka | Self::Rabbitmq)
    }

    /// Whether its locks are kept in the one Redis of `redis.urls`.
    pub fn locks_in_redis(self) -> bool {
        matches!(self, Self::Simple | Self::Spin | Self::Pubsub)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StrategySettings {
    pub seat: StrategyName,
    pub wallet: StrategyName,
    pub payment: StrategyName,
    pub wait_ms: u64,
    pub lease_ms: u64,
    pub batch_max: usize,
    /// 0: as many as the store can use. Use `Settings::lane_count`.
    pub lanes: usize,
    pub queue_max: usize,
    pub backlog_max: usize,
}

impl StrategySettings {
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The key of the first class that has this strategy.
    pub fn class_with(&self, name: StrategyName) -> Option<&'static str> {
        self.classes().into_iter().find(|(_, one)| *one == name).map(|(key, _)| key)
    }

    /// The key of each class of operations, with its strategy.
    pub fn classes(&self) -> [(&'static str, StrategyName); 3] {
        [("strategy.seat", self.seat), ("strategy.wallet", self.wallet), ("strategy.payment", self.payment)]
    }
}
