//! `Locked`: the command that holds the lock of its keys goes next. One command, one commit.
//!
//! Acquire, transact, release, in that order, in a task of its own: a caller that goes away leaves no half command and
//! no lock. The lock need not be trusted: the ledger is called under [`Guard::Version`], and a conflict is run again
//! until the deadline. A command that loses its lease stops retrying; a transaction already begun finishes, and its
//! reply counts. See `one_by_one` for what is retried and what the caller gets in the end.
//!
//! *Bounds.* Waiting for the lock and retrying share the request's deadline. The lock is released on every path:
//! success, refusal, error, panic. A lock that neither answers nor fails is given up [`LAST_TRY`] after the deadline. A
//! release that has not returned is given up after [`RELEASE_MAX`]: then the lease ends by its expiry. What is left to
//! do after the deadline takes [`GRACE`] in all.
//!
//! *Duplicates.* A command that finds the lock held for itself waits for its own stored reply. Before any `busy` the
//! reply is looked up once, because the other holder may just have finished.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Policy, Reply, Request};
use boxoffice_ports::{Deadline, ExecuteError, Executor, GRACE, Guard, Lease, Ledger, Lock, LockError, Receipt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::one_by_one::OneByOne;
use crate::Stats;

/// How often the reply of a command that is decided elsewhere is looked up.
const REPLY_POLL: Duration = Duration::from_millis(20);
/// How long a round trip to the lock service that is under way at the deadline may take.
const LAST_TRY: Duration = Duration::from_millis(100);
/// How long a caller whose answer is there waits at most for the lock's release.
const RELEASE_MAX: Duration = Duration::from_millis(450);

/// See the module's opening.
pub struct Locked {
    inner: Arc<Inner>,
}

struct Inner {
    lock: Arc<dyn Lock>,
    ledger: OneByOne,
}

impl Locked {
    pub fn new(lock: Arc<dyn Lock>, ledger: Arc<dyn Ledger>, policy: Arc<Policy>, permits: Arc<Semaphore>, stats: Arc<Stats>) -> Arc<Self> {
        let ledger = OneByOne::new(ledger, Guard::Version, policy, permits, stats);
        Arc::new(Self { inner: Arc::new(Inner { lock, ledger }) })
    }
}

#[async_trait]
impl Executor for Locked {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        let inner = self.inner.clone();
        let span = tracing::debug_span!("lock", lock.waited_us = field::Empty, lock.held_us = field::Empty);
        let task = tokio::spawn({
            let recording = span.clone();
            async move { inner.decide(request, deadline, &recording).await }.instrument(span)
        });
        task.await.map_err(|panic| ExecuteError::Internal(panic.to_string().into()))?.map(Receipt::Done)
    }
}

impl Inner {
    async fn decide(&self, request: Request, deadline: Deadline, span: &Span) -> Result<Reply, ExecuteError> {
        let started = Instant::now();
        let keys = request.command.contention();
        let acquire = self.lock.acquire(keys, request.command_id, deadline);
        let acquired = deadline.later_by(LAST_TRY).bound(acquire).await;
        let acquired = acquired.unwrap_or_else(|overdue| Err(LockError::Unavailable(overdue.into())));
        self.waited(started.elapsed(), span);
        match acquired {
            Ok(lease) => self.decide_with(lease, &request, deadline, span).await,
            Err(LockError::Busy { same_command: true }) => self.reply_until(&request, deadline).await,
            Err(LockError::Busy { same_command: false }) => self.ledger.stored_or_busy(&request, deadline).await,
            Err(LockError::Unavailable(source)) => Err(ExecuteError::Unavailable(source)),
        }
    }

    async fn decide_with(&self, lease: Box<dyn Lease>, request: &Request, deadline: Deadline, span: &Span) -> Result<Reply, ExecuteError> {
        let taken = Instant::now();
        let result = self.ledger.decide(request, deadline, async { lease.lost().await }).await;
        if deadline.later_by(GRACE).within(RELEASE_MAX).bound(lease.release()).await.is_err() {
            tracing::warn!("timed out releasing a lock; it ends by its expiry");
        }
        self.held(taken.elapsed(), span);
        result
    }

    fn waited(&self, time: Duration, span: &Span) {
        let us = time.as_micros() as u64;
        self.ledger.stats.lock_waits.add(1);
        self.ledger.stats.lock_wait_us.add(us);
        span.record("lock.waited_us", us);
    }

    fn held(&self, time: Duration, span: &Span) {
        let us = time.as_micros() as u64;
        self.ledger.stats.lock_held_us.add(us);
        span.record("lock.held_us", us);
    }

    /// The reply that another holder of the same command stores, if that is in time.
    async fn reply_until(&self, request: &Request, deadline: Deadline) -> Result<Reply, ExecuteError> {
        loop {
            if let Some(reply) = self.ledger.stored(request, deadline.later_by(GRACE)).await? {
                return Ok(reply);
            }
            if deadline.remaining() <= REPLY_POLL {
                return Err(ExecuteError::InProgress);
            }
            tokio::time::sleep(REPLY_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests;
