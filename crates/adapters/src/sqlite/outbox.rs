//! The outbox. The file has one server, so all shards are its own. Each call is one step; a step that a crash undoes is
//! done again.

use super::SqliteStore;
use super::failure::Failure;
use super::rows::{EventTypes, outbox_rows};
use super::sql::{At, Statement, row, rows, run, statements};
use super::writer::Share;
use crate::sql::rows::{EventRow, UNSENT_COUNT_MAX};
use async_trait::async_trait;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{InstanceId, Outbox, OutboxRow, StoreError, Unsent};
use diesel::sql_types::{BigInt, Nullable};
use std::time::Duration;

statements! {
    SelectEvents -> EventTypes = "SELECT id, payload, occurred_at FROM outbox WHERE shard = ? ORDER BY id LIMIT ?";
    SelectEventIds -> BigInt = "SELECT id FROM outbox WHERE shard = ? AND id BETWEEN ? AND ? ORDER BY id";
    InsertForRooms = "INSERT INTO outbox_rooms (shard, id, payload, occurred_at)
        SELECT shard, id, payload, occurred_at FROM outbox WHERE shard = ? AND id = ? ON CONFLICT DO NOTHING";
    SelectForRooms -> EventTypes =
        "SELECT id, payload, occurred_at FROM outbox_rooms WHERE shard = ? ORDER BY id LIMIT ?";
    DeleteForRooms = "DELETE FROM outbox_rooms WHERE shard = ? AND id = ?";
    DeleteEvents = "DELETE FROM outbox WHERE shard = ? AND id BETWEEN ? AND ?";
    // The first row of each shard is its oldest.
    CountUnsent -> (BigInt, Nullable<BigInt>) =
        "WITH RECURSIVE shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM shards WHERE shard < 15)
         SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT ?)), min(oldest)
         FROM (SELECT (SELECT occurred_at FROM outbox WHERE outbox.shard = shards.shard ORDER BY id LIMIT 1) AS oldest FROM shards)";
}

impl SqliteStore {
    async fn oldest<S: Statement<Columns = EventTypes>>(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let binds = (i64::from(shard), i64::from(limit));
        let found: Vec<EventRow<At>> = self.readers.read(move |conn| Ok(rows::<S, _, _>(conn, binds)?)).await?;
        Ok(outbox_rows(shard, found))
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    /// All shards: the file has one server.
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
                row::<CountUnsent, _, _>(conn, (UNSENT_COUNT_MAX,))?.ok_or_else(|| Failure::Data("a count is missing".to_owned()))?;
            let oldest = oldest.map_or(Duration::ZERO, |at| (clock.now() - at.0).to_std().unwrap_or_default());
            Ok(Unsent { count: count.unsigned_abs(), oldest })
        });
        Ok(read.await?)
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        self.oldest::<SelectEvents>(shard, limit).await
    }

    async fn sent(&self, shard: u32, mut ids: Vec<i64>) -> Result<(), StoreError> {
        ids.sort_unstable();
        let write = self.writer.write(Share::Small, move |session| {
            let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(()) };
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            let between: Vec<i64> = rows::<SelectEventIds, _, _>(conn, (shard, first, last))?;
            if between == ids {
                // Usually no other row lies in between, and one statement deletes them all.
                run::<DeleteEvents>(conn, (shard, first, last))?;
                return Ok(());
            }
            // Not counted: a row that is deleted already was sent twice, which is no error.
            ids.iter().try_for_each(|&id| run::<DeleteEvents>(conn, (shard, id, id)).map(drop))?;
            Ok(())
        });
        Ok(write.await?)
    }

    async fn set_aside(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            for &id in &ids {
                run::<InsertForRooms>(conn, (shard, id))?;
                run::<DeleteEvents>(conn, (shard, id, id))?;
            }
            Ok(())
        });
        Ok(write.await?)
    }

    async fn aside(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        self.oldest::<SelectForRooms>(shard, limit).await
    }

    async fn taken(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            let (conn, shard) = (&mut session.conn, i64::from(shard));
            ids.iter().try_for_each(|&id| run::<DeleteForRooms>(conn, (shard, id)).map(drop))?;
            Ok(())
        });
        Ok(write.await?)
    }
}
