//! What PostgreSQL reports, and how its failures are classed (see [`crate::sql::failure`]).
//!
//! An error is recognised by SQLSTATE, and a constraint by its name, never by the text of a message. diesel passes on no
//! SQLSTATE beyond its few kinds, so the ledger, which must tell deadlock and lock time-out apart, runs its statements on
//! tokio-postgres itself (see [`super::bridge`]).

use crate::sql::failure::{Class, Classified};
use boxoffice_ports::{LedgerError, Overdue};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use tokio_postgres::error::SqlState;

pub(super) type Failure = crate::sql::failure::Failure<PostgresError>;

#[derive(Debug, thiserror::Error)]
pub(super) enum PostgresError {
    /// The server's error, as diesel reports it.
    #[error("{0}")]
    Diesel(#[source] DieselError),
    /// The server's error, or the driver's.
    #[error("{}", describe(.0))]
    Server(#[source] tokio_postgres::Error),
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] boxoffice_ports::Source),
    /// A connection ended while it was in use.
    #[error("the connection was lost: {0}")]
    Lost(#[source] boxoffice_ports::Source),
    /// The server did not answer in time.
    #[error("PostgreSQL: {0}")]
    TimedOut(#[source] Overdue),
    /// An account that was seen committed is missing: another server took over without the last commits.
    #[error("an account that was committed is missing")]
    AccountMissing,
    #[error("the database takes no writes")]
    ReadOnly,
}

/// A driver's error with the server's message, which the driver's own text leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => match server.constraint() {
            Some(constraint) => format!("{} ({}, {constraint})", server.message(), server.code().code()),
            None => format!("{} ({})", server.message(), server.code().code()),
        },
        None => error.to_string(),
    }
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        Self::Database(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(PostgresError::Server(error))
    }
}

pub(super) fn cannot_connect(reason: impl Into<boxoffice_ports::Source>) -> Failure {
    Failure::Database(PostgresError::Connect(reason.into()))
}

pub(super) fn timed_out(overdue: Overdue) -> Failure {
    Failure::Database(PostgresError::TimedOut(overdue))
}

/// Unique keys that two concurrent commands may both write. The later one finds the first one's row when it runs again.
const TAKEN: [&str; 5] = ["replies_pkey", "accounts_pkey", "payments_reservation_id_key", "entries_pkey", "points_entries_pkey"];

impl Classified for PostgresError {
    fn class(&self) -> Class {
        match self {
            Self::Diesel(error) => class_of_diesel(error),
            Self::Server(error) => class_of_server(error),
            Self::Lost(_) | Self::TimedOut(_) => Class::Lost,
            Self::AccountMissing => Class::Again,
            Self::Connect(_) | Self::ReadOnly => Class::Unreachable,
        }
    }
}

impl PostgresError {
    fn ends_session(&self) -> bool {
        match self {
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
            Self::Lost(_) | Self::TimedOut(_) | Self::ReadOnly => true,
            Self::Connect(_) | Self::AccountMissing => false,
        }
    }

    fn is_read_only(&self) -> bool {
        match self {
            Self::Server(error) => error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION),
            Self::Diesel(error) => matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)),
            Self::ReadOnly => true,
            _ => false,
        }
    }
}

impl Failure {
    /// Whether the session that failed may be unable to serve: it is closed and never used again. One connection made
    /// needlessly costs less than a session that refuses everything for as long as it lives.
    pub(super) fn ends_session(&self) -> bool {
        matches!(self, Self::Database(error) if error.ends_session())
    }

    /// Whether the server takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_read_only())
    }

    /// The error under [`Guard::Version`](boxoffice_ports::Guard::Version), which reads rows without locks and writes them
    /// at the version read: a concurrent change of such a row is a conflict.
    pub(super) fn under_versions(self) -> LedgerError {
        match (self.class(), &self) {
            (Class::Again | Class::Taken, _) | (_, Self::Count { .. }) => LedgerError::Conflict,
            _ => self.into(),
        }
    }
}

/// By SQLSTATE: a transaction left open or failed, or a server that takes no writes (class 25); prepared statements that
/// are missing or whose tables have changed; the end of the connection, the session or its server; a defect of the server.
fn ends_session(code: &str) -> bool {
    matches!(code, "0A000" | "26000") || ["08", "25", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
}

fn class_of_diesel(error: &DieselError) -> Class {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Class::Again,
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand, _) => Class::Lost,
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) | DieselError::BrokenTransactionManager => Class::Unreachable,
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, error)
            if error.constraint_name().is_some_and(|name| TAKEN.contains(&name)) =>
        {
            Class::Taken
        }
        _ => Class::Own,
    }
}

fn class_of_server(error: &tokio_postgres::Error) -> Class {
    let Some(server) = error.as_db_error() else {
        // Not from the server: the connection failed, or a value could not be encoded or decoded.
        let lost = error.is_closed() || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
        return if lost { Class::Lost } else { Class::Own };
    };
    match *server.code() {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::QUERY_CANCELED => Class::Again,
        SqlState::LOCK_NOT_AVAILABLE => Class::LockTimeout,
        SqlState::UNIQUE_VIOLATION if server.constraint().is_some_and(|name| TAKEN.contains(&name)) => Class::Taken,
        // The session was idle within a transaction for too long.
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Class::Lost,
        // A standby, or a server that has become one.
        SqlState::READ_ONLY_SQL_TRANSACTION => Class::Unreachable,
        // The session's prepared statements no longer fit the schema; a new session prepares them again.
        SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => Class::Lost,
        // By class: connection exceptions; a session ended by an operator or a crash; no resources.
        ref code => match code.code().get(..2) {
            Some("08" | "25" | "57") => Class::Lost,
            Some("53" | "58") => Class::Unreachable,
            _ => Class::Own,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_closed_after_the_errors_it_cannot_recover_from() {
        for code in ["25006", "25P01", "25P02", "25P03", "57P01", "57P02", "57P03", "57P05", "08006", "26000", "0A000", "58030", "XX000"] {
            assert!(ends_session(code), "{code}");
        }
        for code in ["23505", "40001", "40P01", "55P03", "57014", "22021", "53300"] {
            assert!(!ends_session(code), "{code}");
        }
    }

    #[test]
    fn a_session_of_a_read_only_server_is_closed() {
        let by_kind = |kind| Failure::from(PostgresError::Diesel(DieselError::DatabaseError(kind, Box::new(String::new()))));
        for kind in [DatabaseErrorKind::ReadOnlyTransaction, DatabaseErrorKind::ClosedConnection, DatabaseErrorKind::Unknown] {
            assert!(by_kind(kind).ends_session());
        }
        assert!(by_kind(DatabaseErrorKind::ReadOnlyTransaction).is_read_only() && Failure::from(PostgresError::ReadOnly).is_read_only());
        assert!(!by_kind(DatabaseErrorKind::UniqueViolation).ends_session() && !Failure::Schema.ends_session());
    }
}
