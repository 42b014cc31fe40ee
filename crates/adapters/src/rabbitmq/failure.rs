//! Why something did not work in RabbitMQ. Messages hold no address and no password.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::LogError;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// There is no connection, or it broke; whether a message that was under way was stored is unknown.
    #[error("RabbitMQ cannot be reached: {0}")]
    Unreachable(#[from] lapin::Error),
    /// No answer in time; whether a message that was under way was stored is unknown.
    #[error("RabbitMQ did not answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The broker has an alarm, or more waits here than it takes. Nothing was handed over.
    #[error("RabbitMQ takes no messages for now")]
    Blocked,
    /// The connection ended or was blocked while a message was under way: whether it was stored is unknown.
    #[error("RabbitMQ went away before it confirmed a message")]
    Unconfirmed,
    /// The queue was missing: the message was not stored.
    #[error("RabbitMQ has no queue for a message")]
    Unroutable,
    /// The broker said no: the message was not stored.
    #[error("RabbitMQ refused a message")]
    Refused,
    /// What was taken belonged to a connection that has ended; it comes again.
    #[error("the connection to RabbitMQ ended before what was taken could be acknowledged")]
    Stale,
    /// A defect of ours.
    #[error("a message could not be written: {0}")]
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
