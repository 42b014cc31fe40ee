//! `combining`: arrival order in this process, one commit for many.
//!
//! A command is put into the queue of its lane, chosen by the first key it contends for. Each lane has one worker with
//! one batch in flight. The worker takes all that has queued while the last commit ran, decides all of it in one ledger
//! call, answers, and takes the next batch. There is no fixed window: a lone command does not wait for others. So a hot
//! row moves once a commit and not once a command.
//!
//! *Hot path.* One queue slot and one oneshot a command; one task, one ledger call and one commit a batch.
//!
//! *Order.* Within a lane, arrival. Across lanes the ledger's lock order rules; a payment may touch rows of several.
//!
//! *Bounds.* `queue_max` commands wait in all lanes together, and a batch has at most `batch_max`. Beyond `queue_max`
//! the answer is [`ExecuteError::Overloaded`] at once. So it is for a command that would not be decided by its
//! deadline, which is checked when its batch is formed. A batch has the latest of its commands' deadlines. Each caller
//! waits until its own, and a command that is in a batch by then may be decided all the same.
//!
//! *Failure.* The supervisor keeps each lane. A lane that panics is started again with what has queued up, and the
//! commands that it had in hand are answered as unavailable. A caller that goes away changes nothing: the command is
//! decided and its reply kept. A failing batch is run again or cut in two (`attempt`). Commands that need a row which
//! another transaction keeps locked wait apart (`row_waiters`). A crash before the commit loses unanswered commands. A
//! crash after it loses answers, which the stored replies repeat.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Policy, Request};
use boxoffice_ports::{Deadline, ExecuteError, Executor, Ledger, Receipt, Tasks, WhenFailing};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::attempt::{Answer, Settled, settle_all};
use super::row_waiters::{RowWaiters, WAITING_MAX};
use crate::Stats;

#[derive(Clone, Copy, Debug)]
pub struct CombiningSettings {
    /// Workers, each with one batch in flight.
    pub lanes: usize,
    pub batch_max: usize,
    /// How many commands may wait, over all lanes.
    pub queue_max: usize,
}

struct QueuedCommand {
    request: Request,
    since: Instant,
    deadline: Deadline,
    answer: oneshot::Sender<Answer>,
    _slot: QueueSlot,
}

/// The place of one waiting command, given back on drop: when the lane takes the command, or is lost with it.
struct QueueSlot(Arc<AtomicUsize>);

impl QueueSlot {
    /// `None` when `max` are taken.
    fn of(taken: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let one_more = |count: usize| (count < max).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self(taken.clone()))
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module's opening.
pub struct Combining {
    /// Bounded by `queue_max` together: one hot key may use all slots.
    lanes: Vec<mpsc::UnboundedSender<QueuedCommand>>,
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
    hasher: RandomState,
    stats: Arc<Stats>,
}

impl Combining {
    /// Starts the workers, kept by `tasks`. They end when the executor is dropped and every waiting command is
    /// answered.
    pub fn start(
        ledger: Arc<dyn Ledger>,
        policy: Arc<Policy>,
        settings: CombiningSettings,
        stats: Arc<Stats>,
        tasks: &dyn Tasks,
    ) -> Arc<Self> {
        let lanes = settings.lanes.max(1);
        let row_waiters = RowWaiters::new(ledger.clone(), policy.clone(), stats.clone(), WAITING_MAX);
        let start_lane = |at| {
            let (queue, waiting) = mpsc::unbounded_channel();
            let lane = Arc::new(LaneWorker {
                waiting: Mutex::new(waiting),
                ledger: ledger.clone(),
                policy: policy.clone(),
                stats: stats.clone(),
                batch_max: settings.batch_max.max(1),
                row_waiters: row_waiters.clone(),
            });
            let run = move || {
                let lane = lane.clone();
                async move {
                    lane.run().await;
                    Ok(())
                }
            };
            tasks.keep(format!("lane.{at}"), WhenFailing::NotReady, run).detach();
            queue
        };
        let (lanes, queue_max) = ((0..lanes).map(start_lane).collect(), settings.queue_max.max(1));
        Arc::new(Self { lanes, waiting: Arc::default(), queue_max, hasher: RandomState::new(), stats: stats.clone() })
    }

    fn lane_of(&self, request: &Request) -> &mpsc::UnboundedSender<QueuedCommand> {
        match self.lanes.as_slice() {
            [only] => only,
            lanes => &lanes[self.hasher.hash_one(request.command.lane_key()) as usize % lanes.len()],
        }
    }

    /// How many commands wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Executor for Combining {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        let (answer, answered) = oneshot::channel();
        let Some(slot) = QueueSlot::of(&self.waiting, self.queue_max) else {
            self.stats.overloaded.add(1);
            return Err(ExecuteError::Overloaded);
        };
        let waiting = QueuedCommand { since: Instant::now(), deadline, answer, _slot: slot, request };
        self.lane_of(&waiting.request).send(waiting).map_err(|_| stopped())?;
        match deadline.bound(answered).await {
            Ok(answer) => answer.map_err(|_| stopped())?.map(Receipt::Done),
            Err(overdue) => Err(ExecuteError::Unavailable(overdue.into())),
        }
    }

    fn would_reject(&self, _: &Request) -> bool {
        let is_full = self.waiting() >= self.queue_max;
        if is_full {
            self.stats.overloaded.add(1);
        }
        is_full
    }
}

fn stopped() -> ExecuteError {
    ExecuteError::Unavailable("the lane of the command has stopped".into())
}

struct LaneWorker {
    /// Locked by the one run that there is at a time.
    waiting: Mutex<mpsc::UnboundedReceiver<QueuedCommand>>,
    ledger: Arc<dyn Ledger>,
    policy: Arc<Policy>,
    stats: Arc<Stats>,
    batch_max: usize,
    row_waiters: RowWaiters,
}

impl LaneWorker {
    async fn run(&self) {
        let mut waiting = self.waiting.lock().await;
        let mut taken = Vec::with_capacity(self.batch_max);
        // How long the last ledger call took: a command that could only be answered too late is refused at once.
        let mut last_call = Duration::ZERO;
        while waiting.recv_many(&mut taken, self.batch_max).await > 0 {
            let started = Instant::now();
            let mut requests = Vec::with_capacity(taken.len());
            let mut callers = Vec::with_capacity(taken.len());
            self.wait_for_known_rows(&mut taken);
            for QueuedCommand { request, since, deadline, answer, .. } in taken.drain(..) {
                let (wait, left) = (deadline.instant() - since, deadline.instant().saturating_duration_since(started));
                if left < last_call.min(wait / 2) || left.is_zero() {
                    self.stats.overloaded.add(1);
                    // A caller that went away needs no answer.
                    let _ = answer.send(Err(ExecuteError::Overloaded));
                    continue;
                }
                requests.push(request);
                callers.push((deadline, answer));
            }
            let Some(latest) = callers.iter().map(|(deadline, _)| *deadline).max() else { continue };
            let requests: Arc<[Request]> = requests.into();
            let settled = settle_all(&self.ledger, requests.clone(), &self.policy, &self.stats, latest).await;
            last_call = started.elapsed();
            for ((request, (deadline, caller)), settled) in requests.iter().zip(callers).zip(settled) {
                match settled {
                    Settled::Answered(answer) => drop(caller.send(answer)),
                    Settled::Held(rows) => self.row_waiters.add(request.clone(), &rows, deadline, caller),
                }
            }
        }
    }

    /// Moves the commands that need a row known to be held to the row waiters.
    fn wait_for_known_rows(&self, taken: &mut Vec<QueuedCommand>) {
        let Some(waits) = self.row_waiters.must_wait(taken.iter().map(|waiting| &waiting.request)) else { return };
        let mut waits = waits.into_iter();
        for QueuedCommand { request, deadline, answer, .. } in taken.extract_if(.., |_| waits.next() == Some(true)) {
            self.row_waiters.add(request, &[], deadline, answer);
        }
    }
}

#[cfg(test)]
mod tests;
