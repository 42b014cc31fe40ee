//! Running a batch until each of its requests has an answer.
//!
//! Running it again is always safe: replies de-duplicate. So a transient failure is tried again [`TRIES`] times with
//! jitter, an unreachable store until the deadline; a batch that the store refuses is cut in two until the culprit is
//! alone, so that its neighbours get their answers. No request is dropped.
//!
//! *Bounds.* At the deadline every request has its answer. A ledger call that is under way by then goes on in its task,
//! because it may be committing; its replies are found under the requests' keys.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Batch, Policy, Reply, Request};
use boxoffice_ports::{Committed, Deadline, ExecuteError, Guard, Ledger, LedgerError, Overdue};
use rand::Rng;
use tokio::time::Instant;

use crate::Stats;

/// How often a batch is run when its failure may pass.
pub(super) const TRIES: u32 = 4;
/// The first pause before running again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);

pub(super) type Answer = Result<Reply, ExecuteError>;

/// One answer for each request, in order, by `deadline`: the latest of those that the requests came with.
pub(super) async fn answer_all(
    ledger: &Arc<dyn Ledger>,
    requests: Arc<[Request]>,
    policy: &Arc<Policy>,
    stats: &Stats,
    deadline: Deadline,
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(requests.len());
    // Halves are pushed right first, so that answers come in order.
    let mut parts = vec![requests];
    while let Some(part) = parts.pop() {
        if deadline.is_over() {
            answers.extend(part.iter().map(|_| Err(ExecuteError::Unavailable(Overdue.into()))));
            continue;
        }
        match run(ledger, &part, policy, stats, deadline).await {
            Ok(committed) => answers.extend(committed.replies.into_iter().map(Ok)),
            Err(Failure::Culprit(error)) => match split(&part) {
                Some((left, right)) => {
                    stats.bisections.add(1);
                    parts.push(right);
                    parts.push(left);
                }
                None => answers.push(Err(error.into_answer())),
            },
            Err(Failure::Everybody(error)) => {
                let why = error.to_string();
                answers.extend(part.iter().map(|_| Err(ExecuteError::Unavailable(why.clone().into()))));
            }
        }
    }
    answers
}

type Requests = Arc<[Request]>;

fn split(part: &Requests) -> Option<(Requests, Requests)> {
    (part.len() > 1).then(|| {
        let (left, right) = part.split_at(part.len() / 2);
        (left.into(), right.into())
    })
}

enum Failure {
    /// Some request of the batch cannot be had: smaller batches may succeed.
    Culprit(LedgerFailure),
    /// The store is not there for anybody.
    Everybody(LedgerFailure),
}

/// A failed call, or one that panicked.
#[derive(Debug, thiserror::Error)]
enum LedgerFailure {
    #[error(transparent)]
    Said(LedgerError),
    #[error("the ledger call panicked")]
    Panicked,
    #[error(transparent)]
    Overdue(#[from] Overdue),
}

impl LedgerFailure {
    fn into_answer(self) -> ExecuteError {
        match self {
            Self::Said(LedgerError::LockTimeout) => ExecuteError::Unavailable(self.to_string().into()),
            other => ExecuteError::Internal(other.to_string().into()),
        }
    }
}

async fn run(
    ledger: &Arc<dyn Ledger>,
    part: &Arc<[Request]>,
    policy: &Arc<Policy>,
    stats: &Stats,
    deadline: Deadline,
) -> Result<Committed, Failure> {
    let (mut tries, mut pause) = (1, PAUSE);
    loop {
        let started = Instant::now();
        let call = {
            let (ledger, batch) = (ledger.clone(), Batch { requests: part.clone(), policy: policy.clone() });
            // In a task of its own a panic costs this batch and not the lane.
            tokio::spawn(async move { ledger.transact(batch, Guard::RowLock, deadline).await })
        };
        let result = match deadline.bound(call).await {
            Ok(ended) => ended.map_err(|_| LedgerFailure::Panicked).and_then(|result| result.map_err(LedgerFailure::Said)),
            Err(overdue) => Err(overdue.into()),
        };
        stats.ledger_us.add(started.elapsed().as_micros() as u64);
        let failure = match result {
            Ok(committed) if committed.replies.len() == part.len() => {
                stats.batches.add(1);
                stats.commands.add(part.len() as u64);
                return Ok(committed);
            }
            // Answers that cannot be told apart are worth none.
            Ok(_) => return Err(Failure::Culprit(LedgerFailure::Panicked)),
            Err(failure) => failure,
        };
        tracing::warn!(error = %failure, batch.size = part.len(), tries, "a batch failed");
        let again = match &failure {
            LedgerFailure::Said(LedgerError::Unavailable(_)) => true,
            LedgerFailure::Said(LedgerError::Retryable(_) | LedgerError::Conflict) => tries < TRIES,
            LedgerFailure::Overdue(_) => false,
            _ => return Err(Failure::Culprit(failure)),
        };
        if !again || pause >= deadline.remaining() {
            // Cutting it up would not help, and would run it many times more.
            return Err(Failure::Everybody(failure));
        }
        stats.retries.add(1);
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
        tries += 1;
    }
}

/// Between half of `pause` and all of it, so that instances that failed together do not return together.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
