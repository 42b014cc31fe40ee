//! What background work asks of the file: due holds, old replies, sent events, and the keys that tokens are signed
//! with. Each step is bounded by its caller's limit, and a step that a crash undoes is simply done again.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{At, Id, Json, row, rows, run, statements};
use super::writer::Share;
use async_trait::async_trait;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_domain::{Event, ReservationId};
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, Secrets, StoreError, Unsent, Upkeep};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use std::time::Duration;

/// Counting the unsent stops here.
const COUNT_MAX: i64 = 100_000;

statements! {
    SelectOne -> BigInt = "SELECT 1";
    SelectDue -> Binary = "SELECT id FROM reservations WHERE status = 'held' AND expires_at <= ? ORDER BY expires_at LIMIT ?";
    DeleteReplies = "DELETE FROM replies WHERE (user_id, command_id) IN
        (SELECT user_id, command_id FROM replies WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)";
    SelectEvents -> (BigInt, Text, BigInt) = "SELECT id, payload, occurred_at FROM outbox WHERE shard = ? ORDER BY id LIMIT ?";
    SelectEventIds -> BigInt = "SELECT id FROM outbox WHERE shard = ? AND id BETWEEN ? AND ? ORDER BY id";
    InsertAside = "INSERT INTO outbox_rooms (shard, id, payload, occurred_at)
        SELECT shard, id, payload, occurred_at FROM outbox WHERE shard = ? AND id = ? ON CONFLICT DO NOTHING";
    SelectAside -> (BigInt, Text, BigInt) =
        "SELECT id, payload, occurred_at FROM outbox_rooms WHERE shard = ? ORDER BY id LIMIT ?";
    DeleteAside = "DELETE FROM outbox_rooms WHERE shard = ? AND id = ?";
    DeleteEvents = "DELETE FROM outbox WHERE shard = ? AND id BETWEEN ? AND ?";
    // The first of each shard is the oldest there.
    CountUnsent -> (BigInt, Nullable<BigInt>) =
        "WITH RECURSIVE shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM shards WHERE shard < 15)
         SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?)), min(oldest)
         FROM (SELECT (SELECT occurred_at FROM outbox WHERE outbox.shard = shards.shard ORDER BY id LIMIT 1) AS oldest FROM shards)";
    InsertSecret = "INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING";
    SelectSecret -> Binary = "SELECT value FROM secrets WHERE name = ?";
}

#[async_trait]
impl Upkeep for SqliteStore {
    async fn due_holds(&self, limit: u32) -> Result<Vec<ReservationId>, StoreError> {
        let clock = self.clock.clone();
        let read = self.readers.read(move |conn| {
            let due: Vec<Id<ReservationId>> = rows::<SelectDue, _, _>(conn, (At(clock.now()), i64::from(limit)))?;
            Ok(due.into_iter().map(|id| id.0).collect())
        });
        Ok(read.await?)
    }

    /// Behind what the writer has to do, in a transaction that may write.
    async fn check(&self) -> Result<(), StoreError> {
        self.readers.read(|conn| Ok(row::<SelectOne, _, i64>(conn, ()).map(drop)?)).await?;
        Ok(self.writer.write(Share::Small, |session| Ok(row::<SelectOne, _, i64>(&mut session.conn, ()).map(drop)?)).await?)
    }

    async fn prune_replies(&self, limit: u32) -> Result<u64, StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            let now = session.clock.now();
            Ok(run::<DeleteReplies>(&mut session.conn, (At(now), i64::from(limit)))? as u64)
        });
        Ok(write.await?)
    }
}

fn outbox_rows(shard: u32, found: Vec<(i64, Json<Event>, At)>) -> Vec<OutboxRow> {
    found.into_iter().map(|(id, event, at)| OutboxRow { shard, id, event: event.0, occurred_at: at.0 }).collect()
}

#[async_trait]
impl Outbox for SqliteStore {
    /// All of them: the file has one server.
    async fn claim(&self, _: InstanceId, _: Duration) -> Result<Vec<u32>, StoreError> {
        Ok((0..OUTBOX_SHARDS).collect())
    }

    async fn release(&self, _: InstanceId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn backlog(&self) -> Result<Unsent, StoreError> {
        let clock = self.clock.clone();
        let read = self.readers.read(move |conn| {
            let (count, oldest): (i64, Option<At>) =
                row::<CountUnsent, _, _>(conn, (COUNT_MAX,))?.ok_or_else(|| Failure::Data("a count is missing".to_owned()))?;
            let oldest = oldest.map_or(Duration::ZERO, |at| (clock.now() - at.0).to_std().unwrap_or_default());
            Ok(Unsent { count: count.unsigned_abs(), oldest })
        });
        Ok(read.await?)
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let read =
            self.readers.read(move |conn| Ok(outbox_rows(shard, rows::<SelectEvents, _, _>(conn, (i64::from(shard), i64::from(limit)))?)));
        Ok(read.await?)
    }

    async fn sent(&self, shard: u32, mut ids: Vec<i64>) -> Result<(), StoreError> {
        ids.sort_unstable();
        let write = self.writer.write(Share::Small, move |session| {
            let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(()) };
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            let between: Vec<i64> = rows::<SelectEventIds, _, _>(conn, (shard, first, last))?;
            if between == ids {
                // Usually what was sent is all there is in between, and one statement takes it away.
                run::<DeleteEvents>(conn, (shard, first, last))?;
                return Ok(());
            }
            // Not counted: a row that is gone already was sent twice, which is no error.
            ids.iter().try_for_each(|&id| run::<DeleteEvents>(conn, (shard, id, id)).map(drop))?;
            Ok(())
        });
        Ok(write.await?)
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            for &id in &ids {
                run::<InsertAside>(conn, (shard, id))?;
                run::<DeleteEvents>(conn, (shard, id, id))?;
            }
            Ok(())
        });
        Ok(write.await?)
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let read =
            self.readers.read(move |conn| Ok(outbox_rows(shard, rows::<SelectAside, _, _>(conn, (i64::from(shard), i64::from(limit)))?)));
        Ok(read.await?)
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            ids.iter().try_for_each(|&id| run::<DeleteAside>(conn, (shard, id)).map(drop))?;
            Ok(())
        });
        Ok(write.await?)
    }
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            run::<InsertSecret>(&mut session.conn, (name.as_str(), fresh.as_slice()))?;
            let secret: Option<Vec<u8>> = row::<SelectSecret, _, _>(&mut session.conn, (name.as_str(),))?;
            secret.ok_or_else(|| Failure::Data("a secret that was just written is missing".to_owned()))
        });
        Ok(write.await?)
    }
}
