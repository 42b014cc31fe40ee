use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Event, Timestamp};

use crate::{InstanceId, StoreError};

/// An event that was committed and not yet sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    pub shard: u32,
    /// Ascending within its shard, in the order of the commits of whatever the shard orders. Never given twice, even
    /// after the row was deleted.
    pub id: i64,
    pub event: Event,
    pub occurred_at: Timestamp,
}

/// What still waits to be sent, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Up to a bound of the store's own, so that counting stays cheap.
    pub count: u64,
    /// How long the oldest row has waited, by the store's clock; zero without any.
    pub oldest: Duration,
}

/// Events written with their change. A row stays until it was sent and is then deleted: no flag, no cursor. One that a
/// waiting room has still to take when it was sent is set aside, so that the rows behind it go on.
///
/// Each shard is relayed by one instance at a time, as long as it renews its claim. Two that believe to own the same one
/// do double work and nothing worse: each sends a shard's rows in order from the oldest on, so the first delivery of
/// every row comes after that of the rows before it.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The shards that are `relay`'s until `lease` from now: those it has, less what exceeds an equal share among the
    /// relays that live, and free ones up to that share.
    async fn claim(&self, relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError>;
    /// Gives them all back: others need not wait for the lease to end.
    async fn release(&self, relay: InstanceId) -> Result<(), StoreError>;
    /// The oldest rows of a shard, by id, `limit` at most.
    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// Deletes rows of a shard that were sent.
    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// Moves rows of a shard that were sent out of the way of those behind them: a waiting room has still to take them.
    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// The oldest rows of a shard that were set aside, by id, `limit` at most.
    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// Deletes rows of a shard that were set aside and are taken.
    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError>;
    /// Of those not set aside.
    async fn backlog(&self) -> Result<Unsent, StoreError>;
}
