//! One command, one ledger call: the loop that every strategy without batches goes through.
//!
//! After a conflict, or while the store is unreachable, the call is run again until the deadline. After transient
//! failures it is run up to [`TRIES`] times. Running it again is always safe, because replies de-duplicate. Pauses grow
//! and are jittered, so that commands that conflicted do not conflict again.
//!
//! *Bounds.* At most as many commands are at the ledger at once as there are permits; all others queue for one in the
//! order they came. A command that lost against another commit keeps its permit. So no more than those few ever race
//! for a hot row, and none loses for ever against newcomers. A call that is under way at the deadline goes on in its
//! task, because it may be committing. A command that never got to the ledger is [`ExecuteError::Overloaded`].
//!
//! *Held rows.* A command that needs a row which another transaction keeps locked waits in `row_waiters`, without a
//! permit, until its deadline. It is decided there, under row locks.
//!
//! *Failure.* Each call is a task of its own. So a panic in it costs this command alone, and a lease that the caller
//! holds outlives it. Before a caller is refused, the stored reply is looked up once: the call may have been committed,
//! or another instance may have decided the same command. At the deadline that takes [`GRACE`] more at most.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Batch, Key, Policy, Reply, Request};
use boxoffice_ports::{Committed, Deadline, ExecuteError, GRACE, Guard, Ledger, LedgerError, Overdue};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::attempt::{TRIES, held, jittered};
use super::row_waiters::{RowWaiters, WAITING_MAX};
use super::stored::stored;
use crate::Stats;

/// The first pause; it doubles with each.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest pause after a conflict: the row is free again, because another command has just committed.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(50);
/// The longest pause after a failure: the store is given time to recover.
const FAILURE_PAUSE_MAX: Duration = Duration::from_millis(400);

/// See the module's opening.
pub(super) struct OneByOne {
    ledger: Arc<dyn Ledger>,
    policy: Arc<Policy>,
    pub(super) stats: Arc<Stats>,
    guard: Guard,
    /// Fair. All executors that use the same connections share them.
    permits: Arc<Semaphore>,
    row_waiters: RowWaiters,
}

impl OneByOne {
    pub(super) fn new(ledger: Arc<dyn Ledger>, guard: Guard, policy: Arc<Policy>, permits: Arc<Semaphore>, stats: Arc<Stats>) -> Self {
        let row_waiters = RowWaiters::new(ledger.clone(), policy.clone(), stats.clone(), WAITING_MAX);
        Self { ledger, policy, stats, guard, permits, row_waiters }
    }

    /// Tries to decide `request` until `deadline`, or until `give_up` returns while no call runs.
    pub(super) async fn decide(
        &self,
        request: &Request,
        deadline: Deadline,
        give_up: impl Future<Output = ()>,
    ) -> Result<Reply, ExecuteError> {
        let requests: Arc<[Request]> = vec![request.clone()].into();
        let mut give_up = pin!(give_up);
        let mut timed_out = false;
        let (mut tries, mut pause) = (1, PAUSE);
        let mut last = None;
        let mut kept = None;
        loop {
            if kept.is_none() {
                let permit = tokio::select! {
                    biased;
                    permit = deadline.bound(self.permits.acquire()) => permit,
                    () = &mut give_up => return self.stored_or_busy(request, deadline).await,
                };
                kept = permit.ok().and_then(Result::ok);
            }
            if kept.is_none() || deadline.is_over() {
                return self.without_answer(request, last, deadline).await;
            }
            // Checked with a permit: commands that queued for one meanwhile would else run into the same time-out in
            // turn.
            if self.row_waiters.must_wait([request]).is_some() {
                return self.decide_with_row_waiters(request, &[], kept, deadline, give_up).await;
            }
            let error = match self.call(&requests, deadline).await? {
                Ok(reply) => return Ok(reply),
                Err(LedgerError::Refused(source)) => return Err(ExecuteError::Internal(source)),
                Err(LedgerError::LockTimeout) => {
                    let mut rows: Vec<_> = held(&self.ledger, &requests, deadline).await.into_iter().collect();
                    if rows.is_empty() && timed_out {
                        // The row was inserted by a transaction that has not committed, or several lock it in turn.
                        rows = request.command.rows();
                    }
                    if !rows.is_empty() {
                        return self.decide_with_row_waiters(request, &rows, kept, deadline, give_up).await;
                    }
                    timed_out = true;
                    last = Some(LedgerError::LockTimeout);
                    self.stats.retries.add(1);
                    continue;
                }
                Err(error) => error,
            };
            let pause_max = match error {
                LedgerError::Conflict => CONFLICT_PAUSE_MAX,
                _ => {
                    kept = None;
                    FAILURE_PAUSE_MAX
                }
            };
            let counts = matches!(error, LedgerError::Retryable(_));
            let gives_up = counts && tries >= TRIES || pause >= deadline.remaining();
            tries += u32::from(counts);
            last = Some(error);
            if gives_up {
                return self.without_answer(request, last, deadline).await;
            }
            self.stats.retries.add(1);
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                () = &mut give_up => return self.without_answer(request, last, deadline).await,
            }
            pause = (pause * 2).min(pause_max);
        }
    }

    /// Waits with the other commands that need a held row, and without the permit.
    async fn decide_with_row_waiters(
        &self,
        request: &Request,
        held: &[Key],
        permit: Option<SemaphorePermit<'_>>,
        deadline: Deadline,
        give_up: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Reply, ExecuteError> {
        let (answer, answered) = oneshot::channel();
        self.row_waiters.add(request.clone(), held, deadline, answer);
        drop(permit);
        tokio::select! {
            biased;
            answered = deadline.bound(answered) => if let Ok(Ok(answer)) = answered { return answer },
            () = give_up => {}
        }
        self.without_answer(request, Some(LedgerError::LockTimeout), deadline).await
    }

    async fn call(&self, requests: &Arc<[Request]>, deadline: Deadline) -> Result<Result<Reply, LedgerError>, ExecuteError> {
        let started = Instant::now();
        let (ledger, guard) = (self.ledger.clone(), self.guard);
        let batch = Batch { requests: requests.clone(), policy: self.policy.clone() };
        let call = tokio::spawn(async move { ledger.transact(batch, guard, deadline).await }.in_current_span());
        let result = match deadline.bound(call).await {
            Ok(ended) => ended.map_err(|panic| ExecuteError::Internal(panic.to_string().into()))?,
            Err(Overdue) => Err(LedgerError::Unavailable(Overdue.into())),
        };
        self.stats.ledger_us.add(started.elapsed().as_micros() as u64);
        match result {
            Ok(Committed { mut replies, .. }) => {
                self.stats.batches.add(1);
                self.stats.commands.add(1);
                replies.pop().map(Ok).ok_or_else(|| ExecuteError::Internal("the ledger gave no reply".into()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// The caller's answer when there are no more tries: a reply that was stored meanwhile, or the last failure.
    async fn without_answer(&self, request: &Request, last: Option<LedgerError>, deadline: Deadline) -> Result<Reply, ExecuteError> {
        match last {
            None => {
                self.stats.overloaded.add(1);
                Err(ExecuteError::Overloaded)
            }
            Some(LedgerError::Conflict) => self.stored_or_busy(request, deadline).await,
            Some(error) => match self.stored(request, deadline.later_by(GRACE)).await {
                Ok(Some(reply)) => Ok(reply),
                _ => Err(ExecuteError::Unavailable(error.into())),
            },
        }
    }

    /// Looks up the stored reply before [`ExecuteError::Busy`]: the same command may just have been decided elsewhere.
    pub(super) async fn stored_or_busy(&self, request: &Request, deadline: Deadline) -> Result<Reply, ExecuteError> {
        match self.stored(request, deadline.later_by(GRACE)).await? {
            Some(reply) => Ok(reply),
            None => {
                self.stats.busy.add(1);
                Err(ExecuteError::Busy)
            }
        }
    }

    /// The reply stored for `request`, if it has one.
    pub(super) async fn stored(&self, request: &Request, deadline: Deadline) -> Result<Option<Reply>, ExecuteError> {
        stored(&self.ledger, request, deadline).await
    }
}
