//! The outbox as a relay sees it. Shards are shared out among the instances that relay (`claim_outbox_shards` in the
//! migrations: one round trip); whoever is gone for longer than its lease loses its own. Two relays over one shard, which
//! a lease that ended unnoticed may bring about, read the same rows and tell of them twice; each row is deleted once, by
//! whoever comes to it first, and nobody waits for another's deletion.

use super::PostgresStore;
use super::sql::{Json, row, rows, run, statements};
use async_trait::async_trait;
use boxoffice_domain::{Event, Timestamp};
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, StoreError, Unsent};
use diesel::sql_types::{BigInt, Integer, Text, Timestamptz};
use std::time::Duration;

/// Counting the unsent stops here.
const COUNT_MAX: i64 = 100_000;

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
    SelectEvents -> (BigInt, Text, Timestamptz) =
        "SELECT id, payload, occurred_at FROM outbox WHERE shard = $1 ORDER BY id LIMIT $2";
    SetAside =
        "WITH gone AS (
             DELETE FROM outbox WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM outbox WHERE shard = $1 AND id = ANY ($2) FOR UPDATE SKIP LOCKED))
             RETURNING shard, id, payload, occurred_at)
         INSERT INTO outbox_rooms (shard, id, payload, occurred_at) SELECT shard, id, payload, occurred_at FROM gone
         ON CONFLICT DO NOTHING";
    SelectAside -> (BigInt, Text, Timestamptz) =
        "SELECT id, payload, occurred_at FROM outbox_rooms WHERE shard = $1 ORDER BY id LIMIT $2";
    DeleteAside =
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

fn outbox_rows(shard: u32, found: Vec<(i64, Json<Event>, Timestamp)>) -> Vec<OutboxRow> {
    found.into_iter().map(|(id, event, occurred_at)| OutboxRow { shard, id, event: event.0, occurred_at }).collect()
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
        let found: Option<(i64, i64)> = row::<CountUnsent, _, _>(&mut self.conn().await?, (self.offset_us(), COUNT_MAX)).await?;
        let (count, oldest_us) = found.unwrap_or_default();
        Ok(Unsent { count: count.unsigned_abs(), oldest: Duration::from_micros(u64::try_from(oldest_us).unwrap_or(0)) })
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let binds = (stored(shard), i64::from(limit));
        Ok(outbox_rows(shard, rows::<SelectEvents, _, _>(&mut self.conn().await?, binds).await?))
    }

    /// Rows that are gone already were sent twice, which is no error.
    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !ids.is_empty() {
            run::<DeleteEvents>(&mut self.conn().await?, (stored(shard), ids)).await?;
        }
        Ok(())
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !ids.is_empty() {
            run::<SetAside>(&mut self.conn().await?, (stored(shard), ids)).await?;
        }
        Ok(())
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let binds = (stored(shard), i64::from(limit));
        Ok(outbox_rows(shard, rows::<SelectAside, _, _>(&mut self.conn().await?, binds).await?))
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !ids.is_empty() {
            run::<DeleteAside>(&mut self.conn().await?, (stored(shard), ids)).await?;
        }
        Ok(())
    }
}
