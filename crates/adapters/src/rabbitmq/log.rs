//! The command log: appending, dead letters, and who reads and answers.
//!
//! What queues up for a shard while the last commands are on their way goes together ([`crate::wire::convoy`]): as one
//! message, or a few.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, CommandLog, CommandReader, InstanceId, LogError, LoggedCommand, Source, Tasks, Traffic};
use futures_util::future::join_all;
use lapin::types::ShortString;

use super::address::Address;
use super::answers::{Answering, RabbitAnswers};
use super::failure::Failure;
use super::flight::Message;
use super::link::Link;
use super::publisher::Publisher;
use super::reader::RabbitReader;
use super::topology::{Names, QueueType, Topology, table, text};
use crate::wire;
use crate::wire::convoy::{self, Carrier, Convoys, Unsent};

/// The broker counts an expiry in 32 bits of milliseconds.
const RETENTION_MAX: Duration = Duration::from_millis(u32::MAX as u64);
/// A prefetch is counted in 16 bits, and is two batches.
const BATCH_MAX: u16 = u16::MAX / 2;
/// The longest reason that is written on a dead letter; what follows is cut off.
const REASON_MAX: usize = 1_024;

pub(super) const CONTENT_TYPE: &str = "application/json";
const SEQUENCE_TYPE: &str = "application/json-seq";

pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`, with several nodes separated by commas; neither logged nor part of any error.
    pub url: String,
    /// What the queues are called after, such as `boxoffice.commands`.
    pub name: String,
    /// The same for all instances.
    pub shards: u32,
    /// `None`: quorum queues where the address names several nodes, else the virtual host's default.
    pub queue_type: Option<QueueType>,
    /// How long a command may wait to be decided; then it goes to the dead letters.
    pub retention: Duration,
    /// How many commands are decided together at most: the broker sends ahead twice as many.
    pub batch: u16,
    pub traffic: Arc<Traffic>,
    pub tasks: Arc<dyn Tasks>,
}

/// See the module's opening.
pub struct RabbitLog {
    desk: Arc<Desk>,
    appending: Convoys<Failure>,
    answering: Answering,
}

impl RabbitLog {
    /// Reads the settings; connects in the background, so it must be called in a runtime.
    pub fn open(options: RabbitOptions) -> Result<Self, Failure> {
        let RabbitOptions { url, name, shards, queue_type, retention, batch, traffic, tasks } = options;
        if retention.is_zero() || retention > RETENTION_MAX {
            return Err(Failure::Settings(format!("commands are kept for 1 ms to {} days", RETENTION_MAX.as_secs() / 86_400)));
        }
        if !(1..=BATCH_MAX).contains(&batch) {
            return Err(Failure::Settings(format!("a batch has 1 to {BATCH_MAX} commands")));
        }
        let address = Arc::new(Address::parse(&url)?);
        let several = if address.is_cluster() { QueueType::Quorum } else { QueueType::Default };
        let names = Names::new(&name, shards, queue_type.unwrap_or(several))?;
        let publishing = Link::start(address.clone(), Topology::Commands(names.clone()), "commands", &*tasks);
        let reading = Link::start(address, Topology::Commands(names.clone()), "readers", &*tasks);
        let publisher = Publisher::start(publishing.clone(), &traffic, &*tasks);
        let answering = Answering::new(publishing.clone(), traffic.clone());
        let desk = Arc::new(Desk { names, retention, batch, traffic, publisher, publishing, reading });
        let appending = Convoys::start(&desk, desk.names.shards() as usize, "rabbitmq", &*tasks);
        Ok(Self { desk, appending, answering })
    }

    /// Whether commands are taken and could be read.
    pub async fn ping(&self) -> Result<(), Failure> {
        let (published, read) = tokio::join!(self.desk.publishing.ping(), self.desk.reading.ping());
        published.and(read)
    }
}

/// What the log shares with its readers.
pub(super) struct Desk {
    pub(super) names: Names,
    retention: Duration,
    pub(super) batch: u16,
    pub(super) traffic: Arc<Traffic>,
    publisher: Publisher,
    publishing: Link,
    pub(super) reading: Link,
}

#[async_trait]
impl Carrier for Desk {
    type Failure = Failure;

    async fn carry(&self, shard: usize, messages: Vec<convoy::Message>) -> Vec<Result<(), Failure>> {
        // There are as many convoys as shards.
        let queue = self.names.shard(u32::try_from(shard).unwrap_or_default());
        let send = |message: convoy::Message| {
            let content_type = if message.is_sequence { SEQUENCE_TYPE } else { CONTENT_TYPE };
            // Through the nameless exchange, which knows each queue by its name.
            let (exchange, id) = (ShortString::default(), message.id.to_string());
            let message = Message::persistent(exchange, queue.clone(), &id, content_type, message.bytes);
            self.publisher.send(message.expiring(self.retention.as_millis()))
        };
        join_all(messages.into_iter().map(send)).await
    }
}

impl Desk {
    /// Puts bytes with the dead letters; they are there when this returns `Ok`.
    pub(super) async fn bury(&self, id: &str, body: Vec<u8>, reason: &str) -> Result<(), Failure> {
        let end = reason.floor_char_boundary(REASON_MAX);
        let message = Message::persistent(self.names.dead(), ShortString::default(), id, CONTENT_TYPE, body);
        self.publisher.send(message.with_headers(table([("reason", text(&reason[..end]))]))).await
    }
}

#[async_trait]
impl CommandLog for RabbitLog {
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError> {
        if self.desk.publishing.is_blocked() {
            return Err(LogError::Blocked);
        }
        let (id, key) = (command.request.command_id, command.request.command.lane_key());
        let text = wire::command(&command).map_err(Failure::from)?;
        let shard = self.desk.names.shard_of(key) as usize;
        self.appending.append(shard, id, key, text).await.map_err(|unsent| match unsent {
            Unsent::Full => LogError::Blocked,
            Unsent::Late(time) => Failure::Silent(time).into(),
            Unsent::Failed(failure) => failure.into(),
        })
    }

    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source> {
        let reader = |shard| Box::new(RabbitReader::new(self.desk.clone(), shard)) as Box<dyn CommandReader>;
        Ok((0..self.desk.names.shards()).map(reader).collect())
    }

    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source> {
        Ok(self.answering.tell(self.desk.names.answers(instance), &answers).await?)
    }

    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source> {
        let queue = self.desk.names.answers(instance);
        Ok(Box::new(RabbitAnswers::open(self.desk.reading.clone(), queue, self.desk.traffic.clone()).await?))
    }
}
