//! One shard's reader.
//!
//! It subscribes with a channel of its own. Among the readers of all instances the broker sends to one, in order, and
//! to the next in line once that one's channel or connection has ended: the others wait in `take`. With instances that
//! start one after the other the first one reads every shard, and the others stand by.
//!
//! Delivery tags belong to a channel and are kept with it: after a lost connection there is nothing left to
//! acknowledge, and the same commands come again.

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
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::jittered;
use super::link::{OPEN_MAX, Session};
use super::log::Desk;
use crate::wire;

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
    /// Something was taken over a channel that has ended since, and not acknowledged.
    stale: bool,
}

/// A subscription, and what came of it.
struct Open {
    channel: Channel,
    consumer: Consumer,
    arrived: VecDeque<Delivery>,
    /// Parsed, and not yet returned by a `take` that was dropped.
    parsed: Vec<LoggedCommand>,
    /// The last delivery that was taken and not acknowledged.
    last: Option<u64>,
}

impl RabbitReader {
    pub(super) fn new(desk: Arc<Desk>, shard: u32) -> Self {
        Self { desk, shard, open: None, stale: false }
    }

    async fn subscribe(&mut self) -> Result<(), Failure> {
        let session = self.desk.reading.up().await;
        // The queue may have been deleted while the connection stayed.
        self.desk.reading.declare(&session).await?;
        let prefetch = self.desk.batch.saturating_mul(BATCHES_AHEAD);
        let queue = self.desk.names.shard(self.shard);
        let (channel, consumer) = consume(&session, queue, BasicConsumeOptions::default(), prefetch).await?;
        self.open = Some(Open { channel, consumer, arrived: VecDeque::new(), parsed: Vec::new(), last: None });
        Ok(())
    }

    fn lost(&mut self, why: &dyn std::fmt::Display) {
        tracing::debug!(shard = self.shard, error = %why, "a shard's reader has to subscribe again");
        self.stale |= self.open.take().is_some_and(|open| open.last.is_some());
    }
}

/// A subscription on a channel of its own. A broker that hangs is given up.
pub(super) async fn consume(
    session: &Session,
    queue: ShortString,
    options: BasicConsumeOptions,
    prefetch: u16,
) -> Result<(Channel, Consumer), Failure> {
    let channel = session.channel().await?;
    let subscribed = timeout(OPEN_MAX, async {
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await
    });
    match subscribed.await {
        Ok(consumer) => Ok((channel, consumer?)),
        Err(_) => {
            session.give_up();
            Err(Failure::Silent(OPEN_MAX))
        }
    }
}

#[async_trait]
impl CommandReader for RabbitReader {
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand> {
        loop {
            let Some(open) = &mut self.open else {
                if let Err(failure) = self.subscribe().await {
                    tracing::debug!(shard = self.shard, error = %failure, "a shard cannot be read");
                    sleep(jittered(RETRY_PAUSE)).await;
                }
                continue;
            };
            match open.fill(max).await {
                Ok(()) => {}
                Err(ended) => {
                    self.lost(&ended);
                    continue;
                }
            }
            if let Err(failure) = open.parse(max, &self.desk).await {
                tracing::warn!(shard = self.shard, error = %failure, "an unreadable command could not be put with the dead letters");
                if open.parsed.is_empty() {
                    sleep(jittered(RETRY_PAUSE)).await;
                }
            }
            if !open.parsed.is_empty() {
                return std::mem::take(&mut open.parsed);
            }
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Source> {
        if let Some(open) = &mut self.open
            && let Err(failure) = open.acknowledge().await
        {
            self.lost(&failure);
            self.stale = false;
            return Err(failure.into());
        }
        if std::mem::take(&mut self.stale) { Err(Failure::Stale.into()) } else { Ok(()) }
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let body = wire::command(&command).map_err(Failure::from)?;
        Ok(self.desk.bury(&command.request.command_id.to_string(), body, &reason).await?)
    }
}

impl Open {
    /// Returns with one delivery at least, and all that is here up to `max`.
    async fn fill(&mut self, max: usize) -> Result<(), String> {
        if self.arrived.is_empty() && self.parsed.is_empty() {
            let next = self.consumer.next().await;
            self.arrived.push_back(delivery(next)?);
        }
        while self.arrived.len() + self.parsed.len() < max
            && let Some(next) = self.consumer.next().now_or_never()
        {
            self.arrived.push_back(delivery(next)?);
        }
        Ok(())
    }

    /// Parses what has arrived, up to `max`; what cannot be parsed is with the dead letters, or is the next.
    async fn parse(&mut self, max: usize, desk: &Desk) -> Result<(), Failure> {
        while self.parsed.len() < max.max(1)
            && let Some(delivery) = self.arrived.front()
        {
            match wire::parse_command(&delivery.data) {
                Ok(command) => {
                    self.last = Some(delivery.delivery_tag);
                    self.parsed.push(command);
                }
                Err(unreadable) => {
                    let id = delivery.properties.message_id().as_ref().map_or("", ShortString::as_str);
                    desk.bury(id, delivery.data.clone(), &unreadable.to_string()).await?;
                    // Alone: those before it are not decided.
                    self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: false }).await?;
                }
            }
            desk.traffic.broker_messages(1);
            self.arrived.pop_front();
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let Some(last) = self.last else { return Ok(()) };
        let written = timeout(ACK_MAX, self.channel.basic_ack(last, BasicAckOptions { multiple: true }));
        written.await.map_err(|_| Failure::Silent(ACK_MAX))??;
        self.last = None;
        Ok(())
    }
}

fn delivery(next: Option<lapin::Result<Delivery>>) -> Result<Delivery, String> {
    match next {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(error.to_string()),
        // By the broker: the queue was deleted.
        None => Err("the subscription was cancelled".to_owned()),
    }
}
