//! One shard's reader.
//!
//! It subscribes with a channel of its own. The broker sends to one of the readers of all instances, in order, while the
//! others wait in `take`. Once that one's channel or connection has ended, it sends to the next in line. If instances start one after
//! the other, the first one reads every shard and the others stand by.
//!
//! Delivery tags belong to a channel and are kept with it: after a lost connection there is nothing left to acknowledge,
//! and the same commands come again. A message that holds several commands is acknowledged once all of them were taken.
//! One behind a command that is not decided is acknowledged alone, so that the broker goes on sending.
//!
//! *Cancelling.* Subscribing runs in a task of the reader's: a `take` that is dropped leaves it running, and the next one
//! waits for the same. It is retried until it succeeds, with pauses. See [`crate::wire::intake`] for texts that cannot be
//! read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{CommandReader, LoggedCommand, Source};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::shared::Shared;
use super::topology::declare_shard;
use crate::pause::jittered;
use crate::wire;
use crate::wire::intake::{DeadLetters, Intake};
use crate::wire::taken::Taken;

/// How many batches the broker sends ahead: while one is decided the next one is under way.
const BATCHES_AHEAD: u16 = 2;
/// The longest an acknowledgement may take to be written.
const ACK_MAX: Duration = Duration::from_secs(5);
/// The longest pause after an attempt that failed though there is a connection.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct RabbitReader {
    shared: Arc<Shared>,
    shard: u32,
    subscription: Option<Subscription>,
    subscribing: JoinSet<Subscription>,
    /// How many commands that came over channels that have ended are not acknowledged: they come again.
    stale: usize,
}

/// A subscription, and the commands that came over it.
struct Subscription {
    channel: Channel,
    consumer: Consumer,
    intake: Intake<Origin>,
    /// The tags of the messages that were taken whole and not acknowledged.
    taken: Taken<u64>,
    /// Acknowledges messages of which no command was taken. In a task, so that a dropped `take` does not lose it.
    acknowledging: JoinSet<Result<(), Failure>>,
}

/// Which delivery a message came with.
#[derive(Clone)]
struct Origin {
    tag: u64,
    id: ShortString,
}

impl RabbitReader {
    pub(super) fn new(shared: Arc<Shared>, shard: u32) -> Self {
        Self { shared, shard, subscription: None, subscribing: JoinSet::new(), stale: 0 }
    }

    async fn subscribed(&mut self) {
        if self.subscribing.is_empty() {
            self.subscribing.spawn(subscribe_at_last(self.shared.clone(), self.shard));
        }
        if let Some(Ok(subscription)) = self.subscribing.join_next().await {
            self.subscription = Some(subscription);
        }
    }

    /// After a failure the subscription is made again.
    fn checked(&mut self, outcome: Result<(), Failure>) -> Result<(), Source> {
        Ok(outcome.inspect_err(|failure| self.lost(failure))?)
    }

    fn lost(&mut self, why: &Failure) {
        tracing::debug!(shard = self.shard, error = %why, "a shard's reader has to subscribe again");
        self.stale += self.subscription.take().map_or(0, |subscription| subscription.taken.outstanding());
    }
}

/// Retries until there is a subscription.
async fn subscribe_at_last(shared: Arc<Shared>, shard: u32) -> Subscription {
    loop {
        match subscribe(&shared, shard).await {
            Ok((channel, consumer)) => {
                let (intake, taken, acknowledging) = (Intake::default(), Taken::default(), JoinSet::new());
                return Subscription { channel, consumer, intake, taken, acknowledging };
            }
            Err(failure) => {
                tracing::debug!(shard, error = %failure, "a shard cannot be read; trying again");
                sleep(jittered(RETRY_PAUSE)).await;
            }
        }
    }
}

async fn subscribe(shared: &Shared, shard: u32) -> Result<(Channel, Consumer), Failure> {
    let connection = shared.reading.up().await;
    let channel = connection.channel().await?;
    let subscribed = async {
        // The queue may have been deleted while the connection stayed.
        declare_shard(connection.lapin(), &shared.names, shard).await?;
        let prefetch = shared.batch.saturating_mul(BATCHES_AHEAD);
        consume(&channel, shared.names.shard(shard), BasicConsumeOptions::default(), prefetch).await
    };
    let consumer = connection.bounded(subscribed).await?;
    Ok((channel, consumer))
}

pub(super) async fn consume(channel: &Channel, queue: ShortString, options: BasicConsumeOptions, prefetch: u16) -> lapin::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await
}

#[async_trait]
impl CommandReader for RabbitReader {
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand> {
        loop {
            let Some(subscription) = &mut self.subscription else {
                self.subscribed().await;
                continue;
            };
            match subscription.take(max, &self.shared).await {
                Ok(commands) => return commands,
                Err(ended) => self.lost(&ended),
            }
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Source> {
        let stale = self.stale.min(count);
        self.stale -= stale;
        if let Some(subscription) = &mut self.subscription {
            let acknowledged = subscription.acknowledge(count - stale).await;
            self.checked(acknowledged)?;
        }
        if stale > 0 { Err(Failure::Stale.into()) } else { Ok(()) }
    }

    async fn acknowledge_beyond(&mut self, places: &[usize]) -> Result<(), Source> {
        let places: Vec<_> = places.iter().filter_map(|place| place.checked_sub(self.stale)).collect();
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        let acknowledged = subscription.acknowledge_beyond(&places).await;
        self.checked(acknowledged)
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let body = match &self.subscription {
            Some(subscription) => subscription.intake.text_of(&command),
            None => wire::command(&command),
        };
        Ok(self.shared.bury(&command.request.command_id.to_string(), body.map_err(Failure::from)?, &reason).await?)
    }
}

impl Subscription {
    /// One command at least, and all that are here up to `max`. An error is the end of the subscription.
    async fn take(&mut self, max: usize, shared: &Arc<Shared>) -> Result<Vec<LoggedCommand>, Failure> {
        loop {
            if let Some(acknowledged) = self.acknowledging.join_next().await {
                acknowledged.unwrap_or(Err(Failure::Unconfirmed))?;
                continue;
            }
            if let Some(place) = self.intake.settle(shared).await {
                self.taken.over(place.tag);
                // Later commands are acknowledged together with this message; at once if there are none before it.
                if self.taken.outstanding() == 0
                    && let Some(tag) = self.taken.acknowledge(0).last()
                {
                    self.acknowledging.spawn(acknowledge(self.channel.clone(), tag, UP_TO));
                }
                continue;
            }
            if self.intake.messages() == 0 {
                let next = self.consumer.next().await;
                self.arrived(next, shared)?;
            }
            while self.intake.messages() < max
                && let Some(next) = self.consumer.next().now_or_never()
            {
                self.arrived(next, shared)?;
            }
            let mut commands = Vec::new();
            while commands.len() < max.max(1)
                && let Some((command, ended)) = self.intake.next()
            {
                commands.push(command);
                self.taken.gave(1);
                if let Some(place) = ended {
                    self.taken.over(place.tag);
                }
            }
            if !commands.is_empty() {
                return Ok(commands);
            }
        }
    }

    fn arrived(&mut self, next: Option<lapin::Result<Delivery>>, shared: &Shared) -> Result<(), Failure> {
        // Cancelled by the broker: the queue was deleted.
        let delivery = next.ok_or(Failure::Unroutable)??;
        shared.traffic.broker_messages(1);
        let id = delivery.properties.message_id().clone().unwrap_or_default();
        self.intake.push(Origin { tag: delivery.delivery_tag, id }, delivery.data);
        Ok(())
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Failure> {
        self.intake.acknowledge(count);
        match self.taken.acknowledge(count).last() {
            Some(tag) => acknowledge(self.channel.clone(), tag, UP_TO).await,
            None => Ok(()),
        }
    }

    async fn acknowledge_beyond(&mut self, places: &[usize]) -> Result<(), Failure> {
        for tag in self.taken.acknowledge_beyond(places) {
            acknowledge(self.channel.clone(), tag, ALONE).await?;
        }
        Ok(())
    }
}

/// Everything up to a delivery, or it alone.
const UP_TO: BasicAckOptions = BasicAckOptions { multiple: true };
const ALONE: BasicAckOptions = BasicAckOptions { multiple: false };

async fn acknowledge(channel: Channel, tag: u64, which: BasicAckOptions) -> Result<(), Failure> {
    let written = timeout(ACK_MAX, channel.basic_ack(tag, which));
    Ok(written.await.map_err(|_| Failure::Silent(ACK_MAX))??)
}

#[async_trait]
impl DeadLetters<Origin> for Shared {
    type Failure = Failure;

    async fn bury(&self, place: &Origin, text: &[u8], reason: &str) -> Result<(), Failure> {
        self.bury(place.id.as_str(), text.to_vec(), reason).await
    }
}
