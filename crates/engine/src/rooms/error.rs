//! Why an exchange with a room's log failed.

use std::sync::Arc;

use boxoffice_ports::{RoomError, RoomLogError, Source};

/// Shared by all callers whose inputs went in the same exchange.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("{0}")]
    Failed(#[source] Arc<RoomLogError>),
    #[error("{0}")]
    Unavailable(Arc<str>),
    #[error("there is no waiting room for this concert")]
    NoRoom,
}

impl From<ExchangeError> for RoomError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::NoRoom => Self::NoRoom,
            other => Self::Unavailable(other.into()),
        }
    }
}

impl From<RoomLogError> for ExchangeError {
    fn from(error: RoomLogError) -> Self {
        Self::Failed(Arc::new(error))
    }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> ExchangeError {
    ExchangeError::Unavailable(error.to_string().into())
}

/// A store that the room depends on failed.
pub(super) fn room_unavailable(error: impl Into<Source>) -> RoomError {
    RoomError::Unavailable(error.into())
}

/// An input came to an output of another kind.
pub(super) fn unexpected_output() -> RoomError {
    RoomError::Unavailable("the waiting room's output does not match the input".into())
}
