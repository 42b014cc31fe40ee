//! The outbox. Shards are shared out among the relaying instances (`claim_outbox_shards` in the migrations: one round
//! trip). An instance that does not renew its lease in time loses its shards. After an unnoticed end of a lease two relays
//! may read the same rows of a shard and publish them twice. Each row is deleted once, and neither relay waits for the
//! other's deletion.

use super::PostgresStore;
use super::rows::{EventTypes, outbox_rows};
use super::sql::{Statement, row, rows, run, statements};
use crate::sql::rows::{EventRow, UNSENT_COUNT_MAX};
use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, StoreError, Unsent};
use diesel::sql_types::{BigInt, Integer};
use std::time::Duration;

statements! {
    ClaimShards -> Integer =
        "SELECT claim_outbox_shards($1, clock_timestamp() + $2 * interval '1 microsecond', $3 * interval '1 microsecond')";
    ReleaseRelay =
        "WITH gone AS (DELETE FROM relays WHERE id = $1) UPDATE outbox_shards SET relay = NULL WHERE relay = $1";
    CountUnsent -> (BigInt, BigInt) =
        "SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT $2) AS bounded),
                coalesce((SELECT extract(epoch FROM clock_timestamp() - min(oldest)) * 1000000 FROM
                    generate_series(0, 15) AS shards (shard)
                    CROSS JOIN LATERAL (SELECT occurred_at AS oldest FROM outbox WHERE outbox.shard = shards.shard
                                        ORDER BY id LIMIT 1) AS first)::bigint + $1, 0)";
    SelectEvents -> EventTypes =
        "SELECT id, payload, occurred_at FROM outbox WHERE shard = $1 ORDER BY id LIMIT $2";
    MoveForRooms =
        "WITH gone AS (
             DELETE FROM outbox WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM outbox WHERE shard = $1 AND id = ANY ($2) FOR UPDATE SKIP LOCKED))
             RETURNING shard, id, payload, occurred_at)
         INSERT INTO outbox_rooms (shard, id, payload, occurred_at) SELECT shard, id, payload, occurred_at FROM gone
         ON CONFLICT DO NOTHING";
    SelectForRooms -> EventTypes =
        "SELECT id, payload, occurred_at FROM outbox_rooms WHERE shard = $1 ORDER BY id LIMIT $2";
    DeleteForRooms =
        "DELETE FROM outbox_rooms WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM outbox_rooms WHERE shard = $1 AND id = ANY ($2) FOR UPDATE SKIP LOCKED))";
    DeleteEvents =
        "DELETE FROM outbox WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM outbox WHERE shard = $1 AND id = ANY ($2) FOR UPDATE SKIP LOCKED))";
}

/// Shards are few.
fn stored(shard: u32) -> i32 {
    i32::try_from(shard).unwrap_or(i32::MAX)
}

impl PostgresStore {
    async fn oldest<S: Statement<Columns = EventTypes>>(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let found: Vec<EventRow<Timestamp>> = rows::<S, _, _>(&mut self.conn().await?, (stored(shard), i64::from(limit))).await?;
        Ok(outbox_rows(shard, found))
    }

    /// Runs a statement over some rows of a shard. Rows that another relay is deleting, or has deleted, are skipped.
    async fn change<S: Statement>(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !ids.is_empty() {
            run::<S>(&mut self.conn().await?, (stored(shard), ids)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn claim(&self, relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError> {
        let binds = (relay.0, self.offset_us(), i64::try_from(lease.as_micros()).unwrap_or(i64::MAX));
        let shards: Vec<i32> = rows::<ClaimShards, _, _>(&mut self.conn().await?, binds).await?;
        Ok(shards.into_iter().filter_map(|shard| u32::try_from(shard).ok()).collect())
    }

    async fn release(&self, relay: InstanceId) -> Result<(), StoreError> {
        run::<ReleaseRelay>(&mut self.conn().await?, (relay.0,)).await?;
        Ok(())
    }

    async fn backlog(&self) -> Result<Unsent, StoreError> {
        let found: Option<(i64, i64)> = row::<CountUnsent, _, _>(&mut self.conn().await?, (self.offset_us(), UNSENT_COUNT_MAX)).await?;
        let (count, oldest_us) = found.unwrap_or_default();
        Ok(Unsent { count: count.unsigned_abs(), oldest: Duration::from_micros(u64::try_from(oldest_us).unwrap_or(0)) })
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        self.oldest::<SelectEvents>(shard, limit).await
    }

    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        self.change::<DeleteEvents>(shard, ids).await
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        self.change::<MoveForRooms>(shard, ids).await
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        self.oldest::<SelectForRooms>(shard, limit).await
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        self.change::<DeleteForRooms>(shard, ids).await
    }
}
