//! One reader of the log: takes what has arrived, decides it in one commit, answers, acknowledges.
//!
//! *Ahead.* While one batch is decided the next one is taken and parsed. So the store does not wait for the broker, nor
//! the shard for one processor while others are idle. Batches are decided one after the other all the same, in the
//! order of the log. The reader may lose its shard with a batch in hand and one ahead, and another reader may decide
//! them at the same time. Each of the two goes through the shard in order, so the one that is first with a command has
//! seen all commands before it decided.
//!
//! Nothing is acknowledged before each command taken has a reply in the ledger or lies with the dead letters. So a
//! crash or a reader that loses its shard makes commands come again, and replies keep each to one effect. A store that
//! is away is waited for, with pauses and without an end: the log keeps what comes meanwhile.
//!
//! *Dead letters* are commands that were accepted longer ago than `retention`, that have no key to keep a reply under,
//! or that the ledger refuses even alone. Of the first, the reply may have been pruned: deciding again might apply the
//! command twice. The caller of such a command gets the reason, once the dead letter is stored.
//!
//! *Answers* are given by tasks of their own, in the order of the commits. Otherwise a thousand callers that wake up
//! would delay this reader's next batch, and the store would be idle meanwhile.
//!
//! *Held rows.* Commands that need a row which another transaction keeps locked wait apart, in their order, and the
//! shard goes on without them. Commands behind them in the log are decided and answered at once, and acknowledged with
//! them: a log is acknowledged from its oldest command on. Logs that can make use of it get the others acknowledged
//! apart. Held commands wait for as long as a command may lie in the log.
//!
//! *Bounds.* `batch_max` commands a batch, and as many ahead. [`HELD_MAX`] held commands, and [`WINDOW`] batches that
//! are not acknowledged. [`BATCHES_MAX`] batches wait for their callers on this instance to be answered; beyond it
//! their readers wait, too. [`GROUPS_MAX`] groups of answers wait to be sent to other instances; beyond it groups are
//! not sent, and their callers look into the ledger.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Key, Policy, Request};
use boxoffice_ports::{Answer, Clock, CommandLog, CommandReader, Deadline, ExecuteError, InstanceId, Ledger, LoggedCommand, Source};
use chrono::TimeDelta;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::super::attempt::{Settled, jittered, settle_all};
use super::super::row_waiters::RowWaiters;
use super::outstanding::{LoggedReply, Outstanding};
use super::unacknowledged::Unacknowledged;
use crate::Stats;

/// Batches whose callers on this instance have not been answered yet.
pub(super) const BATCHES_MAX: usize = 4;
/// Groups of answers that wait to be sent to other instances.
pub(super) const GROUPS_MAX: usize = 1_024;
/// How long sending one group may take. Longer, and it is given up.
const SEND_MAX: Duration = Duration::from_secs(2);
/// How long a batch may take, or the store may be unreachable, before a warning is logged and the batch is tried again.
/// Longer than any commit that ends at all: an accepted command has no deadline of its own.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// Held commands of one reader, and batches that may be taken behind the oldest of them. Beyond either, the shard
/// waits, too.
pub(super) const HELD_MAX: usize = 1_024;
const WINDOW: usize = 32;
const TOO_OLD: &str = "the command is older than its reply would be kept for: it may have been decided before";
/// The first pause before a failed call is repeated; it doubles.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) type Group = (InstanceId, Vec<Answer>);

pub(super) struct Consumer {
    pub(super) reader: Box<dyn CommandReader>,
    pub(super) decider: Decider,
    pub(super) batch_max: usize,
}

/// What batches are decided with, and the queues of answers. Clones share both.
#[derive(Clone)]
pub(super) struct Decider {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) policy: Arc<Policy>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: Arc<Stats>,
    pub(super) instance: InstanceId,
    pub(super) own: mpsc::Sender<Vec<Answer>>,
    pub(super) others: mpsc::Sender<Group>,
    pub(super) retention: Duration,
    /// Shared by the shards, because they share rows.
    pub(super) row_waiters: RowWaiters,
}

/// The outcome of a batch, by the places of its commands.
#[derive(Default)]
struct Decided {
    done: Vec<usize>,
    /// They cannot be decided, for the reason that comes with each. Their callers have not been answered.
    unfit: Vec<(usize, LoggedCommand, String)>,
    /// They need rows that another transaction keeps locked, or stay behind others that do.
    held: Vec<(usize, LoggedCommand, Vec<Key>)>,
}

/// Doubling pauses.
struct Pause(Duration);

impl Pause {
    async fn pass(&mut self) {
        sleep(jittered(self.0)).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

impl Consumer {
    /// Never ends by itself.
    pub(super) async fn run(self) {
        let Self { mut reader, decider, batch_max } = self;
        let mut shard = Shard {
            decider,
            held: JoinSet::new(),
            lost: Vec::new(),
            open: Unacknowledged::default(),
            unacknowledged_max: batch_max * WINDOW,
        };
        let mut ahead = Vec::new();
        loop {
            while let Some(waited) = shard.held.try_join_next() {
                shard.settle(&mut reader, waited).await;
            }
            shard.requeue_lost(&mut reader).await;
            shard.acknowledge(&mut reader).await;
            if ahead.is_empty() {
                tokio::select! {
                    biased;
                    Some(waited) = shard.held.join_next() => {
                        shard.settle(&mut reader, waited).await;
                        continue;
                    }
                    taken = take(&mut reader, batch_max), if shard.has_room() => ahead = taken,
                }
            }
            let batch = std::mem::take(&mut ahead);
            let first = shard.open.took(batch.len());
            let Decided { unfit, held, done } = {
                let mut deciding = pin!(shard.decider.decide(batch));
                loop {
                    tokio::select! {
                        biased;
                        decided = &mut deciding => break decided,
                        more = take(&mut reader, batch_max - ahead.len()), if ahead.len() < batch_max && shard.has_room() => ahead.extend(more),
                    }
                }
            };
            shard.open.decided(done.into_iter().map(|place| first + place as u64));
            for (place, command, reason) in unfit {
                shard.decider.dead_letter(&mut reader, command, reason).await;
                shard.open.decided([first + place as u64]);
            }
            for (place, command, rows) in held {
                shard.wait_for_row(first + place as u64, command, &rows);
            }
        }
    }
}

/// The state of the commands that a reader took.
struct Shard {
    decider: Decider,
    /// Those that wait for rows which another transaction keeps locked.
    held: JoinSet<Waited>,
    /// Held commands whose outcome is not known, because the task of the row waiters has panicked.
    lost: Vec<(u64, LoggedCommand)>,
    open: Unacknowledged,
    unacknowledged_max: usize,
}

/// A command that was held, with its number among those taken and its answer; `None` if that is not known.
type Waited = (u64, LoggedCommand, Option<super::super::attempt::Answer>);

impl Shard {
    fn has_room(&self) -> bool {
        self.held.len() < HELD_MAX && self.open.count() < self.unacknowledged_max
    }

    /// The command waits for as long as it may lie in the log.
    fn wait_for_row(&mut self, number: u64, command: LoggedCommand, rows: &[Key]) {
        let (answer, answered) = oneshot::channel();
        let left = self.decider.retention.saturating_sub(self.decider.age(&command).to_std().unwrap_or_default());
        self.decider.row_waiters.add(command.request.clone(), rows, Deadline::after(left), answer);
        self.held.spawn(async move { (number, command, answered.await.ok()) });
    }

    async fn settle(&mut self, reader: &mut Box<dyn CommandReader>, waited: Result<Waited, JoinError>) {
        // The tasks do nothing but wait, and are not aborted.
        let Ok((number, command, answer)) = waited else { return };
        match answer {
            Some(Ok(reply)) => {
                self.decider.answer(vec![answer_to(&command, Ok(reply))]).await;
            }
            Some(Err(ExecuteError::Internal(why))) => self.decider.dead_letter(reader, command, why.to_string()).await,
            Some(Err(_)) if self.decider.is_too_old(&command) => self.decider.dead_letter(reader, command, TOO_OLD.to_owned()).await,
            Some(Err(_)) => return self.wait_for_row(number, command, &[]),
            None => return self.lost.push((number, command)),
        }
        self.open.decided([number]);
    }

    /// All held commands were lost together: once each of them is known to be, they wait again, in their order.
    async fn requeue_lost(&mut self, reader: &mut Box<dyn CommandReader>) {
        if self.lost.is_empty() {
            return;
        }
        while let Some(waited) = self.held.join_next().await {
            self.settle(reader, waited).await;
        }
        sleep(jittered(PAUSE)).await;
        self.lost.sort_by_key(|(number, _)| *number);
        for (number, command) in std::mem::take(&mut self.lost) {
            self.wait_for_row(number, command, &[]);
        }
    }

    async fn acknowledge(&mut self, reader: &mut Box<dyn CommandReader>) {
        let count = self.open.acknowledge();
        if count > 0
            && let Err(error) = reader.acknowledge(count).await
        {
            tracing::warn!(error, "commands were not acknowledged; they come again, and their replies are found");
        }
        let beyond = self.open.acknowledge_beyond();
        if !beyond.is_empty()
            && let Err(error) = reader.acknowledge_beyond(&beyond).await
        {
            tracing::debug!(error, "commands behind a held one were not acknowledged; they will be together with it");
        }
    }
}

/// One command at least. Cancel-safe.
async fn take(reader: &mut Box<dyn CommandReader>, max: usize) -> Vec<LoggedCommand> {
    loop {
        let taken = reader.take(max).await;
        if !taken.is_empty() {
            return taken;
        }
        // A reader promises one command at least. Repeating at once would occupy a processor.
        sleep(PAUSE).await;
    }
}

impl Decider {
    /// Decides what can be decided, and queues the answers.
    async fn decide(&self, taken: Vec<LoggedCommand>) -> Decided {
        let (mut left, mut decided) = self.sort(taken);
        let mut pause = Pause(PAUSE);
        while !left.is_empty() {
            let requests: Arc<[Request]> = left.iter().map(|(_, command)| command.request.clone()).collect();
            let deadline = Deadline::after(STORE_PATIENCE);
            let settled = settle_all(&self.ledger, requests, &self.policy, &self.stats, deadline).await;
            let (mut answers, mut again) = (Vec::with_capacity(left.len()), Vec::new());
            for ((place, command), settled) in left.into_iter().zip(settled) {
                match settled {
                    Settled::Answered(Ok(reply)) => {
                        answers.push(answer_to(&command, Ok(reply)));
                        decided.done.push(place);
                    }
                    Settled::Answered(Err(ExecuteError::Internal(why))) => decided.unfit.push((place, command, why.to_string())),
                    Settled::Answered(Err(_)) => again.push((place, command)),
                    Settled::Held(rows) => decided.held.push((place, command, rows)),
                }
            }
            self.answer(answers).await;
            left = again;
            if !left.is_empty() {
                tracing::warn!(commands = left.len(), "the store is away; commands of the log wait for it");
                pause.pass().await;
            }
        }
        decided.held.sort_by_key(|(place, ..)| *place);
        decided
    }

    /// Sorts commands into those that may be decided, those that may not, with the reason, and those behind held
    /// commands.
    fn sort(&self, taken: Vec<LoggedCommand>) -> (Vec<(usize, LoggedCommand)>, Decided) {
        let (mut fit, mut decided) = (Vec::with_capacity(taken.len()), Decided::default());
        for (place, command) in taken.into_iter().enumerate() {
            if self.is_too_old(&command) {
                decided.unfit.push((place, command, TOO_OLD.to_owned()));
            } else if command.request.idempotency().is_none() {
                decided.unfit.push((place, command, "the command has no idempotency key: it may have been decided before".to_owned()));
            } else {
                fit.push((place, command));
            }
        }
        if let Some(waits) = self.row_waiters.must_wait(fit.iter().map(|(_, command)| &command.request)) {
            let mut waits = waits.into_iter();
            let behind = fit.extract_if(.., |_| waits.next() == Some(true));
            decided.held.extend(behind.map(|(place, command)| (place, command, Vec::new())));
        }
        (fit, decided)
    }

    fn age(&self, command: &LoggedCommand) -> TimeDelta {
        self.clock.now() - command.accepted_at
    }

    fn is_too_old(&self, command: &LoggedCommand) -> bool {
        self.age(command) > TimeDelta::from_std(self.retention).unwrap_or(TimeDelta::MAX)
    }

    /// Puts a command with the dead letters, however long that takes, then queues the reason for its caller.
    async fn dead_letter(&self, reader: &mut Box<dyn CommandReader>, command: LoggedCommand, reason: String) {
        let id = command.request.command_id;
        tracing::error!(command.id = %id, reason, "a command of the log cannot be decided");
        let mut pause = Pause(PAUSE);
        while let Err(error) = reader.dead_letter(command.clone(), reason.clone()).await {
            tracing::warn!(error, command.id = %id, "a dead letter was not taken; it is tried again");
            pause.pass().await;
        }
        self.stats.dead_commands.add(1);
        self.answer(vec![answer_to(&command, Err(reason))]).await;
    }

    /// Queues answers: for callers of this instance in any case, for other instances if there is room.
    async fn answer(&self, answers: Vec<Addressed>) {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for (instance, answer) in answers {
            groups.entry(instance).or_default().push(answer);
        }
        if let Some(own) = groups.remove(&self.instance) {
            // This fails when the executor has ended: no caller is left.
            let _ = self.own.send(own).await;
        }
        for group in groups {
            // Full: the callers look into the ledger.
            let _ = self.others.try_send(group);
        }
    }
}

/// One answer with the instance that waits for it.
type Addressed = (InstanceId, Answer);

fn answer_to(command: &LoggedCommand, reply: LoggedReply) -> Addressed {
    (command.reply_to, Answer { command: command.request.command_id, reply })
}

/// Answers the callers of this instance, batch after batch.
pub(super) async fn notify_own(outstanding: Arc<Outstanding>, waiting: Arc<Mutex<mpsc::Receiver<Vec<Answer>>>>) -> Result<(), Source> {
    let mut waiting = waiting.lock().await;
    while let Some(answers) = waiting.recv().await {
        outstanding.answered(answers);
    }
    Ok(())
}

/// Sends the groups of answers to other instances, in order.
pub(super) async fn send_to_others(log: Arc<dyn CommandLog>, waiting: Arc<Mutex<mpsc::Receiver<Group>>>) -> Result<(), Source> {
    let mut waiting = waiting.lock().await;
    while let Some((instance, answers)) = waiting.recv().await {
        let sent = timeout(SEND_MAX, log.answer(instance, answers)).await;
        if let Err(error) = sent.unwrap_or_else(|_| Err("timed out sending answers".into())) {
            tracing::debug!(error, %instance, "answers were not sent to another instance; its callers look into the ledger");
        }
    }
    Ok(())
}
