//! `kafka` and `rabbitmq`: a log outside decides which command goes next; what has arrived there is decided in one
//! commit.
//!
//! A command is appended to the shard of its first key. The reader of that shard, in this instance or another, takes
//! what has arrived, decides all of it in one ledger call, answers, then acknowledges (`consumer`). The answer comes
//! back by the command's id: within this process directly, from another instance as a message.
//!
//! *Order.* Within a shard, that of the log. Across shards the ledger's lock order rules.
//!
//! *Round trips.* One append for all commands that queued up for a shard during the append before. One ledger call and
//! one acknowledgement a batch, during which the next batch is taken. One message a batch to each instance that waits
//! for answers.
//!
//! *Waiting.* A caller waits until its deadline, appending included. Going away does not cancel the command: what
//! stands in the log is decided. At the deadline the ledger is asked once. Without a reply there the caller gets
//! [`Receipt::Accepted`], since the ledger will have the outcome. If the outcome may be "choose again", which is never
//! stored, it gets [`ExecuteError::InProgress`]. A request whose reply is not kept is refused: the log may bring it
//! twice.
//!
//! *Bounds.* Commands of this instance that stand in the log unanswered are counted (`outstanding`). So many may stand
//! there as can be answered in a third of `wait` at the measured rate (`pace`), and `backlog_max` at most. The next is
//! [`ExecuteError::Overloaded`] at once, and so is a command that the broker does not take. Commands whose answer was
//! lost leave the count when the ledger has their reply ([`LOOK_EVERY`], [`LOOKS`]), or by age.
//!
//! *Failure.* An append that failed or took too long may have happened: the ledger is asked once, then the answer is
//! [`ExecuteError::Unavailable`]. If the append did happen, the command is decided, and the same key finds its reply.
//!
//! *A crash* of the instance that appended a command loses the waiting caller alone; the command is decided. If the
//! instance that reads crashes before the commit, another reader decides the command. If it crashes between commit and
//! acknowledgement, the command comes again, its reply is found, and its answer is given a second time. If a task here
//! fails, the supervisor starts it again. Then all readers are made anew, so that what they had taken comes again, and
//! the next run gives the answers that were queued. Dropping the executor ends its tasks at once, so that other
//! instances take the shards over; a ledger call that has begun runs to its end.

mod consumer;
mod outstanding;
mod pace;
mod unacknowledged;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Decision, Policy, Rejection, Reply, Request};
use boxoffice_ports::{
    AnswerReader, Clock, CommandLog, CommandReader, Deadline, ExecuteError, Executor, GRACE, InstanceId, Kept, Ledger, LogError,
    LoggedCommand, Receipt, Source, Tasks, WhenFailing,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, sleep, sleep_until};

use self::consumer::{BATCHES_MAX, Consumer, Decider, GROUPS_MAX, HELD_MAX, PAUSE, notify_own, send_to_others};
use self::outstanding::{EnterError, LoggedReply, Outstanding, may_retry};
use self::pace::PaceSettings;
use super::row_waiters::RowWaiters;
use super::stored::stored;
use crate::Stats;

/// How long one look for a reply in the ledger may take when no caller's deadline bounds it.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How often the ledger is asked for unattended commands, and for how many at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS: usize = 256;

#[derive(Clone, Copy, Debug)]
pub struct QueuedSettings {
    pub batch_max: usize,
    /// How many commands of this instance may stand in the log unanswered.
    pub backlog_max: usize,
    /// How long a caller usually waits for its outcome. It bounds how many commands may stand in the log.
    pub wait: Duration,
    /// How old a command may be when it is decided: replies must be kept for longer, or it might be decided twice.
    pub retention: Duration,
}

/// What it works with.
pub struct QueuedParts {
    pub log: Arc<dyn CommandLog>,
    pub ledger: Arc<dyn Ledger>,
    pub policy: Arc<Policy>,
    pub clock: Arc<dyn Clock>,
    pub instance: InstanceId,
    pub stats: Arc<Stats>,
}

/// See the module's opening.
pub struct Queued {
    log: Arc<dyn CommandLog>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    instance: InstanceId,
    stats: Arc<Stats>,
    outstanding: Arc<Outstanding>,
    /// Dropping them ends the tasks.
    _tasks: Vec<Kept>,
}

impl Queued {
    /// Starts reading commands and answers, in tasks that `tasks` keeps and that end when the executor is dropped.
    /// Fails if the log's adapter cannot begin to read.
    pub async fn start(parts: QueuedParts, settings: QueuedSettings, tasks: &dyn Tasks) -> Result<Arc<Self>, Source> {
        let QueuedParts { log, ledger, policy, clock, instance, stats } = parts;
        let QueuedSettings { batch_max, backlog_max, wait, retention } = settings;
        let (batch_max, backlog_max) = (batch_max.max(1), backlog_max.max(1));
        let outstanding = Arc::new(Outstanding::new(PaceSettings { batch_max, backlog_max, wait }, retention, stats.clone()));
        // Answers are read before the first command is appended.
        let mut answers = Some(log.answers(instance).await?);
        let mut readers = Some(log.readers().await?);
        let ((others, waiting), (own, answered)) = (mpsc::channel(GROUPS_MAX), mpsc::channel(BATCHES_MAX));
        let (waiting, answered) = (Arc::new(Mutex::new(waiting)), Arc::new(Mutex::new(answered)));
        let shards = readers.as_ref().map_or(1, Vec::len);
        let row_waiters = RowWaiters::new(ledger.clone(), policy.clone(), stats.clone(), shards * HELD_MAX);
        let decider = Decider {
            ledger: ledger.clone(),
            policy,
            clock: clock.clone(),
            stats: stats.clone(),
            instance,
            own,
            others,
            retention,
            row_waiters,
        };
        let name = |task| format!("log.{task}");
        let kept = vec![
            tasks.keep(name("answers"), WhenFailing::Impaired, {
                let (log, outstanding) = (log.clone(), outstanding.clone());
                move || read_answers(log.clone(), instance, answers.take(), outstanding.clone())
            }),
            tasks.keep(name("look"), WhenFailing::NotReady, {
                let (outstanding, ledger) = (outstanding.clone(), ledger.clone());
                move || look_up_unattended(outstanding.clone(), ledger.clone())
            }),
            tasks.keep(name("others"), WhenFailing::Impaired, {
                let log = log.clone();
                move || send_to_others(log.clone(), waiting.clone())
            }),
            tasks.keep(name("own"), WhenFailing::NotReady, {
                let outstanding = outstanding.clone();
                move || notify_own(outstanding.clone(), answered.clone())
            }),
            tasks.keep(name("readers"), WhenFailing::NotReady, {
                let log = log.clone();
                move || read(log.clone(), readers.take(), decider.clone(), batch_max)
            }),
        ];
        Ok(Arc::new(Self { log, ledger, clock, instance, stats, outstanding, _tasks: kept }))
    }

    /// The answer to a request that gets no slot.
    fn refused(&self, error: EnterError) -> Result<Receipt, ExecuteError> {
        match error {
            EnterError::TooMany => Err(self.overloaded()),
            EnterError::AnotherFingerprint => {
                let decision = Decision::Refused(Rejection::IdempotencyKeyReused);
                Ok(Receipt::Done(Reply { decision, decided_at: self.clock.now(), replayed: false }))
            }
        }
    }

    fn overloaded(&self) -> ExecuteError {
        self.stats.overloaded.add(1);
        ExecuteError::Overloaded
    }

    fn accepted(&self, request: &Request) -> Receipt {
        self.stats.accepted_commands.add(1);
        Receipt::Accepted(request.command_id)
    }

    async fn append(&self, request: &Request) -> Result<(), LogError> {
        let command = LoggedCommand { request: request.clone(), reply_to: self.instance, accepted_at: self.clock.now() };
        self.log.append(command).await
    }

    /// The reply stored for `request`, if the ledger answers at once.
    async fn look(&self, request: &Request, deadline: Deadline) -> Option<Reply> {
        stored(&self.ledger, request, deadline.later_by(GRACE).within(LOOK_MAX)).await.ok()?
    }

    async fn not_appended(&self, error: LogError, request: &Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        match error {
            LogError::Blocked => Err(self.overloaded()),
            LogError::Unavailable(source) => match self.look(request, deadline).await {
                Some(reply) => Ok(Receipt::Done(reply)),
                None => Err(ExecuteError::Unavailable(source)),
            },
        }
    }
}

#[async_trait]
impl Executor for Queued {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        has_key(&request)?;
        let (over, request) = (sleep_until(deadline.instant()), Arc::new(request));
        let (caller, mut answered) = oneshot::channel();
        let mut guard = match self.outstanding.enter(request.clone(), Some(caller)) {
            Ok(guard) => guard,
            Err(error) => return self.refused(error),
        };
        // One timer for both waits: setting one costs as much as the rest of this function.
        tokio::pin!(over);
        // The answer may overtake the confirmation of the append.
        let appended = tokio::select! {
            biased;
            answer = &mut answered => return receipt(answer),
            appended = self.append(&request) => appended,
            () = &mut over => Err(unconfirmed()),
        };
        if let Err(error) = appended {
            let receipt = self.not_appended(error, &request, deadline).await;
            guard.end();
            return receipt;
        }
        guard.appended();
        tokio::select! {
            biased;
            answer = &mut answered => return receipt(answer),
            () = &mut over => {}
        }
        let found = self.look(&request, deadline).await;
        // The answer may have come while the ledger was asked.
        if let Ok(answer) = answered.try_recv() {
            return receipt(Ok(answer));
        }
        match found {
            Some(reply) => {
                guard.end();
                Ok(Receipt::Done(reply))
            }
            None if may_retry(&request.command) => Err(ExecuteError::InProgress),
            None => Ok(self.accepted(&request)),
        }
    }

    /// A hold that may have to choose again is waited for all the same.
    async fn submit(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        if may_retry(&request.command) {
            return self.execute(request, deadline).await;
        }
        has_key(&request)?;
        let request = Arc::new(request);
        if let Some(reply) = stored(&self.ledger, &request, deadline).await? {
            return Ok(Receipt::Done(reply));
        }
        let mut guard = match self.outstanding.enter(request.clone(), None) {
            Ok(guard) => guard,
            Err(error) => return self.refused(error),
        };
        match deadline.bound(self.append(&request)).await.unwrap_or_else(|_| Err(unconfirmed())) {
            Ok(()) => {
                guard.appended();
                Ok(self.accepted(&request))
            }
            Err(error) => self.not_appended(error, &request, deadline).await,
        }
    }

    fn would_reject(&self, _: &Request) -> bool {
        let full = self.outstanding.is_full();
        if full {
            self.stats.overloaded.add(1);
        }
        full
    }
}

fn unconfirmed() -> LogError {
    LogError::Unavailable("timed out waiting for the broker to confirm a command".into())
}

fn has_key(request: &Request) -> Result<(), ExecuteError> {
    match request.idempotency() {
        Some(_) => Ok(()),
        None => Err(ExecuteError::Internal("a command without an idempotency key cannot go through a log: it may be read twice".into())),
    }
}

fn receipt(answer: Result<LoggedReply, oneshot::error::RecvError>) -> Result<Receipt, ExecuteError> {
    match answer {
        Ok(Ok(reply)) => Ok(Receipt::Done(reply)),
        Ok(Err(reason)) => Err(ExecuteError::Internal(reason.into())),
        Err(_) => Err(ExecuteError::Unavailable("the command's answer was dropped before it came".into())),
    }
}

/// Runs all readers of this instance. If one panics, all are ended and made anew: their commands come again.
async fn read(
    log: Arc<dyn CommandLog>,
    first: Option<Vec<Box<dyn CommandReader>>>,
    decider: Decider,
    batch_max: usize,
) -> Result<(), Source> {
    let mut readers = first;
    while readers.is_none() {
        match log.readers().await {
            Ok(made) => readers = Some(made),
            Err(error) => not_yet(error).await,
        }
    }
    let mut reading = JoinSet::new();
    for reader in readers.into_iter().flatten() {
        reading.spawn(Consumer { reader, decider: decider.clone(), batch_max }.run());
    }
    match reading.join_next().await {
        Some(ended) => Err(ended.map_or_else(Source::from, |()| "a reader has ended".into())),
        None => Err("the log has no readers".into()),
    }
}

/// The broker may be away, or keep what belonged to the previous run for a moment.
async fn not_yet(error: Source) {
    tracing::debug!(error, "the log cannot be read yet");
    sleep(PAUSE).await;
}

async fn read_answers(
    log: Arc<dyn CommandLog>,
    instance: InstanceId,
    first: Option<Box<dyn AnswerReader>>,
    outstanding: Arc<Outstanding>,
) -> Result<(), Source> {
    let mut answers = first;
    loop {
        let Some(answers) = &mut answers else {
            match log.answers(instance).await {
                Ok(made) => answers = Some(made),
                Err(error) => not_yet(error).await,
            }
            continue;
        };
        let read = answers.next().await;
        if read.is_empty() {
            // A reader promises one answer at least. Repeating at once would occupy a processor.
            sleep(PAUSE).await;
        }
        outstanding.answered(read);
    }
}

/// Asks the ledger for unattended commands: their answers may have been lost.
async fn look_up_unattended(outstanding: Arc<Outstanding>, ledger: Arc<dyn Ledger>) -> Result<(), Source> {
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let mut is_there = true;
        for unattended in outstanding.due(LOOKS) {
            let found = if is_there { stored(&ledger, unattended.request(), Deadline::after(LOOK_MAX)).await } else { Ok(None) };
            match found {
                Ok(Some(_)) => outstanding.end_unattended(&unattended),
                Ok(None) => outstanding.look_again_later(unattended),
                // The ledger does not answer for now: the others are not asked for in this round.
                Err(_) => {
                    is_there = false;
                    outstanding.look_again_later(unattended);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
