//! The ledger on SQLite: one batch is one transaction of the one writer.
//!
//! | step | action | statements |
//! | --- | --- | --- |
//! | 1 | `BEGIN IMMEDIATE`: the file's write lock, so every row is locked at once and both guards are served | 1 |
//! | 2 | load by class (payments, reservations, seats, accounts), then replies, terms, occupied seats; the clock | one by key for each row |
//! | 3 | `decide_batch` | 0 |
//! | 4 | write changed rows, entries, replies, outbox; each row count is checked | one for each row |
//! | 5 | `COMMIT`: one flush of the log | 1 |
//!
//! There are no round trips: the store is in this process, and a statement by key costs two or three microseconds. A
//! charge costs its batch two look-ups (account, reply) and four writes (account, entry, reply, outbox). The whole batch
//! shares one flush. A batch that decides nothing new writes nothing and flushes nothing.
//!
//! **Lock order**: the write lock is the only one and is taken first, so there is no deadlock. If another process holds
//! it for longer than the busy time-out, the batch is `Retryable`; if the batch's deadline passes meanwhile, the batch is
//! given up. `Conflict` never happens.
//!
//! **After a crash** between any two steps before the end of 5, the log has no commit frame and the next open finds the
//! store as it was before 1. After 5 all effects are there, whether or not the caller got its answer: a repeat is
//! answered from the stored reply. No step leaves anything outside the file.

mod load;
mod write;

use super::SqliteStore;
use super::failure::Failure;
use super::writer::{Session, Share};
use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey, decide_batch};
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, StoredAnswer};

fn transact(session: &mut Session, batch: &Batch) -> Result<Committed, Failure> {
    // Read here, under the write lock: a command that waited in a queue must not create a hold that has expired already.
    let now = session.clock.now();
    let mut set = load::working_set(&mut session.conn, batch, now)?;
    let replies = decide_batch(&mut set, batch);
    if set.is_unchanged() {
        return Ok(Committed { replies, seats: Vec::new() });
    }
    let seats = set.seat_changes();
    write::working_set(session, set)?;
    Ok(Committed { replies, seats })
}

#[async_trait]
impl Ledger for SqliteStore {
    async fn transact(&self, batch: Batch, _: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        Ok(self.writer.write(Share::Batch(deadline), move |session| transact(session, &batch)).await?)
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        let clock = self.clock.clone();
        let stored = self.readers.read(move |conn| load::reply(conn, key)).await?;
        let live = stored.filter(|stored| stored.is_live(clock.now()));
        Ok(live.map(|stored| StoredAnswer { fingerprint: stored.fingerprint, reply: stored.replay() }))
    }
}
