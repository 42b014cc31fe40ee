//! Instants of the store's clock.

/// An instant of the store's clock, UTC, kept to the microsecond.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
