//! A public source of randomness for draws.

use async_trait::async_trait;
use boxoffice_domain::Timestamp;

use crate::Source;

/// A public source of randomness: its value for an instant cannot be known before that instant, and is public afterwards.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Beacon: Send + Sync {
    /// The value for a sale that started at `start`, the same on every call. An error while there is none yet, or while
    /// the source cannot be reached.
    async fn value(&self, start: Timestamp) -> Result<String, Source>;
}
