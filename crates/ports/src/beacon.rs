use async_trait::async_trait;
use boxoffice_domain::Timestamp;

use crate::Source;

/// A public source of randomness, whose value at an instant nobody can know before it and anybody can look up after.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Beacon: Send + Sync {
    /// The value for a sale that started at `start`, the same whenever it is asked for; an error while there is none
    /// yet, or it cannot be had.
    async fn value(&self, start: Timestamp) -> Result<String, Source>;
}
