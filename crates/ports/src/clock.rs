use boxoffice_domain::Timestamp;
use chrono::TimeDelta;
use uuid::Uuid;

/// This process's time, and how far a store's own clock is to be moved in tests.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// The time here, the offset included. Truth about money and seats comes from the store's clock instead.
    fn now(&self) -> Timestamp;
    /// What a store adds to its own clock; zero in production.
    fn offset(&self) -> TimeDelta;
}

/// New identifiers, UUIDv7.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Ids: Send + Sync {
    fn fresh(&self) -> Uuid;
}
