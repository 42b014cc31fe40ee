//! Events for other systems.

use async_trait::async_trait;

use crate::{OutboxRow, Source};

/// Where committed events are published for other systems.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Publishes rows of one shard, in order; `Ok` once all of them are durable. After an error any of them may have been
    /// published. They are published again, so consumers remove duplicates by id.
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source>;
}
