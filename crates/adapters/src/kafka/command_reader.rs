//! Taking commands from the partitions that are this reader's.
//!
//! *Group.* Readers of all instances are members of one group. Its partitions move one by one while the others go on
//! (cooperative rebalancing). It uses the brokers' older protocol, in which a member sets its own time-out
//! ([`DEAD_AFTER`]). The newer one leaves that to the brokers' settings (45 s unless changed).
//!
//! *What a call waits for.* Taking: for the first message, unless one that holds several commands was not taken whole.
//! Messages that were fetched ahead come with it, without another round trip. Acknowledging: for nothing. Positions are
//! committed in the background, and a consumer whose commit does not end is replaced. Dead letters: as appending does.
//!
//! *A command that was not acknowledged* comes again, to this reader or another: after a crash, when the partition moves,
//! when a commit fails. Positions are committed up to the last message that was taken whole, never beyond it, and not for a
//! partition that has moved; see [`super::positions`]. A reader that takes nothing for [`BATCH_MAX`] loses its partitions.
//!
//! *A text that cannot be read* goes to the dead letters before anything behind it in its partition is acknowledged; see
//! [`crate::wire::intake`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{CommandReader, LoggedCommand, Source};
use futures_util::{FutureExt, StreamExt};
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use tokio::time::{Instant, timeout};

use super::connect::{close_after, consumer, is_over, pause};
use super::failure::Failure;
use super::positions::{Committer, Positions};
use super::shared::Shared;
use crate::wire::intake::{DeadLetters, Intake};

/// A member that is silent for so long is dead, and its partitions go to others. Brokers allow no less by default.
const DEAD_AFTER: Duration = Duration::from_secs(6);
/// How often a member sends a heartbeat, whose answer also carries news of a rebalance.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// The longest between two calls of take, hence for deciding one batch.
const BATCH_MAX: Duration = Duration::from_secs(60);

/// How often a reader that gets nothing checks whether it is stuck.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type GroupConsumer = StreamConsumer<Positions>;

/// See the module's opening.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    group: String,
    /// `None` once it has ended, until the next take.
    member: Option<Member>,
    /// How many commands of consumers that have ended are not acknowledged: they come again.
    stale: usize,
    /// At most one message at a time: no other is polled for until it is taken whole.
    intake: Intake<Origin>,
}

/// A member of the group.
struct Member {
    consumer: Arc<GroupConsumer>,
    committer: Committer,
}

/// Where a message lies.
#[derive(Clone)]
struct Origin {
    key: Option<Vec<u8>>,
    partition: i32,
    offset: i64,
}

impl KafkaReader {
    /// Joins the group, in the background.
    pub(super) fn join(shared: Arc<Shared>, group: String) -> Result<Self, Failure> {
        let member = Some(join(&shared, &group)?);
        Ok(Self { shared, group, member, stale: 0, intake: Intake::default() })
    }

    /// The consumer; another one if the last has ended.
    async fn consumer(&mut self) -> Arc<GroupConsumer> {
        loop {
            if let Some(member) = &self.member {
                return member.consumer.clone();
            }
            match join(&self.shared, &self.group) {
                Ok(member) => self.member = Some(member),
                Err(error) => {
                    tracing::warn!(%error, "no Kafka consumer could be started; trying again");
                    pause().await;
                }
            }
        }
    }

    fn open(&mut self, message: &BorrowedMessage<'_>) {
        self.shared.traffic.broker_messages(1);
        let place = Origin { key: message.key().map(<[u8]>::to_vec), partition: message.partition(), offset: message.offset() };
        self.intake.push(place, message.payload().unwrap_or_default());
    }

    /// Moves commands of the message that is here into `batch`, up to `max` in all or to a text that cannot be read.
    fn fill(&mut self, consumer: &GroupConsumer, batch: &mut Vec<LoggedCommand>, max: usize) {
        while batch.len() < max
            && let Some((command, ended)) = self.intake.next()
        {
            batch.push(command);
            consumer.context().gave(1);
            if let Some(place) = ended {
                consumer.context().over(place.partition, place.offset);
            }
        }
    }

    /// Acknowledged commands stay uncommitted: the committing thread has ended.
    fn commits_no_more(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.committer.has_ended())
    }

    /// Gives the partitions back. Another member takes them over, or this one anew.
    fn leave(&mut self) {
        self.intake = Intake::default();
        if let Some(Member { consumer, committer }) = self.member.take() {
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
            let consumer = self.consumer().await;
            if let Some(place) = self.intake.settle(&self.shared).await {
                consumer.context().over(place.partition, place.offset);
            }
            let mut batch = Vec::new();
            self.fill(&consumer, &mut batch, max);
            if self.intake.messages() == 0 && batch.is_empty() {
                // From here to the return there is no waiting with anything in hand.
                let first = timeout(LOOK_EVERY, consumer.recv()).await;
                if consumer.context().is_stuck(Instant::now()) || is_over(&consumer) || self.commits_no_more() {
                    tracing::warn!("a Kafka consumer is stuck and is replaced");
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
                        tracing::debug!(%error, "Kafka consumer");
                        continue;
                    }
                }
                self.fill(&consumer, &mut batch, max);
            }
            let mut rest = consumer.stream();
            while self.intake.messages() == 0
                && batch.len() < max
                // The client recovers from an error in between by itself, or the next call finds it.
                && let Some(Ok(message)) = rest.next().now_or_never().flatten()
            {
                self.open(&message);
                self.fill(&consumer, &mut batch, max);
            }
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Source> {
        let stale = self.stale.min(count);
        self.stale -= stale;
        let Some(Member { consumer, committer }) = &self.member else { return lost(stale > 0) };
        let acknowledged = consumer.context().acknowledge(count - stale);
        if acknowledged.any {
            committer.commit();
        }
        self.intake.acknowledge(count - stale);
        lost(stale > 0 || acknowledged.lost)
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let key = command.request.command.lane_key().to_string();
        Ok(self.shared.bury(Some(key.as_bytes()), &self.intake.text_of(&command)?, &reason).await?)
    }
}

#[async_trait]
impl DeadLetters<Origin> for Shared {
    type Failure = Failure;

    async fn bury(&self, place: &Origin, text: &[u8], reason: &str) -> Result<(), Failure> {
        self.bury(place.key.as_deref(), text, reason).await
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.leave();
    }
}
