//! `Locked`: whoever holds the lock of a command's keys goes next; one command, one commit.
//!
//! Acquire, transact, release, in that order, in a task of its own: a caller that goes away leaves no half command and
//! no lock. The lock need not be trusted: the ledger is called under [`Guard::Version`], and a conflict is run again
//! until `wait` is over. Whoever loses the lease stops retrying; a transaction already begun finishes, and its reply
//! counts.
//!
//! *Bounds.* Waiting for the lock and retrying share one deadline, `wait` after the start. The lock is released on
//! every path: success, refusal, error, panic.
//!
//! *Duplicates.* Whoever finds the lock held for its own command waits for that command's stored reply; and before any
//! `busy` the reply is looked up once, because the other one may just have finished.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Batch, Decision, Policy, Rejection, Reply, Request};
use boxoffice_ports::{Committed, ExecuteError, Executor, Guard, Lease, Ledger, LedgerError, Lock, LockError, Receipt};
use tokio::time::Instant;

use super::attempt::{TRIES, jittered};
use crate::Stats;

/// How often the reply of a command that is decided elsewhere is looked for.
const REPLY_POLL: Duration = Duration::from_millis(20);
/// The longest pause between two tries after a conflict.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(50);

/// See the module's opening.
pub struct Locked {
    inner: Arc<Inner>,
}

struct Inner {
    lock: Arc<dyn Lock>,
    ledger: Arc<dyn Ledger>,
    policy: Arc<Policy>,
    stats: Arc<Stats>,
    wait: Duration,
}

impl Locked {
    pub fn new(lock: Arc<dyn Lock>, ledger: Arc<dyn Ledger>, policy: Arc<Policy>, wait: Duration, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::new(Inner { lock, ledger, policy, stats, wait }) })
    }
}

#[async_trait]
impl Executor for Locked {
    async fn execute(&self, request: Request) -> Result<Receipt, ExecuteError> {
        let inner = self.inner.clone();
        let task = tokio::spawn(async move { inner.decide(request).await });
        task.await.map_err(|panic| ExecuteError::Internal(panic.to_string().into()))?.map(Receipt::Done)
    }
}

impl Inner {
    async fn decide(&self, request: Request) -> Result<Reply, ExecuteError> {
        let deadline = Instant::now() + self.wait;
        let keys = request.command.contention();
        let lease = match self.lock.acquire(keys, request.command_id, self.wait).await {
            Ok(lease) => lease,
            Err(LockError::Busy { same_command: true }) => return self.reply_until(&request, deadline).await,
            Err(LockError::Busy { same_command: false }) => return self.stored(&request).await?.ok_or(ExecuteError::Busy),
            Err(LockError::Unavailable(source)) => return Err(ExecuteError::Unavailable(source)),
        };
        let result = self.transact(&request, lease.as_ref(), deadline).await;
        lease.release().await;
        result
    }

    async fn transact(&self, request: &Request, lease: &dyn Lease, deadline: Instant) -> Result<Reply, ExecuteError> {
        let requests: Arc<[Request]> = vec![request.clone()].into();
        let (mut failures, mut pause) = (0, Duration::from_millis(1));
        loop {
            let started = Instant::now();
            let (ledger, batch) = (self.ledger.clone(), Batch { requests: requests.clone(), policy: self.policy.clone() });
            // The call is a task so that the lease outlives a panic in it.
            let call = tokio::spawn(async move { ledger.transact(batch, Guard::Version).await });
            let result = call.await.map_err(|panic| ExecuteError::Internal(panic.to_string().into()))?;
            self.stats.ledger_us.add(started.elapsed().as_micros() as u64);
            let error = match result {
                Ok(Committed { mut replies, .. }) => {
                    self.stats.batches.add(1);
                    self.stats.commands.add(1);
                    return replies.pop().ok_or_else(|| ExecuteError::Internal("the ledger gave no reply".into()));
                }
                Err(error) => error,
            };
            match error {
                LedgerError::Conflict => {}
                LedgerError::Retryable(_) | LedgerError::LockTimeout | LedgerError::Unavailable(_) if failures + 1 < TRIES => failures += 1,
                LedgerError::Refused(source) => return Err(ExecuteError::Internal(source)),
                other => return Err(ExecuteError::Unavailable(other.to_string().into())),
            }
            self.stats.retries.add(1);
            if Instant::now() + pause >= deadline {
                return self.stored(request).await?.ok_or(ExecuteError::Busy);
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                () = lease.lost() => return self.stored(request).await?.ok_or(ExecuteError::Busy),
            }
            pause = (pause * 2).min(CONFLICT_PAUSE_MAX);
        }
    }

    /// The reply that another holder of the same command stores, if it comes in time.
    async fn reply_until(&self, request: &Request, deadline: Instant) -> Result<Reply, ExecuteError> {
        loop {
            if let Some(reply) = self.stored(request).await? {
                return Ok(reply);
            }
            if Instant::now() + REPLY_POLL >= deadline {
                return Err(ExecuteError::InProgress);
            }
            tokio::time::sleep(REPLY_POLL).await;
        }
    }

    async fn stored(&self, request: &Request) -> Result<Option<Reply>, ExecuteError> {
        let Some((key, fingerprint)) = request.idempotency() else { return Ok(None) };
        let stored = self.ledger.reply(key).await.map_err(|error| ExecuteError::Unavailable(error.to_string().into()))?;
        Ok(stored.map(|answer| {
            if answer.fingerprint == fingerprint {
                answer.reply
            } else {
                Reply { decision: Decision::Refused(Rejection::IdempotencyKeyReused), replayed: false, ..answer.reply }
            }
        }))
    }
}

#[cfg(test)]
mod tests;
