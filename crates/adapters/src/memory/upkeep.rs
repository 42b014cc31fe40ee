//! What background work reads and deletes: due holds, and replies past their time.

use async_trait::async_trait;
use boxoffice_domain::ReservationId;
use boxoffice_ports::{StoreError, Upkeep};

use super::MemoryStore;

#[async_trait]
impl Upkeep for MemoryStore {
    async fn due_holds(&self, limit: u32) -> Result<Vec<ReservationId>, StoreError> {
        let (tables, now) = self.tables_now()?;
        Ok(tables.held.iter().take_while(|(until, _)| *until <= now).take(limit as usize).map(|(_, id)| *id).collect())
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.tables_now().map(drop)
    }

    async fn prune_replies(&self, limit: u32) -> Result<u64, StoreError> {
        let (mut tables, now) = self.tables_now()?;
        let mut pruned = 0;
        while pruned < u64::from(limit)
            && let Some(&(ends, key)) = tables.replies_by_end.first()
            && ends <= now
        {
            tables.replies_by_end.pop_first();
            tables.replies.remove(&key);
            pruned += 1;
        }
        Ok(pruned)
    }
}
