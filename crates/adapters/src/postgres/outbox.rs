//! The outbox as a relay sees it. Several relays over one shard read the same rows, and so tell of them twice; each row
//! is deleted once, by whoever comes to it first, and nobody waits for another's deletion.

use super::PostgresStore;
use super::sql::{Json, rows, run, statements};
use async_trait::async_trait;
use boxoffice_domain::{Event, Timestamp};
use boxoffice_ports::{Outbox, OutboxRow, StoreError};
use diesel::sql_types::{BigInt, Text, Timestamptz};

statements! {
    SelectEvents -> (BigInt, Text, Timestamptz) =
        "SELECT id, payload, occurred_at FROM outbox WHERE shard = $1 ORDER BY id LIMIT $2";
    DeleteEvents =
        "DELETE FROM outbox WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM outbox WHERE shard = $1 AND id = ANY ($2) FOR UPDATE SKIP LOCKED))";
}

/// Shards are few.
fn stored(shard: u32) -> i32 {
    i32::try_from(shard).unwrap_or(i32::MAX)
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let binds = (stored(shard), i64::from(limit));
        let found: Vec<(i64, Json<Event>, Timestamp)> = rows::<SelectEvents, _, _>(&mut self.conn().await?, binds).await?;
        Ok(found.into_iter().map(|(id, event, occurred_at)| OutboxRow { shard, id, event: event.0, occurred_at }).collect())
    }

    /// Rows that are gone already were sent twice, which is no error.
    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !ids.is_empty() {
            run::<DeleteEvents>(&mut self.conn().await?, (stored(shard), ids)).await?;
        }
        Ok(())
    }
}
