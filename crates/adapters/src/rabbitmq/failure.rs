//! Why something did not work in RabbitMQ. Messages hold no address and no password.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::LogError;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The settings are invalid.
    #[error("{0}")]
    Settings(String),
    /// There is no connection, or it broke; whether a message that was under way was stored is unknown.
    #[error("RabbitMQ cannot be reached: {0}")]
    Unreachable(#[from] lapin::Error),
    /// No answer in time; whether a message that was under way was stored is unknown.
    #[error("timed out after {} ms waiting for RabbitMQ", .0.as_millis())]
    Silent(Duration),
    /// The broker has an alarm, or too many messages wait here. Nothing was handed over.
    #[error("RabbitMQ accepts no messages for now")]
    Blocked,
    /// The connection ended or was blocked while a message was under way: whether it was stored is unknown.
    #[error("the connection to RabbitMQ ended before a message was confirmed")]
    Unconfirmed,
    /// The queue was missing: the message was not stored.
    #[error("RabbitMQ has no queue for a message")]
    Unroutable,
    /// The broker refused the message: it was not stored.
    #[error("RabbitMQ refused a message")]
    Refused,
    /// The commands came over a connection that has ended; they come again.
    #[error("the connection to RabbitMQ ended before the commands that were taken were acknowledged")]
    Stale,
    /// A defect of ours.
    #[error("a message cannot be serialized: {0}")]
    Unwritable(#[source] Arc<serde_json::Error>),
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Unwritable(Arc::new(error))
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Blocked => Self::Blocked,
            failure => Self::Unavailable(failure.into()),
        }
    }
}
