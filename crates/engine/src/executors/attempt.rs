//! Running a batch until each of its requests is settled.
//!
//! Running it again is always safe: replies de-duplicate. So a batch is run up to [`TRIES`] times with jitter after
//! transient failures, and until the deadline while the store is unreachable. A batch that the store refuses is cut in
//! two until the culprit is alone, so that its neighbours get their answers. No request is dropped.
//!
//! *Held rows.* After a lock time-out the ledger names the rows that another transaction keeps locked. The requests
//! that need them are handed back as [`Settled::Held`], and the others are decided at once: the batch stands still for
//! one time-out. If no such row is seen, it was released meanwhile, or the transaction that inserted it has not
//! committed. Then the batch is run once more, and after that cut in two.
//!
//! *Bounds.* At the deadline every request has its answer. A ledger call that is under way by then goes on in its task,
//! because it may be committing; its replies are found under the requests' keys.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Batch, Key, Policy, Reply, Request};
use boxoffice_ports::{Committed, Deadline, ExecuteError, Guard, Ledger, LedgerError, Overdue};
use rand::Rng;
use tokio::time::Instant;

use super::behind::{divide, order_key};
use crate::Stats;

/// How often a batch is run when its failure may pass.
pub(super) const TRIES: u32 = 4;
/// The first pause before running again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// How long the ledger may take to name the held rows.
const LOOK_MAX: Duration = Duration::from_millis(500);

pub(super) type Answer = Result<Reply, ExecuteError>;

/// What became of a request of a batch.
#[derive(Debug)]
pub(super) enum Settled {
    Answered(Answer),
    /// Another transaction keeps these of its rows locked. Empty if it only stays behind a request of which that is
    /// true.
    Held(Vec<Key>),
}

/// What becomes of each request, in order, by `deadline`: the latest of those that the requests came with.
pub(super) async fn settle_all(
    ledger: &Arc<dyn Ledger>,
    requests: Arc<[Request]>,
    policy: &Arc<Policy>,
    stats: &Stats,
    deadline: Deadline,
) -> Vec<Settled> {
    let mut settling = Settling { settled: requests.iter().map(|_| None).collect(), held: HashSet::new() };
    // Halves are pushed right first, so that requests come in order.
    let mut parts = vec![Part { places: (0..requests.len()).collect(), requests, timed_out: false }];
    while let Some(part) = parts.pop() {
        let Some(part) = settling.without_held(part) else { continue };
        if deadline.is_over() {
            settling.refuse(&part, || ExecuteError::Unavailable(Overdue.into()));
            continue;
        }
        match run(ledger, &part.requests, policy, stats, deadline).await {
            Ok(committed) => settling.answer(&part, committed.replies),
            Err(Failure::Batch(error)) => {
                let why = error.to_string();
                settling.refuse(&part, || ExecuteError::Unavailable(why.clone().into()));
            }
            Err(Failure::Locked) => {
                let held = held(ledger, &part.requests, deadline).await;
                if !held.is_empty() {
                    settling.held.extend(held);
                    parts.push(Part { timed_out: false, ..part });
                } else if !part.timed_out {
                    parts.push(Part { timed_out: true, ..part });
                } else if let Some(halves) = part.halves() {
                    stats.bisections.add(1);
                    parts.extend(halves);
                } else {
                    settling.held.extend(part.requests.iter().flat_map(|request| request.command.rows()));
                    parts.push(part);
                }
            }
            Err(Failure::Culprit(error)) => match part.halves() {
                Some(halves) => {
                    stats.bisections.add(1);
                    parts.extend(halves);
                }
                None => {
                    let why = error.to_string();
                    settling.refuse(&part, || ExecuteError::Internal(why.clone().into()));
                }
            },
        }
    }
    // Every part ends in one of the ways above.
    let lost = || Settled::Answered(Err(ExecuteError::Internal("a request was lost".into())));
    settling.settled.into_iter().map(|settled| settled.unwrap_or_else(lost)).collect()
}

/// Some requests of a batch, each with its place there.
struct Part {
    places: Vec<usize>,
    requests: Arc<[Request]>,
    /// It ran into a lock time-out without a held row to be seen.
    timed_out: bool,
}

impl Part {
    /// The right half, then the left one. After a time-out without a held row to be seen, a half is cut at once.
    fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.requests.len() / 2;
        let part = |places: &[usize], requests: &[Request]| Self { places: places.into(), requests: requests.into(), timed_out: true };
        let (left, right) =
            (part(&self.places[..middle], &self.requests[..middle]), part(&self.places[middle..], &self.requests[middle..]));
        (middle > 0).then_some([right, left])
    }
}

struct Settling {
    settled: Vec<Option<Settled>>,
    /// The rows known to be held, and the keys whose later commands stay behind.
    held: HashSet<Key>,
}

impl Settling {
    /// The part without the requests that need a held row, or stay behind one that does: those are settled as held.
    fn without_held(&mut self, part: Part) -> Option<Part> {
        if self.held.is_empty() {
            return Some(part);
        }
        let waits = divide(part.requests.iter(), |row| self.held.contains(row));
        if !waits.contains(&true) {
            return Some(part);
        }
        let mut left = (Vec::new(), Vec::new());
        for ((request, place), waits) in part.requests.iter().zip(part.places).zip(waits) {
            if waits {
                let held = request.command.rows().into_iter().filter(|row| self.held.contains(row)).collect();
                self.settled[place] = Some(Settled::Held(held));
                // In the other parts, too, later requests of its key stay behind it.
                self.held.extend(order_key(&request.command));
            } else {
                left.0.push(place);
                left.1.push(request.clone());
            }
        }
        let (places, requests) = left;
        (!places.is_empty()).then(|| Part { places, requests: requests.into(), timed_out: false })
    }

    fn answer(&mut self, part: &Part, replies: Vec<Reply>) {
        for (place, reply) in part.places.iter().zip(replies) {
            self.settled[*place] = Some(Settled::Answered(Ok(reply)));
        }
    }

    fn refuse(&mut self, part: &Part, why: impl Fn() -> ExecuteError) {
        for place in &part.places {
            self.settled[*place] = Some(Settled::Answered(Err(why())));
        }
    }
}

/// The held rows among those that `requests` need. Empty, too, if the ledger did not answer in time.
pub(super) async fn held(ledger: &Arc<dyn Ledger>, requests: &Arc<[Request]>, deadline: Deadline) -> BTreeSet<Key> {
    match deadline.within(LOOK_MAX).bound(ledger.held(requests.clone())).await {
        Ok(Ok(held)) => held,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the ledger could not name the rows that are locked");
            BTreeSet::new()
        }
        Err(Overdue) => BTreeSet::new(),
    }
}

enum Failure {
    /// The store refuses some request of the batch: smaller batches may succeed.
    Culprit(LedgerFailure),
    /// The whole batch failed, because the store is unavailable or keeps failing.
    Batch(LedgerFailure),
    /// A row of the batch stayed locked.
    Locked,
}

/// A failed call, or one that panicked.
#[derive(Debug, thiserror::Error)]
enum LedgerFailure {
    #[error(transparent)]
    Returned(LedgerError),
    #[error("the ledger call panicked")]
    Panicked,
    #[error(transparent)]
    Overdue(#[from] Overdue),
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
            Ok(ended) => ended.map_err(|_| LedgerFailure::Panicked).and_then(|result| result.map_err(LedgerFailure::Returned)),
            Err(overdue) => Err(overdue.into()),
        };
        stats.ledger_us.add(started.elapsed().as_micros() as u64);
        let failure = match result {
            Ok(committed) if committed.replies.len() == part.len() => {
                stats.batches.add(1);
                stats.commands.add(part.len() as u64);
                return Ok(committed);
            }
            // Replies that cannot be assigned to their requests are of no use.
            Ok(_) => return Err(Failure::Culprit(LedgerFailure::Panicked)),
            Err(failure) => failure,
        };
        if matches!(failure, LedgerFailure::Returned(LedgerError::LockTimeout)) {
            tracing::debug!(batch.size = part.len(), "a row of a batch stayed locked");
            return Err(Failure::Locked);
        }
        tracing::warn!(error = %failure, batch.size = part.len(), tries, "a batch failed");
        let again = match &failure {
            LedgerFailure::Returned(LedgerError::Unavailable(_)) => true,
            LedgerFailure::Returned(LedgerError::Retryable(_) | LedgerError::Conflict) => tries < TRIES,
            LedgerFailure::Overdue(_) => false,
            _ => return Err(Failure::Culprit(failure)),
        };
        if !again || pause >= deadline.remaining() {
            // Cutting it up would not help, and would run it many times more.
            return Err(Failure::Batch(failure));
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
