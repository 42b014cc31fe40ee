//! The background work of a store.

use async_trait::async_trait;
use boxoffice_domain::ReservationId;

use crate::StoreError;

/// What the background work of a ledger finds and deletes, in bounded steps, safe on several instances at once.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Fails unless the store answers and is writable, on every path that serves. Changes nothing.
    async fn check(&self) -> Result<(), StoreError>;
    /// Reservations that are held and whose hold is over, the longest over first, `limit` at most.
    async fn due_holds(&self, limit: u32) -> Result<Vec<ReservationId>, StoreError>;
    /// Deletes expired replies, `limit` at most; returns how many.
    async fn prune_replies(&self, limit: u32) -> Result<u64, StoreError>;
}
