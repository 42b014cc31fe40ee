//! Why something did not work in PostgreSQL, and what each port calls it.
//!
//! What happened is told by SQLSTATE, and a constraint by its name, never by the text of a message. diesel hands on no
//! SQLSTATE beyond its few kinds, which is one reason why the ledger, where deadlock and lock time-out are told apart,
//! runs its statements on tokio-postgres itself.

use boxoffice_ports::{CatalogError, LedgerError, Overdue, RoomError, RoomLogError, StoreError};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What the server refused, as diesel tells it.
    #[error("{0}")]
    Diesel(#[source] DieselError),
    /// What the server refused, or why it could not be asked.
    #[error("{}", told(.0))]
    Server(#[source] tokio_postgres::Error),
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] boxoffice_ports::Source),
    /// A connection ended while it was in use.
    #[error("the connection was lost: {0}")]
    Lost(#[source] boxoffice_ports::Source),
    /// The server did not answer in time.
    #[error("PostgreSQL: {0}")]
    Silent(#[source] Overdue),
    /// What was to be written could not be expressed, or what was read made no sense.
    #[error("{0}")]
    Data(String),
    /// A statement changed another number of rows than it had to.
    #[error("{what}: {changed} rows instead of {expected}")]
    Count { what: &'static str, changed: usize, expected: usize },
    /// An account that was there is gone: another server took over without the last commits.
    #[error("an account that was there is gone")]
    AccountGone,
    /// A live reply is stored under a key that the load found free.
    #[error("another reply was stored under the same key")]
    ReplyTaken,
    /// An import would change a seat that somebody has.
    #[error("{field}: seat {seat} is held or sold")]
    SeatTaken { field: String, seat: u32 },
    #[error("the schema is not current: run `boxoffice migrate`")]
    Schema,
    #[error("the database takes no writes")]
    ReadOnly,
    /// What had to do it has stopped, or did not get to it in time.
    #[error("{0}")]
    Gone(&'static str),
}

/// A driver's error with what the server said, which its own text leaves out.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => match said.constraint() {
            Some(constraint) => format!("{} ({}, {constraint})", said.message(), said.code().code()),
            None => format!("{} ({})", said.message(), said.code().code()),
        },
        None => error.to_string(),
    }
}

/// The classes that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Serialization failure or deadlock: again.
    Again,
    /// A row is there already that another transaction wrote meanwhile, by the constraint's name: again.
    Taken,
    /// A connection ended in the middle: whether it was committed is not known.
    Lost,
    /// A row stayed locked.
    LockTimeout,
    /// The server, or what it stands on.
    Unreachable,
    /// This piece of work's own fault: its neighbours can do without it.
    Own,
}

/// Unique keys that two commands at the same moment may both write; whoever comes second finds the first's row when it
/// runs again.
const TAKEN: [&str; 5] = ["replies_pkey", "accounts_pkey", "payments_reservation_id_key", "entries_pkey", "points_entries_pkey"];

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Data(error.to_string())
    }
}

impl Failure {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Diesel(error) => class_of_diesel(error),
            Self::Server(error) => class_of_server(error),
            Self::Lost(_) | Self::Silent(_) => Class::Lost,
            Self::AccountGone => Class::Again,
            Self::ReplyTaken => Class::Taken,
            Self::Connect(_) | Self::Schema | Self::ReadOnly | Self::Gone(_) => Class::Unreachable,
            Self::Data(_) | Self::Count { .. } | Self::SeatTaken { .. } => Class::Own,
        }
    }

    /// Whether the session that it happened on can serve no more, as far as it can be told: it is closed, never used
    /// again. One session too many that is made anew costs less than one that refuses everything for as long as it lives.
    pub(super) fn ends_session(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Server(error) => match error.code() {
                Some(code) => ends_session(code.code()),
                None => class_of_server(error) == Class::Lost,
            },
            Self::Diesel(DieselError::DatabaseError(kind, _)) => matches!(
                kind,
                DatabaseErrorKind::ReadOnlyTransaction
                    | DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::UnableToSendCommand
                    // Any other SQLSTATE, those of an ended session among them.
                    | DatabaseErrorKind::Unknown
            ),
            Self::Diesel(error) => matches!(error, DieselError::BrokenTransactionManager),
            Self::Lost(_) | Self::ReadOnly => true,
            _ => false,
        }
    }

    /// Whether the server takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        match self {
            Self::Server(error) => error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            Self::Diesel(error) => matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)),
            Self::ReadOnly => true,
            _ => false,
        }
    }

    /// What it is under [`Guard::Version`](boxoffice_ports::Guard::Version), where rows are written at the version they
    /// were read at without a lock: whatever another transaction did in between is a conflict.
    pub(super) fn under_versions(self) -> LedgerError {
        match (self.class(), &self) {
            (Class::Again | Class::Taken, _) | (_, Self::Count { .. }) => LedgerError::Conflict,
            _ => self.into(),
        }
    }
}

/// By SQLSTATE: a transaction left open or failed, a server that takes no writes (class 25); prepared statements that are
/// gone or whose tables have changed; the end of the connection, of the session or of its server; a defect within it.
fn ends_session(code: &str) -> bool {
    matches!(code, "0A000" | "26000") || ["08", "25", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
}

fn class_of_diesel(error: &DieselError) -> Class {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Class::Again,
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand, _) => Class::Lost,
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) | DieselError::BrokenTransactionManager => Class::Unreachable,
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, said)
            if said.constraint_name().is_some_and(|name| TAKEN.contains(&name)) =>
        {
            Class::Taken
        }
        _ => Class::Own,
    }
}

fn class_of_server(error: &tokio_postgres::Error) -> Class {
    let Some(said) = error.as_db_error() else {
        // Not said by the server: the connection, or a value that could not be sent or read.
        let lost = error.is_closed() || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
        return if lost { Class::Lost } else { Class::Own };
    };
    match *said.code() {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::QUERY_CANCELED => Class::Again,
        SqlState::LOCK_NOT_AVAILABLE => Class::LockTimeout,
        SqlState::UNIQUE_VIOLATION if said.constraint().is_some_and(|name| TAKEN.contains(&name)) => Class::Taken,
        // A session that was idle within a transaction for too long, or was ended with its server.
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Class::Lost,
        // A standby that took no writes yet, or takes none any more.
        SqlState::READ_ONLY_SQL_TRANSACTION => Class::Unreachable,
        // Not of this transaction's making; another session has its statements as they have to be.
        SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => Class::Lost,
        // By class: connection exceptions; an operator's or a crash's end of the session; no resources.
        ref code => match code.code().get(..2) {
            Some("08" | "25" | "57") => Class::Lost,
            Some("53" | "58") => Class::Unreachable,
            _ => Class::Own,
        },
    }
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> Self {
        match failure.class() {
            Class::Again | Class::Taken | Class::Lost => Self::Retryable(failure.into()),
            Class::LockTimeout => Self::LockTimeout,
            Class::Unreachable => Self::Unavailable(failure.into()),
            Class::Own => Self::Refused(failure.into()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure.class() {
            Class::Own | Class::Taken => Self::Broken(failure.into()),
            Class::Again | Class::Lost | Class::LockTimeout | Class::Unreachable => Self::Unavailable(failure.into()),
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

/// `Ok` when a statement changed as many rows as it had to.
pub(super) fn all(what: &'static str, changed: usize, expected: usize) -> Result<(), Failure> {
    if changed == expected { Ok(()) } else { Err(Failure::Count { what, changed, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ends_with_what_it_cannot_get_past() {
        for code in ["25006", "25P01", "25P02", "25P03", "57P01", "57P02", "57P03", "57P05", "08006", "26000", "0A000", "58030", "XX000"] {
            assert!(ends_session(code), "{code}");
        }
        for code in ["23505", "40001", "40P01", "55P03", "57014", "22021", "53300"] {
            assert!(!ends_session(code), "{code}");
        }
    }

    #[test]
    fn session_of_a_server_without_writes_is_no_more_used() {
        let by_kind = |kind| Failure::Diesel(DieselError::DatabaseError(kind, Box::new(String::new())));
        for kind in [DatabaseErrorKind::ReadOnlyTransaction, DatabaseErrorKind::ClosedConnection, DatabaseErrorKind::Unknown] {
            assert!(by_kind(kind).ends_session());
        }
        assert!(by_kind(DatabaseErrorKind::ReadOnlyTransaction).is_read_only() && Failure::ReadOnly.is_read_only());
        assert!(!by_kind(DatabaseErrorKind::UniqueViolation).ends_session() && !Failure::Schema.ends_session());
    }
}
