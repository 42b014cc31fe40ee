//! What the background work asks for, the outbox and the secrets.

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::ReservationId;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, Secrets, StoreError, Unsent, Upkeep};

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

#[async_trait]
impl Outbox for MemoryStore {
    /// All of them: there is one instance.
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

#[async_trait]
impl Secrets for MemoryStore {
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        Ok(self.tables()?.secrets.entry(name).or_insert(fresh).clone())
    }
}
