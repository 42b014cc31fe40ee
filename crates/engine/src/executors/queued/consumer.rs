//! One reader of the log: takes what has arrived, decides it in one commit, answers, acknowledges.
//!
//! *Ahead.* While one batch is decided the next one is taken and parsed, so that the store does not wait for the broker,
//! nor the shard for one processor while there are others. Batches are decided one after the other all the same, in the
//! order of the log. It may lose its shard with a batch in hand and one ahead, and another reader decide them at the same
//! time: each of the two goes through the shard in order, so whoever is first with a command has seen all before it
//! decided.
//!
//! Nothing is acknowledged before each command taken has a reply in the ledger or lies with the dead letters. So a crash
//! or a reader that loses its shard makes commands come again, and replies keep each to one effect. A store that is away
//! is waited for, with pauses and without an end: the log keeps what comes meanwhile.
//!
//! *Dead letters.* What was accepted longer ago than `retention` (its reply may have been pruned, so deciding it again
//! might apply it twice), what has no key to keep a reply under, and what the ledger refuses even alone. Whoever waits for
//! such a command is told the reason, once the dead letter is safe.
//!
//! *Answers* are given by tasks of their own, in the order of the commits: a thousand callers that wake up would otherwise
//! stand between this reader and its next batch, and the store would have nothing to do meanwhile.
//!
//! *Held rows.* Commands that need a row that another transaction keeps wait aside, in their order, and the shard goes on
//! without them. What is behind them in the log is decided and answered, and acknowledged when they are: a log is
//! acknowledged from its oldest on, and told of the others where it can make use of that. They wait for as long as a
//! command may lie in the log.
//!
//! *Bounds.* `batch_max` commands a batch, and as many ahead; [`ASIDE_MAX`] aside, and [`WINDOW`] batches not acknowledged; [`BATCHES_MAX`] batches wait for their callers here to be
//! told, and then their readers wait, too; [`GROUPS_MAX`] groups of answers wait to be sent to other instances, and what
//! does not fit is not sent: those who wait look into the ledger.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Key, Policy, Request};
use boxoffice_ports::{Answer, Clock, CommandLog, CommandReader, Deadline, ExecuteError, InstanceId, Ledger, LoggedCommand, Source};
use chrono::TimeDelta;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::super::aside::Aside;
use super::super::attempt::{Settled, jittered, settle_all};
use super::outstanding::{Outstanding, Told};
use crate::Stats;

/// Batches whose callers in this instance have not been told yet.
pub(super) const BATCHES_MAX: usize = 4;
/// Groups of answers that wait to be sent to other instances.
pub(super) const GROUPS_MAX: usize = 1_024;
/// How long one group may take. Longer, and it is given up.
const TELL_MAX: Duration = Duration::from_secs(2);
/// How long a batch may take, and an unreachable store is waited for, before a warning says so; then it is tried again.
/// Longer than any commit that will ever end: what was accepted has no deadline of its own.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// Commands that may wait aside for one reader, and how many batches may have been taken since the oldest of them: then
/// the shard waits with them.
pub(super) const ASIDE_MAX: usize = 1_024;
const WINDOW: usize = 32;
const TOO_OLD: &str = "it is older than its reply would be kept for: it may have been decided before";
/// The first pause before whatever failed is tried again; it doubles.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) type Group = (InstanceId, Vec<Answer>);

pub(super) struct Consumer {
    pub(super) reader: Box<dyn CommandReader>,
    pub(super) decider: Decider,
    pub(super) batch_max: usize,
}

/// What batches are decided with, and who is told. Clones tell the same.
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
    /// Shared by the shards, as are the rows.
    pub(super) aside: Aside,
}

/// What a batch came to, by the places of its commands.
#[derive(Default)]
struct Decided {
    done: Vec<usize>,
    /// They cannot be decided, for the reason that comes with each; nobody who waits for one has been told.
    unfit: Vec<(usize, LoggedCommand, String)>,
    /// They need rows that another transaction keeps, or come behind others that do.
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
        let mut shard =
            Shard { decider, aside: JoinSet::new(), lost: Vec::new(), open: Open::default(), unacknowledged_max: batch_max * WINDOW };
        let mut ahead = Vec::new();
        loop {
            while let Some(through) = shard.aside.try_join_next() {
                shard.through(&mut reader, through).await;
            }
            shard.find_again(&mut reader).await;
            shard.acknowledge(&mut reader).await;
            if ahead.is_empty() {
                tokio::select! {
                    biased;
                    Some(through) = shard.aside.join_next() => {
                        shard.through(&mut reader, through).await;
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
                shard.decider.bury(&mut reader, command, reason).await;
                shard.open.decided([first + place as u64]);
            }
            for (place, command, rows) in held {
                shard.set_aside(first + place as u64, command, &rows);
            }
        }
    }
}

/// What a reader's commands have come to.
struct Shard {
    decider: Decider,
    /// Those that wait for rows that another transaction keeps.
    aside: JoinSet<Through>,
    /// Those of them whose outcome is not known, because what they waited in has panicked.
    lost: Vec<(u64, LoggedCommand)>,
    open: Open,
    unacknowledged_max: usize,
}

/// A command that waited aside, by its number among those taken, and what came of it; `None` when it is not known.
type Through = (u64, LoggedCommand, Option<super::super::attempt::Answer>);

impl Shard {
    fn has_room(&self) -> bool {
        self.aside.len() < ASIDE_MAX && self.open.count() < self.unacknowledged_max
    }

    /// It waits for as long as it may lie in the log.
    fn set_aside(&mut self, number: u64, command: LoggedCommand, rows: &[Key]) {
        let (answer, answered) = oneshot::channel();
        let left = self.decider.retention.saturating_sub(self.decider.age(&command).to_std().unwrap_or_default());
        self.decider.aside.join(command.request.clone(), rows, Deadline::after(left), answer);
        self.aside.spawn(async move { (number, command, answered.await.ok()) });
    }

    async fn through(&mut self, reader: &mut Box<dyn CommandReader>, through: Result<Through, JoinError>) {
        // The tasks do nothing but wait, and are not aborted.
        let Ok((number, command, answer)) = through else { return };
        match answer {
            Some(Ok(reply)) => {
                self.decider.tell(vec![answer_to(&command, Ok(reply))]).await;
            }
            Some(Err(ExecuteError::Internal(why))) => self.decider.bury(reader, command, why.to_string()).await,
            Some(Err(_)) if self.decider.is_too_old(&command) => self.decider.bury(reader, command, TOO_OLD.to_owned()).await,
            Some(Err(_)) => return self.set_aside(number, command, &[]),
            None => return self.lost.push((number, command)),
        }
        self.open.decided([number]);
    }

    /// What was lost was lost together, and waits again in its order.
    async fn find_again(&mut self, reader: &mut Box<dyn CommandReader>) {
        if self.lost.is_empty() {
            return;
        }
        while let Some(through) = self.aside.join_next().await {
            self.through(reader, through).await;
        }
        sleep(jittered(PAUSE)).await;
        self.lost.sort_by_key(|(number, _)| *number);
        for (number, command) in std::mem::take(&mut self.lost) {
            self.set_aside(number, command, &[]);
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
            tracing::debug!(error, "commands behind a held one were not acknowledged; they are with it");
        }
    }
}

/// Commands taken and not acknowledged, in order: whether each is decided. The log knows only how many from its oldest on
/// are.
#[derive(Default)]
struct Open {
    /// The number of the oldest.
    first: u64,
    decided: VecDeque<bool>,
    /// The numbers of those that are decided and were not told of yet.
    news: Vec<u64>,
}

impl Open {
    /// The number of the first of `count` that were taken just now.
    fn took(&mut self, count: usize) -> u64 {
        let first = self.first + self.decided.len() as u64;
        self.decided.extend(std::iter::repeat_n(false, count));
        first
    }

    fn decided(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            if let Some(decided) = number.checked_sub(self.first).and_then(|at| self.decided.get_mut(at as usize)) {
                *decided = true;
                self.news.push(number);
            }
        }
    }

    /// How many from the oldest on are decided and not acknowledged; they are from now on.
    fn acknowledge(&mut self) -> usize {
        let count = self.decided.iter().take_while(|decided| **decided).count();
        self.decided.drain(..count);
        self.first += count as u64;
        count
    }

    /// The places of those that are decided behind others that are not, each once.
    fn acknowledge_beyond(&mut self) -> Vec<usize> {
        let first = self.first;
        self.news.drain(..).filter_map(|number| number.checked_sub(first)).map(|place| place as usize).collect()
    }

    fn count(&self) -> usize {
        self.decided.len()
    }
}

/// One command at least. Cancel-safe.
async fn take(reader: &mut Box<dyn CommandReader>, max: usize) -> Vec<LoggedCommand> {
    loop {
        let taken = reader.take(max).await;
        if !taken.is_empty() {
            return taken;
        }
        // Not what a reader promises; asking again at once would take all of a processor.
        sleep(PAUSE).await;
    }
}

impl Decider {
    /// Decides what can be, and answers it.
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
            self.tell(answers).await;
            left = again;
            if !left.is_empty() {
                tracing::warn!(commands = left.len(), "the store is away; commands of the log wait for it");
                pause.pass().await;
            }
        }
        decided.held.sort_by_key(|(place, ..)| *place);
        decided
    }

    /// What may be decided, and what may not: the unfit with the reason, and what waits behind commands that wait aside.
    fn sort(&self, taken: Vec<LoggedCommand>) -> (Vec<(usize, LoggedCommand)>, Decided) {
        let (mut fit, mut decided) = (Vec::with_capacity(taken.len()), Decided::default());
        for (place, command) in taken.into_iter().enumerate() {
            if self.is_too_old(&command) {
                decided.unfit.push((place, command, TOO_OLD.to_owned()));
            } else if command.request.idempotency().is_none() {
                decided.unfit.push((place, command, "it has no idempotency key: it may have been decided before".to_owned()));
            } else {
                fit.push((place, command));
            }
        }
        if let Some(aside) = self.aside.takes(fit.iter().map(|(_, command)| &command.request)) {
            let mut waits = aside.into_iter();
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

    /// Puts a command with the dead letters, however long that takes, then tells whoever waits for it.
    async fn bury(&self, reader: &mut Box<dyn CommandReader>, command: LoggedCommand, reason: String) {
        let id = command.request.command_id;
        tracing::error!(command.id = %id, reason, "a command of the log cannot be decided");
        let mut pause = Pause(PAUSE);
        while let Err(error) = reader.dead_letter(command.clone(), reason.clone()).await {
            tracing::warn!(error, command.id = %id, "a dead letter was not taken; it is tried again");
            pause.pass().await;
        }
        self.stats.dead_commands.add(1);
        self.tell(vec![answer_to(&command, Err(reason))]).await;
    }

    /// Own callers are told in any case, other instances if there is room.
    async fn tell(&self, answers: Vec<Addressed>) {
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for (instance, answer) in answers {
            groups.entry(instance).or_default().push(answer);
        }
        if let Some(own) = groups.remove(&self.instance) {
            // Nobody is left to be told once the executor has ended.
            let _ = self.own.send(own).await;
        }
        for group in groups {
            // Full: those who wait look into the ledger.
            let _ = self.others.try_send(group);
        }
    }
}

/// One answer with the instance that waits for it.
type Addressed = (InstanceId, Answer);

fn answer_to(command: &LoggedCommand, reply: Told) -> Addressed {
    (command.reply_to, Answer { command: command.request.command_id, reply })
}

/// Tells the callers of this instance, batch after batch.
pub(super) async fn tell_own(outstanding: Arc<Outstanding>, waiting: Arc<Mutex<mpsc::Receiver<Vec<Answer>>>>) -> Result<(), Source> {
    let mut waiting = waiting.lock().await;
    while let Some(answers) = waiting.recv().await {
        outstanding.answered(answers);
    }
    Ok(())
}

/// Sends the groups in order.
pub(super) async fn tell_others(log: Arc<dyn CommandLog>, waiting: Arc<Mutex<mpsc::Receiver<Group>>>) -> Result<(), Source> {
    let mut waiting = waiting.lock().await;
    while let Some((instance, answers)) = waiting.recv().await {
        let told = timeout(TELL_MAX, log.answer(instance, answers)).await;
        if let Err(error) = told.unwrap_or_else(|_| Err("no answer in time".into())) {
            tracing::debug!(error, %instance, "an instance was not told its answers; it looks into the ledger");
        }
    }
    Ok(())
}
