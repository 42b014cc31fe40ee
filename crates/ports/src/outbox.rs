use async_trait::async_trait;
use boxoffice_domain::{Event, Timestamp};

use crate::StoreError;

/// An event that was committed and not yet sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    pub shard: u32,
    /// Ascending within its shard, in the order of the commits of whatever the shard orders.
    pub id: i64,
    pub event: Event,
    pub occurred_at: Timestamp,
}

/// Events written with their change. A row stays until it was sent and is then deleted: no flag, no cursor.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The oldest rows of a shard, by id, `limit` at most.
    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// Deletes rows of a shard that were sent.
    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
}
