//! Why something did not work in Kafka.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why Kafka cannot be used, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the Kafka client refuses its settings: {0}")]
    Settings(#[source] KafkaError),
    #[error("the Kafka brokers cannot be reached, or refused a request: {0}")]
    Unreachable(#[source] KafkaError),
    #[error("topic {topic} cannot be created or deleted: {reason}")]
    Topic { topic: String, reason: RDKafkaErrorCode },
    #[error("topic {topic} has {has} partitions, fewer than the {wanted} that are configured; partitions can be added to it")]
    Partitions { topic: String, has: usize, wanted: u32 },
    #[error("topic {topic} has partitions without a leader")]
    Leaderless { topic: String },
    #[error("a command or an answer cannot be serialized: {0}")]
    Unwritable(#[from] serde_json::Error),
    #[error("{0} messages wait to be sent to the Kafka brokers; no more are accepted")]
    Full(usize),
    #[error("timed out after {0:?} waiting for the Kafka brokers to acknowledge")]
    Silent(Duration),
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    #[error("a partition of the commands that were taken belongs to another reader now")]
    Lost,
}
