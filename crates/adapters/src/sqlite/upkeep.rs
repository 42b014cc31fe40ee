//! What background work reads and deletes: due holds, and replies past their time. A step is bounded by its caller's
//! limit, and one that a crash undoes is done again.

use super::SqliteStore;
use super::sql::{At, Id, row, rows, run, statements};
use super::writer::Share;
use async_trait::async_trait;
use boxoffice_domain::ReservationId;
use boxoffice_ports::{StoreError, Upkeep};
use diesel::sql_types::{BigInt, Binary};

statements! {
    SelectOne -> BigInt = "SELECT 1";
    SelectDue -> Binary = "SELECT id FROM reservations WHERE status = 'held' AND expires_at <= ? ORDER BY expires_at LIMIT ?";
    DeleteReplies = "DELETE FROM replies WHERE (user_id, command_id) IN
        (SELECT user_id, command_id FROM replies WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)";
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

    /// The write is queued behind the writer's other work, in a transaction that may write.
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
