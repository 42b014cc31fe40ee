//! Taking commands from the partitions that are this reader's.
//!
//! *Group.* Readers of all instances are members of one group, in which partitions move one by one, the others going on
//! (cooperative rebalancing). It is the brokers' older protocol, because there the member itself says how soon it is
//! taken for dead: [`DEAD_AFTER`], where the newer one leaves that to the brokers' settings (45 s unless changed).
//!
//! *What a call waits for.* Taking: for the first message; whatever else has been fetched ahead comes with it, without
//! another round trip. Acknowledging: for nothing; positions are committed in the background, and a consumer whose
//! commit finds no end is replaced. Dead letters: as appending does.
//!
//! *What was not acknowledged* comes again, to this reader or another: after a crash, when the partition moves, when a
//! commit fails. Positions are committed up to what was taken, never beyond it, and not for a partition that has moved;
//! see [`super::positions`]. Whoever takes nothing for [`BATCH_MAX`] is taken for stuck and loses its partitions.
//!
//! *What cannot be read* goes to the dead letters before anything behind it in its partition is acknowledged. While that
//! fails it is tried again, and what is behind it waits. After a crash in between it lies there twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::CommandId;
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
    /// What was taken and not yet acknowledged, as it came: it may become a dead letter.
    taken: HashMap<CommandId, Vec<u8>>,
    /// What cannot be read and is not yet with the dead letters. Nothing behind it is taken meanwhile.
    unreadable: Option<Unreadable>,
}

/// A member of the group.
struct Member {
    consumer: Arc<GroupConsumer>,
    committer: Committer,
}

struct Unreadable {
    key: Option<Vec<u8>>,
    bytes: Vec<u8>,
    reason: String,
    partition: i32,
    offset: i64,
    letter: Option<Delivery>,
}

impl KafkaReader {
    /// Joins the group, in the background.
    pub(super) fn join(shared: Arc<Shared>, group: String) -> Result<Self, Failure> {
        let consumer = Some(join(&shared, &group)?);
        Ok(Self { shared, group, consumer, taken: HashMap::new(), unreadable: None })
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
        tracing::warn!(partition = unreadable.partition, offset = unreadable.offset, reason = unreadable.reason, "unreadable command");
        consumer.context().took(unreadable.partition, unreadable.offset);
        self.unreadable = None;
        Ok(consumer)
    }

    /// Whether it goes on behind this message.
    fn sort(&mut self, message: &BorrowedMessage<'_>, consumer: &GroupConsumer, batch: &mut Vec<LoggedCommand>) -> bool {
        self.shared.traffic.broker_messages(1);
        let bytes = message.payload().unwrap_or_default();
        match wire::parse_command(bytes) {
            Ok(command) => {
                consumer.context().took(message.partition(), message.offset());
                self.taken.insert(command.request.command_id, bytes.to_vec());
                batch.push(command);
                true
            }
            Err(error) => {
                self.unreadable = Some(Unreadable {
                    key: message.key().map(<[u8]>::to_vec),
                    bytes: bytes.to_vec(),
                    reason: error.to_string(),
                    partition: message.partition(),
                    offset: message.offset(),
                    letter: None,
                });
                false
            }
        }
    }

    /// The partitions are given back and another member takes over, or this one anew.
    fn leave(&mut self) {
        self.taken.clear();
        self.unreadable = None;
        if let Some(Member { consumer, committer }) = self.consumer.take() {
            close_after(|| committer.finish(), consumer);
        }
    }
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
            // From here to the return there is no waiting with anything in hand.
            let first = timeout(LOOK_EVERY, consumer.recv()).await;
            if consumer.context().is_stuck(Instant::now()) || is_over(&consumer) {
                tracing::warn!("a kafka consumer is stuck and replaced");
                drop(first);
                drop(consumer);
                self.leave();
                continue;
            }
            let first = match first {
                Err(_) => continue,
                Ok(Ok(first)) => first,
                Ok(Err(error)) => {
                    // Many of these queue up while a broker is away, at the pace of connecting: no pause for each.
                    tracing::debug!(%error, "kafka consumer");
                    continue;
                }
            };
            let (mut batch, mut next) = (Vec::new(), Some(first));
            let mut rest = consumer.stream();
            while let Some(message) = next.take() {
                if self.sort(&message, &consumer, &mut batch) && batch.len() < max {
                    // What went wrong in between the client mends by itself, or is looked for at the next call.
                    next = rest.next().now_or_never().flatten().and_then(Result::ok);
                }
            }
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Source> {
        self.taken.clear();
        let Some(Member { consumer, committer }) = &self.consumer else { return Ok(()) };
        let acknowledged = consumer.context().acknowledge();
        if acknowledged.any {
            committer.commit();
        }
        if acknowledged.lost { Err(Failure::Lost.into()) } else { Ok(()) }
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let bytes = match self.taken.get(&command.request.command_id) {
            Some(bytes) => bytes.clone(),
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
