//! This process's time.
//!
//! Truth about money and seats comes from the store's clock instead ([`Queries::now`](crate::Queries::now)).

use boxoffice_domain::Timestamp;
use chrono::TimeDelta;

/// This process's time, and how far a store's own clock is to be moved in tests.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Clock: Send + Sync {
    /// The time here, the offset included.
    fn now(&self) -> Timestamp;
    /// What a store adds to its own clock; zero in production.
    fn offset(&self) -> TimeDelta;
}
