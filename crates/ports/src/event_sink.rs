use async_trait::async_trait;

use crate::{OutboxRow, Source};

/// Where other systems learn of what was committed.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Publishes rows of one shard, in order; `Ok` once all of them are safe. After an error any of them may have been
    /// published: the same are published again, so whoever listens tells them apart by their ids.
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source>;
}
