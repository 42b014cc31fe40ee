//! The ledger on SQLite: one batch is one transaction of the one writer.
//!
//! | step | what | statements |
//! | --- | --- | --- |
//! | 1 | `BEGIN IMMEDIATE`: the file's write lock, so every row is locked at once and both guards are served | 1 |
//! | 2 | load by class (payments, reservations, seats, accounts), then replies, terms, occupied seats; the clock | one by key for each row |
//! | 3 | `decide_batch` | 0 |
//! | 4 | write changed rows, entries, replies, outbox; each row count is checked | one for each row |
//! | 5 | `COMMIT`: one flush of the log | 1 |
//!
//! There are no round trips: the store is in this process, and a statement by key costs two or three microseconds. A
//! charge is two look-ups (account, reply) and four writes (account, entry, reply, outbox) of its batch; the flush is
//! shared by all of the batch. A batch that decides nothing new writes nothing and flushes nothing.
//!
//! **Lock order**: the write lock is the only one, taken first; there is nothing to deadlock with. Another process that
//! holds it is waited for up to the busy time-out, then the batch is `Retryable`; one whose deadline is over by then is
//! given up. `Conflict` never happens.
//!
//! **After a crash** between any two steps before the end of 5, the log has no commit frame and the next open finds the
//! store as it was before 1. After 5 all effects are there, whether or not the caller was told: its repeat is answered
//! from the stored reply. No step leaves anything outside the file.

mod load;
mod write;

use super::sql::{At, Json, row, statements};
use super::writer::{Session, Share};
use super::{Failure, SqliteStore};
use async_trait::async_trait;
use boxoffice_domain::{Batch, Fingerprint, IdempotencyKey, Outcome, Rejection, StoredReply, decide_batch};
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, StoredAnswer};
use diesel::sql_types::{BigInt, Binary, Text};

statements! {
    SelectReply -> (Binary, Text, BigInt, BigInt) =
        "SELECT fingerprint, body, decided_at, expires_at FROM replies WHERE user_id = ? AND command_id = ?";
}

/// A reply's body: what `decide` said.
type Body = Json<Result<Outcome, Rejection>>;

fn stored_reply(conn: &mut diesel::SqliteConnection, key: IdempotencyKey) -> Result<Option<StoredReply>, Failure> {
    let found: Option<(Vec<u8>, Body, At, At)> = row::<SelectReply, _, _>(conn, (key.user, key.command))?;
    found
        .map(|(fingerprint, body, decided_at, expires_at)| {
            let fingerprint = fingerprint.try_into().map_err(|_| Failure::Data("a fingerprint is not 32 bytes".to_owned()))?;
            Ok(StoredReply { fingerprint: Fingerprint(fingerprint), result: body.0, decided_at: decided_at.0, expires_at: expires_at.0 })
        })
        .transpose()
}

fn transact(session: &mut Session, batch: &Batch) -> Result<Committed, Failure> {
    // Read here, under the write lock: a command that waited in a queue creates no hold that is dead at birth.
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
        let stored = self.readers.read(move |conn| stored_reply(conn, key)).await?;
        let live = stored.filter(|stored| stored.is_live(clock.now()));
        Ok(live.map(|stored| StoredAnswer { fingerprint: stored.fingerprint, reply: stored.replay() }))
    }
}
