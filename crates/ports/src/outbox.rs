//! Events that were committed with their change and are not sent yet.

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Event, InstanceId, Timestamp};

use crate::StoreError;

/// An event that was committed and not yet sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    pub shard: u32,
    /// Ascending within its shard, in the order of the commits of the records that it orders. Never given twice, even
    /// after the row was deleted.
    pub id: i64,
    pub event: Event,
    pub occurred_at: Timestamp,
}

/// What is not sent yet, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Up to a bound of the store's own, so that counting stays cheap.
    pub count: u64,
    /// How long the oldest row has waited, by the store's clock; zero without any.
    pub oldest: Duration,
}

/// Events written in the transaction of their change. A row stays until it was sent and is then deleted: no flag, no
/// cursor. A row that was sent, but that a waiting room has not applied yet, is set aside, so that the rows behind it go
/// on.
///
/// Each shard is relayed by one instance at a time, for as long as it renews its claim. Two instances that believe they own
/// the same shard do double work and nothing worse: each sends the shard's rows in order from the oldest on, so the first
/// delivery of every row comes after that of the rows before it.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The shards that belong to `relay` until `lease` from now: those it has, less what exceeds an equal share among the
    /// live relays, and free ones up to that share.
    async fn claim(&self, relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError>;
    /// Gives all of them back, so that other relays need not wait for the lease to end.
    async fn release(&self, relay: InstanceId) -> Result<(), StoreError>;
    /// The oldest rows of a shard, by id, `limit` at most.
    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// Deletes rows of a shard that were sent.
    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// Sets rows of a shard aside that were sent and that a waiting room has not applied yet.
    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// The oldest rows of a shard that were set aside, by id, `limit` at most.
    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// Deletes rows of a shard that were set aside and are applied by now.
    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// Counts the rows that are not set aside.
    async fn backlog(&self) -> Result<Unsent, StoreError>;
}
