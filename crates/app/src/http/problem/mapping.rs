//! The one place that maps refusals and failures to problems.

use boxoffice_domain::Rejection;
use boxoffice_engine::{ReturnError, SearchError};
use boxoffice_ports::{CatalogError, ExecuteError, LedgerError, RoomError, Source, StoreError};

use super::{Code, FieldError, Problem};

impl Problem {
    /// A refusal as it was decided.
    pub(crate) fn refused(rejection: &Rejection, replayed: bool) -> Self {
        let mut problem = Self::new(code_of(rejection), rejection.to_string());
        problem.0.replayed = replayed;
        match rejection {
            Rejection::SeatUnavailable { seats } => problem.0.seats = Some(seats.clone()),
            Rejection::AmountOutOfRange { field, reason } => {
                problem.0.errors = vec![FieldError { field: field.clone(), reason: reason.clone() }];
            }
            _ => {}
        }
        problem
    }
}

fn code_of(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::NotFound { .. } => Code::NotFound,
        Rejection::InsufficientBalance => Code::InsufficientBalance,
        Rejection::SeatUnavailable { .. } => Code::SeatUnavailable,
        Rejection::HoldExpired => Code::HoldExpired,
        Rejection::HoldReleased => Code::HoldReleased,
        Rejection::AlreadyPaid => Code::AlreadyPaid,
        Rejection::AlreadyRefunded => Code::AlreadyRefunded,
        Rejection::IdempotencyKeyReused => Code::IdempotencyKeyReused,
        Rejection::SeatLimitExceeded { .. } => Code::SeatLimitExceeded,
        Rejection::BookingClosed => Code::BookingClosed,
        Rejection::RefundClosed => Code::RefundClosed,
        Rejection::AmountOutOfRange { .. } => Code::AmountOutOfRange,
        Rejection::InsufficientPoints => Code::InsufficientPoints,
        Rejection::ExtensionLimitExceeded => Code::ExtensionLimitExceeded,
    }
}

fn unavailable(source: Source) -> Problem {
    Problem::new(Code::StoreUnavailable, "the store cannot be reached; try again").caused_by(source)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => unavailable(source),
            StoreError::Broken(source) => Self::internal(source),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(source) => Self::internal(source),
            LedgerError::Unavailable(source) | LedgerError::Retryable(source) => unavailable(source),
            LedgerError::Conflict | LedgerError::LockTimeout => unavailable(error.into()),
        }
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Overloaded => Self::new(Code::Overloaded, "more commands are waiting than can be served; nothing was done"),
            ExecuteError::Busy => Self::new(Code::Busy, "the lock is held by another command; nothing was done"),
            ExecuteError::InProgress => Self::new(Code::IdempotencyInProgress, "retry with the same key"),
            ExecuteError::Unavailable(source) => unavailable(source),
            ExecuteError::Internal(source) => Self::internal(source),
        }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Store(error) => error.into(),
            SearchError::TimedOut => {
                Self::new(Code::Overloaded, "every seat that was offered went to another buyer until the deadline; nothing was done")
            }
        }
    }
}

impl From<ReturnError> for Problem {
    fn from(error: ReturnError) -> Self {
        match error {
            ReturnError::Store(error) => error.into(),
            ReturnError::Ledger(error) => error.into(),
        }
    }
}

impl From<RoomError> for Problem {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::NoRoom => Self::not_found(),
            RoomError::Closed => Self::new(Code::QueueClosed, "the waiting room is draining: buyers who wait are still admitted"),
            RoomError::Unavailable(source) => unavailable(source),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Conflict { field, seat } => {
                let mut problem = Self::new(Code::CatalogConflict, "nothing was written");
                problem.0.errors = vec![FieldError { field, reason: format!("seat {seat} is held or sold") }];
                problem
            }
            CatalogError::Unavailable(source) => unavailable(source),
            CatalogError::Broken(source) => Self::internal(source),
        }
    }
}
