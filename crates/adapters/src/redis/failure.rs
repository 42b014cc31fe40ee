//! Why something did not work in Redis. Messages hold no address and no password.

use std::time::Duration;

use boxoffice_ports::StoreError;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::time::timeout;

/// The longest a command may take, connecting included. Commands take well under a millisecond; a node that needs
/// longer than this hangs, and its callers have deadlines of their own.
pub(super) const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The settings name no Redis.
    #[error("{0}")]
    Address(String),
    /// There is no connection, or it broke; whether the command ran is unknown.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// No answer in time; whether the command ran is unknown.
    #[error("timed out after {} ms waiting for Redis", ROUND_TRIP_MAX.as_millis())]
    Silent,
    /// An attempt to connect ended by a defect; another one follows.
    #[error("connecting to Redis failed by a defect")]
    Broken,
    /// It answered with an error, or with an answer that makes no sense here.
    #[error("Redis refused a command: {0}")]
    Refused(#[source] RedisError),
}

impl Failure {
    /// Two classes for callers: a server that may come back, and a defect.
    pub(super) fn from_redis(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::EmptySentinelList => Self::Unreachable(error),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain,
            ) => Self::Unreachable(error),
            _ if error.is_unrecoverable_error() => Self::Unreachable(error),
            _ => Self::Refused(error),
        }
    }
}

/// The answer on a connection of its own, within the bound of a round trip.
pub(super) async fn bounded<T>(answer: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
    timeout(ROUND_TRIP_MAX, answer).await.map_or(Err(Failure::Silent), |answer| answer.map_err(Failure::Unreachable))
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(_) => Self::Broken(failure.into()),
            _ => Self::Unavailable(failure.into()),
        }
    }
}
