//! Failures of a database, and the error that each port makes of them.

use super::rows::Contradiction;
use boxoffice_ports::{CatalogError, LedgerError, RoomLogError, StoreError};

/// `E` is what the database itself reports.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure<E> {
    #[error(transparent)]
    Database(E),
    /// A value that cannot be written, or a row that contradicts itself.
    #[error("{0}")]
    Data(String),
    /// A statement changed another number of rows than it had to.
    #[error("{what}: {changed} rows changed instead of {expected}")]
    Count { what: &'static str, changed: usize, expected: usize },
    /// A live reply is stored under a key that the load found free.
    #[error("another reply was stored under the same key")]
    ReplyTaken,
    /// An import would change a seat that is held or sold.
    #[error("{field}: seat {seat} is held or sold")]
    SeatTaken { field: String, seat: u32 },
    #[error("the schema is not current: run `boxoffice migrate`")]
    Schema,
    /// The thread or the pool in charge has stopped, or was not free in time.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// The classes of failures that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "SQLite has no connection to lose and no row locks"))]
pub(crate) enum Class {
    /// Another transaction was in the way: a serialization failure, a deadlock, a locked file. Running again is right.
    Again,
    /// Another transaction has meanwhile inserted the same key: running again finds its row.
    Taken,
    /// A connection ended in the middle: whether the transaction was committed is not known.
    Lost,
    /// A row stayed locked.
    LockTimeout,
    /// The database cannot be reached, or cannot write.
    Unreachable,
    /// This piece of work's own fault: its neighbours can do without it.
    Own,
}

/// An error of a database's own.
pub(crate) trait Classified: std::error::Error + Send + Sync + 'static {
    fn class(&self) -> Class;
}

impl<E: Classified> Failure<E> {
    /// `Ok` if a statement changed as many rows as it had to.
    pub(crate) fn check_count(what: &'static str, changed: usize, expected: usize) -> Result<(), Self> {
        if changed == expected { Ok(()) } else { Err(Self::Count { what, changed, expected }) }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Database(error) => error.class(),
            Self::ReplyTaken => Class::Taken,
            Self::Schema | Self::Unavailable(_) => Class::Unreachable,
            Self::Data(_) | Self::Count { .. } | Self::SeatTaken { .. } => Class::Own,
        }
    }
}

impl<E> From<Contradiction> for Failure<E> {
    fn from(contradiction: Contradiction) -> Self {
        Self::Data(contradiction.0)
    }
}

impl<E> From<serde_json::Error> for Failure<E> {
    fn from(error: serde_json::Error) -> Self {
        Self::Data(error.to_string())
    }
}

impl<E: Classified> From<Failure<E>> for LedgerError {
    fn from(failure: Failure<E>) -> Self {
        match failure.class() {
            Class::Again | Class::Taken | Class::Lost => Self::Retryable(failure.into()),
            Class::LockTimeout => Self::LockTimeout,
            Class::Unreachable => Self::Unavailable(failure.into()),
            Class::Own => Self::Refused(failure.into()),
        }
    }
}

impl<E: Classified> From<Failure<E>> for StoreError {
    fn from(failure: Failure<E>) -> Self {
        match failure.class() {
            Class::Own | Class::Taken => Self::Broken(failure.into()),
            Class::Again | Class::Lost | Class::LockTimeout | Class::Unreachable => Self::Unavailable(failure.into()),
        }
    }
}

impl<E: Classified> From<Failure<E>> for CatalogError {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::SeatTaken { field, seat } => Self::Conflict { field, seat },
            failure => StoreError::from(failure).into(),
        }
    }
}

impl<E: Classified> From<Failure<E>> for RoomLogError {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::Data(_) => Self::Broken(failure.into()),
            failure => Self::Unavailable(failure.into()),
        }
    }
}
