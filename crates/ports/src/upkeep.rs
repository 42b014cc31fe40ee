use async_trait::async_trait;
use boxoffice_domain::ReservationId;

use crate::StoreError;

/// What the background work of a ledger finds and clears away, in bounded steps, safe on several instances at once.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Fails unless the store answers and could be written to now, on every path that serves. Changes nothing.
    async fn check(&self) -> Result<(), StoreError>;
    /// Reservations that are held and whose time is over, the longest over first, `limit` at most.
    async fn due_holds(&self, limit: u32) -> Result<Vec<ReservationId>, StoreError>;
    /// Deletes replies that are past their time, `limit` at most; says how many.
    async fn prune_replies(&self, limit: u32) -> Result<u64, StoreError>;
}
