//! Why something did not work in SQLite, and what each port calls it.

use boxoffice_ports::{CatalogError, LedgerError, RoomError, RoomLogError, StoreError};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use std::sync::Arc;

/// Cloned to everybody whose work shared the transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Sql(Arc<DieselError>),
    #[error("cannot open {path}: {reason}")]
    Open { path: String, reason: String },
    /// What was to be written could not be expressed, or what was read made no sense.
    #[error("{0}")]
    Data(String),
    /// A write changed another number of rows than it had to.
    #[error("{what}: {changed} rows changed instead of one")]
    Count { what: &'static str, changed: usize },
    /// A live reply is stored under a key that the load found free.
    #[error("another reply was stored under the same key")]
    ReplyTaken,
    /// An import would change a seat that somebody has.
    #[error("{field}: seat {seat} is held or sold")]
    SeatTaken { field: String, seat: u32 },
    #[error("the schema is not current: run `boxoffice migrate`")]
    Schema,
    /// The thread or pool that had to do it has stopped, or did not get to it in time.
    #[error("{0}")]
    Gone(&'static str),
}

/// The classes that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Another process kept the file locked for longer than the busy time-out.
    Busy,
    /// The file or the disk under it.
    Unreachable,
    /// This piece of work's own fault: its neighbours can do without it.
    Own,
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self::Sql(Arc::new(error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Data(error.to_string())
    }
}

impl Failure {
    fn class(&self) -> Class {
        match self {
            Self::Sql(error) => class_of(error),
            Self::Open { .. } | Self::Schema | Self::Gone(_) => Class::Unreachable,
            Self::Data(_) | Self::Count { .. } | Self::ReplyTaken | Self::SeatTaken { .. } => Class::Own,
        }
    }

    /// Whether leaving this piece of work out would let others of the same transaction through.
    pub(super) fn is_own(&self) -> bool {
        self.class() == Class::Own
    }
}

/// diesel tells constraints apart by result code; all other codes it hands on as SQLite's fixed text for the code
/// (`sqlite3_errstr`), which is the only way to know a lock or a failing disk.
fn class_of(error: &DieselError) -> Class {
    const BUSY: [&str; 2] = ["database is locked", "database table is locked"];
    const UNREACHABLE: [&str; 5] = [
        "disk I/O error",
        "unable to open database file",
        "database or disk is full",
        "attempt to write a readonly database",
        "locking protocol",
    ];
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            let message = information.message();
            if BUSY.iter().any(|text| message.contains(text)) {
                Class::Busy
            } else if UNREACHABLE.iter().any(|text| message.contains(text)) {
                Class::Unreachable
            } else {
                Class::Own
            }
        }
        DieselError::RollbackErrorOnCommit { commit_error, .. } => class_of(commit_error),
        DieselError::BrokenTransactionManager => Class::Unreachable,
        _ => Class::Own,
    }
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> Self {
        match (failure.class(), &failure) {
            (Class::Busy, _) | (_, Failure::ReplyTaken) => Self::Retryable(failure.into()),
            (Class::Unreachable, _) => Self::Unavailable(failure.into()),
            (Class::Own, _) => Self::Refused(failure.into()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure.class() {
            Class::Busy | Class::Unreachable => Self::Unavailable(failure.into()),
            Class::Own => Self::Broken(failure.into()),
        }
    }
}

impl From<Failure> for CatalogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::SeatTaken { field, seat } => Self::Conflict { field, seat },
            failure => StoreError::from(failure).into(),
        }
    }
}

impl From<Failure> for RoomLogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Data(_) => Self::Broken(failure.into()),
            failure => Self::Unavailable(failure.into()),
        }
    }
}

impl From<Failure> for RoomError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.into())
    }
}

/// `Ok` when a write changed exactly one row.
pub(super) fn one(what: &'static str, changed: usize) -> Result<(), Failure> {
    if changed == 1 { Ok(()) } else { Err(Failure::Count { what, changed }) }
}
