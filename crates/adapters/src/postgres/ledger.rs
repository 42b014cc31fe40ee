//! The ledger on PostgreSQL: one batch is one transaction of three flights, whatever the size of the batch.
//!
//! A flight is everything that is sent before the first answer to it is read. Each statement is prepared once for a
//! connection, with one array for each column, and left out when there is nothing for it.
//!
//! | flight | statements, in order | locks | bound | a crash behind it leaves |
//! | --- | --- | --- | --- | --- |
//! | 1 load | `BEGIN` | | | nothing |
//! | | payments of the roots | those rows | one a refund | |
//! | | reservations of the roots, and of those payments | those rows | one a command | |
//! | | seats of the roots, and of those reservations | those rows | choices × seats of a hold | |
//! | | accounts that are not known to exist: insert, on conflict nothing | what is inserted | one a command | |
//! | | accounts of the roots: locked; in a batch with holds or extensions locked by writing the next version | those rows | one a command | |
//! | | replies; terms of dates; what counts against a limit; the clock | – | one a command | nothing: the server rolls back |
//! | 2 write | payments, reservations, seats, accounts that changed; entries, points entries, replies, outbox | what is inserted | [`EVENTS_MAX`] | nothing: the server rolls back |
//! | 3 commit | `COMMIT` alone | | | everything, told or not: a repeat is answered from its stored reply |
//!
//! Between 1 and 2 `decide_batch` runs in memory. What decides nothing new is rolled back and flushes nothing.
//!
//! **Lock order**: payments, reservations, seats, accounts, and within a class by key: arrays are sorted, and the
//! statements loop over them in their order (`CROSS JOIN LATERAL (… OFFSET 0)` allows no other plan). What hangs on a
//! root is found inside the locking statement by columns that never change, so nothing has to be checked again. Accounts
//! are inserted, sorted, as the last step before they are locked: a row that does not exist locks nothing. Replies are
//! read after the locks, because a duplicate locks the same roots, and the later one must see the first's reply.
//!
//! **Writes** find the rows of flight 1 by their place (`ctid`), which cannot change while this transaction has them
//! locked, and take them at the version they were read at. Whoever else changes a row gives it another place, so under
//! `Version` place and version guard twice. Each row count is checked; the commit is sent when every statement has
//! succeeded, because of a failed transaction PostgreSQL answers `COMMIT` without an error. Outbox ids are given at
//! insert, under the locks, so each seat's and wallet's events ascend in the order of their commits.
//!
//! **Guards.** `RowLock` is read committed and locks as above. `Version` is repeatable read without locks: flight 1
//! reads the same rows from one snapshot, and a row that somebody else wrote meanwhile, or a key that somebody else
//! inserted, is a `Conflict`. Both may run at once: every write raises the version.
//!
//! **Locks of others.** `lock_timeout` is short, because a whole batch waits: after a time-out `held` says, in one flight
//! that waits for nothing, which roots another transaction keeps, so that the rest of the batch can do without them.
//!
//! **Failure.** The transaction runs in a task of its own, so a caller that goes away changes nothing. After an error
//! the session is rolled back and used again; one that can serve no more (lost, of a server that takes no writes, left
//! in a failed transaction), did not answer by the deadline, or did not roll back in time, is cut.

mod connections;
mod held;
mod known;
mod load;
#[cfg(test)]
mod plans;
mod write;

use super::PostgresStore;
use super::failure::Failure;
use super::session::{Known, Session, known};
use super::sql::{Id, Json, row, statements};
use async_trait::async_trait;
use boxoffice_domain::{
    Batch, CommandId, Fingerprint, IdempotencyKey, Key, Outcome, Rejection, Request, Roots, StoredReply, Timestamp, UserId, decide_batch,
};
use boxoffice_ports::{Clock, Committed, Deadline, Guard, Ledger, LedgerError, StoredAnswer, Traffic};
use connections::Connections;
use diesel::sql_types::{Binary, Bool, Text, Timestamptz, Uuid as SqlUuid};
use known::KnownAccounts;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Outbox ids are drawn once for a batch, this many; a batch with more events is refused, and half of it is not.
const EVENTS_MAX: usize = 1 << 20;
/// How long a look that belongs to no transaction may take; its caller may give it up earlier.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What the ledger needs of its store.
pub(super) struct PostgresLedger {
    connections: Connections,
    known: KnownAccounts,
    clock: Arc<dyn Clock>,
}

impl PostgresLedger {
    pub(super) fn new(address: super::connect::Address, connections: usize, clock: Arc<dyn Clock>, traffic: Arc<Traffic>) -> Self {
        Self { connections: Connections::new(address, connections, traffic), known: KnownAccounts::default(), clock }
    }

    async fn transact(&self, batch: &Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        let lease = self.connections.get(deadline).await?;
        match self.attempt(lease.session(), batch, guard).await {
            Ok(committed) => {
                lease.give_back();
                Ok(committed)
            }
            Err(failure) => {
                lease.end(&failure).await;
                Err(match guard {
                    Guard::RowLock => failure.into(),
                    Guard::Version => failure.under_versions(),
                })
            }
        }
    }

    /// Fails unless a transaction could be written now.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let lease = self.connections.get(Deadline::after(LOOK_MAX)).await?;
        let session = lease.session();
        match session.flight(session.rows::<SelectReadOnly, bool>(())).await {
            Ok(read_only) if read_only == [false] => {
                lease.give_back();
                Ok(())
            }
            outcome => {
                let failure = outcome.err().unwrap_or(Failure::ReadOnly);
                lease.end(&failure).await;
                Err(failure)
            }
        }
    }

    async fn held(&self, requests: &[Request]) -> Result<BTreeSet<Key>, Failure> {
        let lease = self.connections.get(Deadline::after(LOOK_MAX)).await?;
        match held::roots(lease.session(), &Roots::of(requests)).await {
            Ok(held) => {
                lease.give_back();
                Ok(held)
            }
            Err(failure) => {
                lease.end(&failure).await;
                Err(failure)
            }
        }
    }

    async fn attempt(&self, session: &Session, batch: &Batch, guard: Guard) -> Result<Committed, Failure> {
        let roots = Roots::of(&batch.requests);
        let mut loaded = load::working_set(session, &roots, guard, self).await?;
        let replies = decide_batch(&mut loaded.set, batch);
        if loaded.set.is_unchanged() {
            session.rollback().await?;
            return Ok(Committed { replies, seats: Vec::new() });
        }
        let seats = loaded.set.seat_changes();
        write::working_set(session, loaded).await?;
        session.commit().await?;
        self.known.remember(&roots.accounts);
        Ok(Committed { replies, seats })
    }
}

/// Every statement of a ledger's session.
fn all_statements() -> Vec<Known> {
    [load::statements_of_load(), write::statements_of_write(), held::statements_of_held(), vec![known::<SelectReadOnly>()]].concat()
}

/// A reply's body: what `decide` said.
type Body = Json<Result<Outcome, Rejection>>;
type ReplyRow = (Id<UserId>, Id<CommandId>, Vec<u8>, Body, Timestamp, Timestamp);

fn stored_reply(row: ReplyRow) -> Result<(IdempotencyKey, StoredReply), Failure> {
    let (user, command, fingerprint, body, decided_at, expires_at) = row;
    let fingerprint = fingerprint.try_into().map_err(|_| Failure::Data("a fingerprint is not 32 bytes".to_owned()))?;
    let stored = StoredReply { fingerprint: Fingerprint(fingerprint), result: body.0, decided_at, expires_at };
    Ok((IdempotencyKey { user: user.0, command: command.0 }, stored))
}

statements! {
    /// Whether what is written here would be refused: a standby, or a database that was made read-only.
    SelectReadOnly -> Bool = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";
    SelectReply -> ((SqlUuid, SqlUuid, Binary, Text, Timestamptz, Timestamptz), Timestamptz) =
        "SELECT user_id, command_id, fingerprint, body, decided_at, expires_at, clock_timestamp()
         FROM replies WHERE user_id = $1 AND command_id = $2";
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
        let (_, stored) = stored_reply(found)?;
        let live = stored.is_live(now + self.clock.offset());
        Ok(live.then(|| StoredAnswer { fingerprint: stored.fingerprint, reply: stored.replay() }))
    }
}
