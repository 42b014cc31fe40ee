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
//! *Bounds.* `batch_max` commands a batch, and as many ahead; [`BATCHES_MAX`] batches wait for their callers here to be
//! told, and then their readers wait, too; [`GROUPS_MAX`] groups of answers wait to be sent to other instances, and what
//! does not fit is not sent: those who wait look into the ledger.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{CommandId, Policy, Request};
use boxoffice_ports::{Answer, Clock, CommandLog, CommandReader, Deadline, ExecuteError, InstanceId, Ledger, LoggedCommand, Source};
use chrono::TimeDelta;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::super::attempt::{answer_all, jittered};
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
}

/// Commands that cannot be decided, each with the reason.
type Unfit = Vec<(LoggedCommand, String)>;

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
        let mut ahead = Vec::new();
        loop {
            if ahead.is_empty() {
                ahead = take(&mut reader, batch_max).await;
            }
            let batch = std::mem::take(&mut ahead);
            let count = batch.len();
            let unfit = {
                let mut deciding = pin!(decider.decide(batch));
                loop {
                    tokio::select! {
                        biased;
                        unfit = &mut deciding => break unfit,
                        more = take(&mut reader, batch_max - ahead.len()), if ahead.len() < batch_max => ahead.extend(more),
                    }
                }
            };
            for (command, reason) in unfit {
                decider.bury(&mut reader, command, reason).await;
            }
            if let Err(error) = reader.acknowledge(count).await {
                tracing::warn!(error, "commands were not acknowledged; they come again, and their replies are found");
            }
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
        // Not what a reader promises; asking again at once would take all of a processor.
        sleep(PAUSE).await;
    }
}

impl Decider {
    /// What is left cannot be decided, and nobody who waits for it has been told.
    async fn decide(&self, taken: Vec<LoggedCommand>) -> Unfit {
        let (mut left, mut unfit) = self.sort(taken);
        let mut pause = Pause(PAUSE);
        while !left.is_empty() {
            let requests: Arc<[Request]> = left.iter().map(|command| command.request.clone()).collect();
            let deadline = Deadline::after(STORE_PATIENCE);
            let replies = answer_all(&self.ledger, requests, &self.policy, &self.stats, deadline).await;
            let (mut answers, mut again) = (Vec::with_capacity(left.len()), Vec::new());
            for (command, reply) in left.into_iter().zip(replies) {
                match reply {
                    Ok(reply) => answers.push(answer(command.reply_to, command.request.command_id, Ok(reply))),
                    Err(ExecuteError::Internal(why)) => unfit.push((command, why.to_string())),
                    Err(_) => again.push(command),
                }
            }
            self.tell(answers).await;
            left = again;
            if !left.is_empty() {
                tracing::warn!(commands = left.len(), "the store is away; commands of the log wait for it");
                pause.pass().await;
            }
        }
        unfit
    }

    /// What may be decided, and what may not, with the reason.
    fn sort(&self, taken: Vec<LoggedCommand>) -> (Vec<LoggedCommand>, Unfit) {
        let now = self.clock.now();
        let retention = TimeDelta::from_std(self.retention).unwrap_or(TimeDelta::MAX);
        let (mut fit, mut unfit) = (Vec::with_capacity(taken.len()), Vec::new());
        for command in taken {
            if now - command.accepted_at > retention {
                unfit.push((command, "it is older than its reply would be kept for: it may have been decided before".to_owned()));
            } else if command.request.idempotency().is_none() {
                unfit.push((command, "it has no idempotency key: it may have been decided before".to_owned()));
            } else {
                fit.push(command);
            }
        }
        (fit, unfit)
    }

    /// Puts a command with the dead letters, however long that takes, then tells whoever waits for it.
    async fn bury(&self, reader: &mut Box<dyn CommandReader>, command: LoggedCommand, reason: String) {
        let (reply_to, id) = (command.reply_to, command.request.command_id);
        tracing::error!(command.id = %id, reason, "a command of the log cannot be decided");
        let mut pause = Pause(PAUSE);
        while let Err(error) = reader.dead_letter(command.clone(), reason.clone()).await {
            tracing::warn!(error, command.id = %id, "a dead letter was not taken; it is tried again");
            pause.pass().await;
        }
        self.stats.dead_commands.add(1);
        self.tell(vec![answer(reply_to, id, Err(reason))]).await;
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

fn answer(to: InstanceId, command: CommandId, reply: Told) -> Addressed {
    (to, Answer { command, reply })
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
