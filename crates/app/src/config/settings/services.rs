//! Redis, Kafka and RabbitMQ, and where events are sent.

use crate::config::values::SecretUrl;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// One node, the Sentinels of a node, or nodes of a cluster; empty: no Redis.
    pub urls: Vec<SecretUrl>,
    /// Nodes that are independent of one another.
    pub redlock_nodes: Vec<SecretUrl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSinkName {
    None,
    /// Standard output.
    Log,
    Kafka,
    Rabbitmq,
}

impl EventSinkName {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Log => "log",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas; empty: no Kafka.
    pub brokers: String,
    pub commands_topic: String,
    pub events_topic: String,
    pub partitions: u32,
    pub group: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqSettings {
    /// Empty: no RabbitMQ. Several nodes of a cluster are separated by commas.
    pub url: SecretUrl,
    pub commands_queue: String,
    pub events_exchange: String,
    pub shards: u32,
    pub queue_type: QueueTypeName,
}

/// The type of the queues that keep commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueTypeName {
    /// Quorum queues where the address names several nodes, else what the virtual host has by default.
    Auto,
    Classic,
    Quorum,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventsSettings {
    pub sink: EventSinkName,
}
