//! The ledger: the only place where money and seats change.

use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey, Key, Reply, Request, SeatChange};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{Deadline, Source};

/// How a write is guarded against concurrent commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Rows are locked before they are read, in the global order.
    RowLock,
    /// Rows are read without locks; a write whose row has another version by then is [`LedgerError::Conflict`].
    Version,
}

/// What came of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One for each request, in order.
    pub replies: Vec<Reply>,
    /// The seats that this call changed, with their new versions, for the views that are kept of them.
    pub seats: Vec<SeatChange>,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Under [`Guard::Version`]: another transaction changed a row first. Nothing was written; run it again.
    #[error("a row was changed concurrently")]
    Conflict,
    /// Serialisation failure, deadlock, lost connection (even after COMMIT): run it again, stored replies prevent a second effect.
    #[error("the transaction failed and can be run again: {0}")]
    Retryable(#[source] Source),
    /// A row stayed locked for too long. Nothing was written. [`Ledger::held`] says which; requests that do not need it
    /// can be decided.
    #[error("timed out waiting for a row lock")]
    LockTimeout,
    /// Data or a constraint that this batch cannot get past. Nothing was written; a smaller batch may.
    #[error("the batch was refused by the store: {0}")]
    Refused(#[source] Source),
    /// The store cannot be reached.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// See the module's opening.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Loads what the batch touches, runs [`boxoffice_domain::decide_batch`], writes everything: all effects of the
    /// batch are durable when this returns `Ok`, or none is. Once polled it runs to its end, even when its future is
    /// dropped.
    ///
    /// A transaction that has not begun to commit by `deadline` is given up, and nothing was written. A commit that has
    /// begun is awaited, because its outcome is needed: callers with a deadline bound the whole call and look for the
    /// reply later.
    async fn transact(&self, batch: Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError>;

    /// The rows of `requests` ([`Command::rows`](boxoffice_domain::Command::rows)) that another transaction keeps locked
    /// at this moment, or that depend on such a row. Waits for none of them, and locks nothing beyond this call. Empty
    /// for a store in which no other transaction can lock a row. Dropping the future gives it up.
    async fn held(&self, _requests: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError> {
        Ok(BTreeSet::new())
    }

    /// The live reply stored under `key`, marked as replayed. Dropping the future gives it up, at any time.
    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError>;
}

/// A stored reply with the fingerprint it was given for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    pub fingerprint: boxoffice_domain::Fingerprint,
    pub reply: Reply,
}
