//! What background work reads and deletes: due holds, and replies past their time. A step is bounded by its caller's
//! limit; a crash undoes all of it. Concurrent instances skip the rows that another one is deleting.

use super::PostgresStore;
use super::failure::{Failure, PostgresError};
use super::pool::{Conn, Isolation};
use super::session::SelectReadOnly;
use super::sql::{Id, row, rows, run, statements};
use async_trait::async_trait;
use boxoffice_domain::ReservationId;
use boxoffice_ports::{StoreError, Upkeep};
use diesel::sql_types::{Text, Uuid as SqlUuid};

statements! {
    SelectDue -> SqlUuid =
        "SELECT id FROM reservations
         WHERE status = 'held' AND expires_at <= (SELECT clock_timestamp() + $1 * interval '1 microsecond')
         ORDER BY expires_at LIMIT $2";
    // The index keeps a summary of each range of pages. Without it every step would read the whole table.
    BySummary -> Text = "SELECT set_config('enable_seqscan', 'off', true)";
    // Rows that another instance is deleting, or a command is replacing, are skipped without waiting.
    DeleteReplies =
        "DELETE FROM replies WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM replies WHERE expires_at <= (SELECT clock_timestamp() + $1 * interval '1 microsecond')
             LIMIT $2 FOR UPDATE SKIP LOCKED))";
}

async fn prune(conn: &mut Conn, offset_us: i64, limit: u32) -> Result<u64, Failure> {
    conn.begin(Isolation::ReadCommitted).await?;
    row::<BySummary, _, String>(conn, ()).await?;
    let pruned = run::<DeleteReplies>(conn, (offset_us, i64::from(limit))).await?;
    if pruned == 0 {
        conn.rollback().await?;
    } else {
        conn.commit().await?;
    }
    Ok(pruned as u64)
}

/// Fails unless the session could write: all but the ledger writes on pooled sessions.
async fn check(conn: &mut Conn) -> Result<(), Failure> {
    if row::<SelectReadOnly, _, bool>(conn, ()).await? == Some(false) {
        return Ok(());
    }
    let failure = PostgresError::ReadOnly.into();
    conn.close_after(&failure);
    Err(failure)
}

#[async_trait]
impl Upkeep for PostgresStore {
    async fn due_holds(&self, limit: u32) -> Result<Vec<ReservationId>, StoreError> {
        let due: Vec<Id<ReservationId>> = rows::<SelectDue, _, _>(&mut self.conn().await?, (self.offset_us(), i64::from(limit))).await?;
        Ok(due.into_iter().map(|id| id.0).collect())
    }

    async fn check(&self) -> Result<(), StoreError> {
        let (ledger, reader) = tokio::join!(self.ledger.check(), async { check(&mut self.conn().await?).await });
        Ok(ledger.and(reader)?)
    }

    async fn prune_replies(&self, limit: u32) -> Result<u64, StoreError> {
        Ok(prune(&mut self.conn().await?, self.offset_us(), limit).await?)
    }
}
