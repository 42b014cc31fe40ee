//! The ledger on PostgreSQL: one batch is one transaction of three round trips at any size.
//!
//! In a round trip everything is sent before the first answer is read. Each statement is prepared once for a connection,
//! takes one array for each column, and is left out when it has nothing to do.
//!
//! | round trip | statements, in order | locks | bound | after a crash |
//! | --- | --- | --- | --- | --- |
//! | 1 load | `BEGIN` | | | nothing is left |
//! | | payments of the roots | those rows | one a refund | |
//! | | reservations of the roots, and of those payments | those rows | one a command | |
//! | | seats of the roots, and of those reservations | those rows | choices × seats of a hold | |
//! | | accounts that are not known to exist: insert, on conflict nothing | inserted rows | one a command | |
//! | | accounts of the roots: locked; in a batch with holds or extensions locked by writing the next version | those rows | one a command | |
//! | | replies; terms of dates; seats that count against a limit; the clock | – | one a command | nothing is left: the server rolls back |
//! | 2 write | payments, reservations, seats, accounts that changed; entries, points entries, replies, outbox | inserted rows | [`EVENTS_MAX`](write::EVENTS_MAX) | nothing is left: the server rolls back |
//! | 3 commit | `COMMIT` alone | | | everything is there, answered or not: a repeat gets its stored reply |
//!
//! Between 1 and 2 `decide_batch` runs in memory. A batch that decides nothing new is rolled back and flushes nothing.
//!
//! **Lock order**: payments, reservations, seats, accounts, and within a class by key: arrays are sorted, and the
//! statements loop over them in their order (`CROSS JOIN LATERAL (… OFFSET 0)` allows no other plan). The rows that hang
//! on a root are found inside the locking statement, by columns that never change, so nothing has to be checked again.
//! Accounts are inserted, sorted, as the last step before they are locked: a row that does not exist locks nothing.
//! Replies are read after the locks, because a duplicate locks the same roots, and the later one must see the first's
//! reply.
//!
//! **Writes** find the rows of round trip 1 by their place (`ctid`), which cannot change while this transaction has them
//! locked, and require the version that was read. Another transaction's change gives a row another place, so under
//! `Version` both place and version guard it. Each row count is checked. The commit is sent only after every statement has
//! succeeded, because PostgreSQL answers the `COMMIT` of a failed transaction without an error. Outbox ids are given at
//! insert, under the locks, so the events of each seat and wallet ascend in the order of their commits.
//!
//! **Guards.** `RowLock` is read committed and locks as above. `Version` is repeatable read without locks: round trip 1
//! reads the same rows from one snapshot, and a row changed or a key inserted by another transaction meanwhile is a
//! `Conflict`. Both guards may run concurrently: every write raises the version.
//!
//! **Other transactions' locks.** `lock_timeout` is short, because the whole batch waits. After a time-out `held` finds,
//! in one round trip that waits for no lock, which roots another transaction has locked; the rest of the batch goes on
//! without them.
//!
//! **Failure.** The transaction runs in a task of its own, so it goes on when its caller goes away. After an error the
//! session is rolled back and used again. It is closed instead if it can serve no more (lost, of a server that takes no
//! writes, left in a failed transaction), did not answer by the deadline, or did not roll back in time.

mod batch;
mod connections;
mod held;
mod keys;
mod known;
mod load;
#[cfg(test)]
mod plans;
mod statements;
mod write;

pub(super) use batch::PostgresLedger;

use super::PostgresStore;
use super::failure::Failure;
use super::rows::{ReplyRow, ReplyTypes, stored_reply};
use super::sql::{row, statements};
use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey, Key, Request, Timestamp};
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, StoredAnswer};
use diesel::sql_types::Timestamptz;
use std::collections::BTreeSet;
use std::sync::Arc;

statements! {
    SelectReply -> (ReplyTypes, Timestamptz) =
        "SELECT fingerprint, body, decided_at, expires_at, clock_timestamp() FROM replies WHERE user_id = $1 AND command_id = $2";
}

#[async_trait]
impl Ledger for PostgresStore {
    async fn transact(&self, batch: Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        if batch.requests.is_empty() {
            return Ok(Committed { replies: Vec::new(), seats: Vec::new() });
        }
        let ledger = self.ledger.clone();
        let transaction = tokio::spawn(async move { ledger.transact(&batch, guard, deadline).await });
        transaction.await.unwrap_or_else(|_| Err(LedgerError::Refused("the transaction's task panicked".into())))
    }

    async fn held(&self, requests: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError> {
        Ok(self.ledger.held(&requests).await?)
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        let mut conn = self.conn().await?;
        let found: Option<(ReplyRow, Timestamp)> = row::<SelectReply, _, _>(&mut conn, (key.user, key.command)).await?;
        let Some((found, now)) = found else { return Ok(None) };
        let stored = stored_reply(found).map_err(Failure::from)?;
        let live = stored.is_live(now + self.clock.offset());
        Ok(live.then(|| StoredAnswer { fingerprint: stored.fingerprint, reply: stored.replay() }))
    }
}
