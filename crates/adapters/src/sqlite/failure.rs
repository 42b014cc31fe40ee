//! What SQLite reports, and how its failures are classed (see [`crate::sql::failure`]).

use crate::sql::failure::{Class, Classified};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use std::sync::Arc;

pub(super) type Failure = crate::sql::failure::Failure<SqliteError>;

/// Cloned for every caller whose work shared the transaction.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum SqliteError {
    #[error("{0}")]
    Sql(Arc<DieselError>),
    #[error("cannot open {path}: {reason}")]
    Open { path: String, reason: String },
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self::Database(SqliteError::Sql(Arc::new(error)))
    }
}

impl Classified for SqliteError {
    fn class(&self) -> Class {
        match self {
            Self::Sql(error) => class_of(error),
            Self::Open { .. } => Class::Unreachable,
        }
    }
}

impl Failure {
    /// Whether the others of the same transaction would succeed without this piece of work.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.class(), Class::Own | Class::Taken)
    }
}

/// diesel tells constraints apart by result code. All other codes it passes on as SQLite's fixed text for the code
/// (`sqlite3_errstr`), the only sign of a lock or of a failing disk.
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
                Class::Again
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
