//! Taking commands from the partitions that are this reader's.
//!
//! *Group.* Readers of all instances are members of one group, in which partitions move one by one, the others going on
//! (cooperative rebalancing). It is the brokers' older protocol, because there the member itself says how soon it is
//! taken for dead: [`DEAD_AFTER`], where the newer one leaves that to the brokers' settings (45 s unless changed).
//!
//! *What a call waits for.* Taking: for the first message, unless one that holds several commands was not taken whole; whatever else has been fetched ahead comes with it, without
//! another round trip. Acknowledging: for nothing; positions are committed in the background, and a consumer whose
//! commit finds no end is replaced. Dead letters: as appending does.
//!
//! *What was not acknowledged* comes again, to this reader or another: after a crash, when the partition moves, when a
//! commit fails. Positions are committed up to the last message that was taken whole, never beyond it, and not for a
//! partition that has moved; see [`super::positions`]. Whoever takes nothing for [`BATCH_MAX`] is taken for stuck and loses its partitions.
//!
//! *What cannot be read* goes to the dead letters before anything behind it in its partition is acknowledged. While that
//! fails it is tried again, and what is behind it waits. After a crash in between it lies there twice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{CommandReader, LoggedCommand, Source};
use futures_util::{FutureExt, StreamExt};
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use tokio::time::{Instant, timeout};

use super::connect::{Failure, close_after, consumer, is_over, pause};
use super::log::Shared;
use super::positions::{Committer, Positions};
use super::produce::Delivery;
use crate::wire;
use crate::wire::sequence::Texts;
use crate::wire::taken::Taken;

/// A member that is silent for so long is dead, and its partitions go to others. Brokers allow no less by default.
const DEAD_AFTER: Duration = Duration::from_secs(6);
/// How often a member says that it is alive, and hears that partitions move.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// The longest between two calls of take, hence for deciding one batch.
const BATCH_MAX: Duration = Duration::from_secs(60);

/// How often a reader that gets nothing looks whether it is stuck.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type GroupConsumer = StreamConsumer<Positions>;

/// See the module's opening.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    group: String,
    /// `None` when it has come to an end, until something is to be taken.
    consumer: Option<Member>,
    /// How many commands of consumers that have come to an end are not acknowledged: they come again.
    stale: usize,
    /// Each message from where something was taken that is not yet acknowledged: it may become a dead letter, as it came.
    taken: Taken<Texts>,
    /// The message of which something is left to take. No other one is asked for meanwhile.
    opened: Option<Opened>,
    /// What cannot be read and is not yet with the dead letters. Nothing behind it is taken meanwhile.
    unreadable: Option<Unreadable>,
}

/// A member of the group.
struct Member {
    consumer: Arc<GroupConsumer>,
    committer: Committer,
}

struct Opened {
    key: Option<Vec<u8>>,
    texts: Texts,
    partition: i32,
    offset: i64,
}

struct Unreadable {
    key: Option<Vec<u8>>,
    bytes: Vec<u8>,
    reason: String,
    letter: Option<Delivery>,
}

impl KafkaReader {
    /// Joins the group, in the background.
    pub(super) fn join(shared: Arc<Shared>, group: String) -> Result<Self, Failure> {
        let consumer = Some(join(&shared, &group)?);
        Ok(Self { shared, group, consumer, stale: 0, taken: Taken::default(), opened: None, unreadable: None })
    }

    /// Sees to it that there is a consumer and that what could not be read is with the dead letters.
    async fn ready(&mut self) -> Arc<GroupConsumer> {
        loop {
            match self.try_ready().await {
                Ok(consumer) => return consumer,
                Err(error) => tracing::warn!(%error, "no commands are taken for now"),
            }
            pause().await;
        }
    }

    async fn try_ready(&mut self) -> Result<Arc<GroupConsumer>, Failure> {
        let consumer = match &self.consumer {
            Some(member) => member.consumer.clone(),
            None => self.consumer.insert(join(&self.shared, &self.group)?).consumer.clone(),
        };
        let Some(unreadable) = &mut self.unreadable else { return Ok(consumer) };
        // The letter is kept, so that whoever stops waiting for it does not send it twice.
        let letter = match &mut unreadable.letter {
            Some(letter) => letter,
            none => none.insert(self.shared.bury(unreadable.key.as_deref(), &unreadable.bytes, &unreadable.reason)?),
        };
        let buried = self.shared.buried(letter).await;
        unreadable.letter = None;
        buried?;
        tracing::warn!(reason = unreadable.reason, "unreadable command");
        self.unreadable = None;
        self.close_if_over(&consumer);
        Ok(consumer)
    }

    fn open(&mut self, message: &BorrowedMessage<'_>) {
        self.shared.traffic.broker_messages(1);
        let texts = Texts::new(message.payload().unwrap_or_default());
        let key = message.key().map(<[u8]>::to_vec);
        self.opened = Some(Opened { key, texts, partition: message.partition(), offset: message.offset() });
    }

    /// Takes what is left of the opened message, up to `max` in all or to what cannot be read.
    fn sort(&mut self, consumer: &GroupConsumer, batch: &mut Vec<LoggedCommand>, max: usize) {
        let Some(opened) = &mut self.opened else { return };
        let (start, before) = (opened.texts.clone(), batch.len());
        while batch.len() < max
            && let Some(text) = opened.texts.next()
        {
            match wire::parse_command(text) {
                Ok(command) => batch.push(command),
                Err(error) => {
                    let (bytes, reason) = (text.to_vec(), error.to_string());
                    self.unreadable = Some(Unreadable { key: opened.key.clone(), bytes, reason, letter: None });
                    break;
                }
            }
        }
        let given = batch.len() - before;
        if given > 0 {
            self.taken.gave(given);
            self.taken.over(start);
            consumer.context().gave(given);
        }
        self.close_if_over(consumer);
    }

    /// A message is taken once all of it is, and what cannot be read of it is with the dead letters.
    fn close_if_over(&mut self, consumer: &GroupConsumer) {
        if self.unreadable.is_none()
            && let Some(opened) = self.opened.take_if(|opened| opened.texts.is_over())
        {
            consumer.context().over(opened.partition, opened.offset);
        }
    }

    /// What is acknowledged stays uncommitted: the thread for that has ended.
    fn commits_no_more(&self) -> bool {
        self.consumer.as_ref().is_some_and(|member| member.committer.has_ended())
    }

    /// A command that was taken, as it came.
    fn as_it_came(&self, command: &LoggedCommand) -> Option<Vec<u8>> {
        self.taken.left().find_map(|texts| {
            let mut texts = texts.clone();
            while let Some(text) = texts.next() {
                if wire::parse_command(text).is_ok_and(|found| found == *command) {
                    return Some(text.to_vec());
                }
            }
            None
        })
    }

    /// The partitions are given back and another member takes over, or this one anew.
    fn leave(&mut self) {
        self.taken = Taken::default();
        self.opened = None;
        self.unreadable = None;
        if let Some(Member { consumer, committer }) = self.consumer.take() {
            self.stale += consumer.context().outstanding();
            close_after(|| committer.finish(), consumer);
        }
    }
}

fn lost(any: bool) -> Result<(), Source> {
    if any { Err(Failure::Lost.into()) } else { Ok(()) }
}

fn join(shared: &Shared, group: &str) -> Result<Member, Failure> {
    let mut config = consumer(&shared.brokers, group);
    config
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", DEAD_AFTER.as_millis().to_string())
        .set("heartbeat.interval.ms", ALIVE_EVERY.as_millis().to_string())
        .set("max.poll.interval.ms", BATCH_MAX.as_millis().to_string());
    let consumer: GroupConsumer = config.create_with_context(Positions::default()).map_err(Failure::Settings)?;
    consumer.subscribe(&[&shared.commands]).map_err(Failure::Settings)?;
    let consumer = Arc::new(consumer);
    let committer = Committer::start(consumer.clone(), shared.commands.clone())?;
    Ok(Member { consumer, committer })
}

#[async_trait]
impl CommandReader for KafkaReader {
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand> {
        loop {
            let consumer = self.ready().await;
            let mut batch = Vec::new();
            self.sort(&consumer, &mut batch, max);
            if self.opened.is_none() && batch.is_empty() {
                // From here to the return there is no waiting with anything in hand.
                let first = timeout(LOOK_EVERY, consumer.recv()).await;
                if consumer.context().is_stuck(Instant::now()) || is_over(&consumer) || self.commits_no_more() {
                    tracing::warn!("a kafka consumer is stuck and replaced");
                    drop(first);
                    drop(consumer);
                    self.leave();
                    continue;
                }
                match first {
                    Err(_) => continue,
                    Ok(Ok(first)) => self.open(&first),
                    Ok(Err(error)) => {
                        // Many of these queue up while a broker is away, at the pace of connecting: no pause for each.
                        tracing::debug!(%error, "kafka consumer");
                        continue;
                    }
                }
                self.sort(&consumer, &mut batch, max);
            }
            let mut rest = consumer.stream();
            while self.opened.is_none()
                && batch.len() < max
                // What went wrong in between the client mends by itself, or is looked for at the next call.
                && let Some(Ok(message)) = rest.next().now_or_never().flatten()
            {
                self.open(&message);
                self.sort(&consumer, &mut batch, max);
            }
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Source> {
        let stale = self.stale.min(count);
        self.stale -= stale;
        let Some(Member { consumer, committer }) = &self.consumer else { return lost(stale > 0) };
        let acknowledged = consumer.context().acknowledge(count - stale);
        if acknowledged.any {
            committer.commit();
        }
        self.taken.acknowledge(count - stale).for_each(drop);
        lost(stale > 0 || acknowledged.lost)
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let bytes = match self.as_it_came(&command) {
            Some(bytes) => bytes,
            None => wire::command(&command)?,
        };
        let key = command.request.command.lane_key().to_string();
        let mut letter = self.shared.bury(Some(key.as_bytes()), &bytes, &reason)?;
        Ok(self.shared.buried(&mut letter).await?)
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.leave();
    }
}
