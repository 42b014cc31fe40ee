//! The outbox.

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, StoreError, Unsent};

use super::MemoryStore;

#[async_trait]
impl Outbox for MemoryStore {
    /// All shards: there is one instance.
    async fn claim(&self, _: InstanceId, _: Duration) -> Result<Vec<u32>, StoreError> {
        Ok((0..OUTBOX_SHARDS).collect())
    }

    async fn release(&self, _: InstanceId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn backlog(&self) -> Result<Unsent, StoreError> {
        let (tables, now) = self.tables_now()?;
        let oldest = tables.outbox.values().map(|row| row.occurred_at).min();
        let oldest = oldest.map_or(Duration::ZERO, |at| (now - at).to_std().unwrap_or_default());
        Ok(Unsent { count: tables.outbox.len() as u64, oldest })
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let tables = self.tables()?;
        let rows = tables.outbox.range((shard, i64::MIN)..=(shard, i64::MAX));
        Ok(rows.take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let mut tables = self.tables()?;
        for id in ids {
            tables.outbox.remove(&(shard, id));
        }
        Ok(())
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let mut tables = self.tables()?;
        for id in ids {
            if let Some(row) = tables.outbox.remove(&(shard, id)) {
                tables.outbox_rooms.insert((shard, id), row);
            }
        }
        Ok(())
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let tables = self.tables()?;
        let rows = tables.outbox_rooms.range((shard, i64::MIN)..=(shard, i64::MAX));
        Ok(rows.take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let mut tables = self.tables()?;
        for id in ids {
            tables.outbox_rooms.remove(&(shard, id));
        }
        Ok(())
    }
}
