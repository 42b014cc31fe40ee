//! One shard's reader.
//!
//! It subscribes with a channel of its own. Among the readers of all instances the broker sends to one, in order, and
//! to the next in line once that one's channel or connection has ended: the others wait in `take`. With instances that
//! start one after the other the first one reads every shard, and the others stand by.
//!
//! Delivery tags belong to a channel and are kept with it: after a lost connection there is nothing left to
//! acknowledge, and the same commands come again. A message that holds several commands is acknowledged once all of them
//! were taken. One behind a command that is not decided is acknowledged alone, so that the broker goes on sending.
//!
//! *Cancelling.* Subscribing, and putting what cannot be read with the dead letters, run in tasks of the reader's: a
//! `take` that is dropped leaves them at work, and the next one waits for the same. Both go on until they succeed, with
//! pauses. While the dead letters cannot be reached the commands behind an unreadable one wait for it.

use std::collections::VecDeque;
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
use super::jittered;
use super::log::Desk;
use super::topology::declare_shard;
use crate::wire;
use crate::wire::sequence::Texts;
use crate::wire::taken::Taken;

/// How many batches the broker sends ahead: while one is decided the next one is on its way.
const BATCHES_AHEAD: u16 = 2;
/// The longest an acknowledgement may take to be written.
const ACK_MAX: Duration = Duration::from_secs(5);
/// The pause after an attempt that failed though there is a connection, or while the dead letters cannot be reached.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct RabbitReader {
    desk: Arc<Desk>,
    shard: u32,
    open: Option<Open>,
    opening: JoinSet<Open>,
    /// How many commands that came over channels that have ended are not acknowledged: they come again.
    stale: usize,
}

/// A subscription, and what came of it.
struct Open {
    channel: Channel,
    consumer: Consumer,
    arrived: VecDeque<Arrived>,
    /// What cannot be read is on its way to the dead letters, or its message is being acknowledged. Nothing behind it is
    /// taken meanwhile.
    settling: JoinSet<Result<(), Failure>>,
    /// The tags of those that were taken whole and not acknowledged.
    taken: Taken<u64>,
}

/// A delivery of which something is left to take.
struct Arrived {
    tag: u64,
    id: ShortString,
    texts: Texts,
}

impl RabbitReader {
    pub(super) fn new(desk: Arc<Desk>, shard: u32) -> Self {
        Self { desk, shard, open: None, opening: JoinSet::new(), stale: 0 }
    }

    async fn opened(&mut self) {
        if self.opening.is_empty() {
            self.opening.spawn(open(self.desk.clone(), self.shard));
        }
        if let Some(Ok(open)) = self.opening.join_next().await {
            self.open = Some(open);
        }
    }

    fn lost(&mut self, why: &Failure) {
        tracing::debug!(shard = self.shard, error = %why, "a shard's reader has to subscribe again");
        self.stale += self.open.take().map_or(0, |open| open.taken.outstanding());
    }
}

/// Goes on until there is a subscription.
async fn open(desk: Arc<Desk>, shard: u32) -> Open {
    loop {
        match subscribe(&desk, shard).await {
            Ok((channel, consumer)) => {
                return Open { channel, consumer, arrived: VecDeque::new(), settling: JoinSet::new(), taken: Taken::default() };
            }
            Err(failure) => {
                tracing::debug!(shard, error = %failure, "a shard cannot be read");
                sleep(jittered(RETRY_PAUSE)).await;
            }
        }
    }
}

async fn subscribe(desk: &Desk, shard: u32) -> Result<(Channel, Consumer), Failure> {
    let session = desk.reading.up().await;
    let channel = session.channel().await?;
    let subscribed = async {
        // The queue may have been deleted while the connection stayed.
        declare_shard(session.connection(), &desk.names, shard).await?;
        let prefetch = desk.batch.saturating_mul(BATCHES_AHEAD);
        consume(&channel, desk.names.shard(shard), BasicConsumeOptions::default(), prefetch).await
    };
    let consumer = session.answers(subscribed).await?;
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
            let Some(open) = &mut self.open else {
                self.opened().await;
                continue;
            };
            match open.take(max, &self.desk).await {
                Ok(commands) => return commands,
                Err(ended) => self.lost(&ended),
            }
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Source> {
        let stale = self.stale.min(count);
        self.stale -= stale;
        if let Some(open) = &mut self.open
            && let Err(failure) = open.acknowledge(count - stale).await
        {
            self.lost(&failure);
            return Err(failure.into());
        }
        if stale > 0 { Err(Failure::Stale.into()) } else { Ok(()) }
    }

    async fn acknowledge_beyond(&mut self, places: &[usize]) -> Result<(), Source> {
        let places: Vec<_> = places.iter().filter_map(|place| place.checked_sub(self.stale)).collect();
        if let Some(open) = &mut self.open
            && let Err(failure) = open.acknowledge_beyond(&places).await
        {
            self.lost(&failure);
            return Err(failure.into());
        }
        Ok(())
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let body = wire::command(&command).map_err(Failure::from)?;
        Ok(self.desk.bury(&command.request.command_id.to_string(), body, &reason).await?)
    }
}

impl Open {
    /// One command at least, and all that are here up to `max`. An error is the end of the subscription.
    async fn take(&mut self, max: usize, desk: &Arc<Desk>) -> Result<Vec<LoggedCommand>, Failure> {
        loop {
            if let Some(settled) = self.settling.join_next().await {
                settled.unwrap_or(Err(Failure::Unconfirmed))?;
                self.close_buried();
                continue;
            }
            if self.arrived.is_empty() {
                let next = self.consumer.next().await;
                self.arrived.push_back(arrived(next, desk)?);
            }
            while self.arrived.len() < max
                && let Some(next) = self.consumer.next().now_or_never()
            {
                self.arrived.push_back(arrived(next, desk)?);
            }
            let commands = self.parse(max, desk);
            if !commands.is_empty() {
                return Ok(commands);
            }
        }
    }

    /// What can be read of what has arrived, up to `max` or to what cannot: that goes to the dead letters, unless
    /// there are commands before it, which are not to wait.
    fn parse(&mut self, max: usize, desk: &Arc<Desk>) -> Vec<LoggedCommand> {
        let mut commands = Vec::new();
        while commands.len() < max.max(1)
            && let Some(arrived) = self.arrived.front_mut()
        {
            let before = arrived.texts.clone();
            let Some(text) = arrived.texts.next() else { break };
            match wire::parse_command(text) {
                Ok(command) => {
                    commands.push(command);
                    self.taken.gave(1);
                    if arrived.texts.is_over() {
                        self.taken.over(arrived.tag);
                        self.arrived.pop_front();
                    }
                }
                Err(_) if !commands.is_empty() => {
                    arrived.texts = before;
                    break;
                }
                Err(unreadable) => {
                    let letter = (arrived.id.clone(), text.to_vec(), unreadable.to_string());
                    self.settling.spawn(bury(desk.clone(), letter));
                    break;
                }
            }
        }
        commands
    }

    /// After a text that cannot be read: was it the last of its message, then that is acknowledged with the commands
    /// before it, and at once if nobody decides any.
    fn close_buried(&mut self) {
        if let Some(arrived) = self.arrived.pop_front_if(|arrived| arrived.texts.is_over()) {
            self.taken.over(arrived.tag);
        }
        if self.taken.outstanding() == 0
            && let Some(tag) = self.taken.acknowledge(0).last()
        {
            self.settling.spawn(acknowledge(self.channel.clone(), tag, UP_TO));
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Failure> {
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

/// Goes on until the letter is with the dead ones.
async fn bury(desk: Arc<Desk>, (id, body, reason): (ShortString, Vec<u8>, String)) -> Result<(), Failure> {
    while let Err(failure) = desk.bury(id.as_str(), body.clone(), &reason).await {
        tracing::warn!(error = %failure, "an unreadable command could not be put with the dead letters");
        sleep(jittered(RETRY_PAUSE)).await;
    }
    Ok(())
}

fn arrived(next: Option<lapin::Result<Delivery>>, desk: &Desk) -> Result<Arrived, Failure> {
    // Cancelled by the broker: the queue was deleted.
    let delivery = next.ok_or(Failure::Unroutable)??;
    desk.traffic.broker_messages(1);
    let id = delivery.properties.message_id().clone().unwrap_or_default();
    Ok(Arrived { tag: delivery.delivery_tag, id, texts: Texts::new(delivery.data) })
}
