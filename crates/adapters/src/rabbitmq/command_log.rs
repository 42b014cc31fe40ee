//! The command log: appending, and making the readers of commands and answers.
//!
//! Commands that queue up for a shard during a round trip go together ([`crate::wire::convoy`]): as one message, or a few.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, CommandLog, CommandReader, InstanceId, LogError, LoggedCommand, Source, Tasks, Traffic};
use futures_util::future::join_all;
use lapin::types::ShortString;

use super::address::Address;
use super::answer_reader::{Answering, RabbitAnswers};
use super::command_reader::RabbitReader;
use super::confirm_channel::Message;
use super::failure::Failure;
use super::link::Link;
use super::publisher::Publisher;
use super::shared::{CONTENT_TYPE, Shared};
use super::topology::{Names, QueueType, Topology};
use crate::wire;
use crate::wire::convoy::{Carrier, Convoys, LogMessage, Unsent};

/// The broker counts an expiry in 32 bits of milliseconds.
const RETENTION_MAX: Duration = Duration::from_millis(u32::MAX as u64);
/// A prefetch is counted in 16 bits, and is two batches.
const BATCH_MAX: u16 = u16::MAX / 2;

const SEQUENCE_TYPE: &str = "application/json-seq";

pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`, with several nodes separated by commas; neither logged nor part of any error.
    pub url: String,
    /// The prefix of the queues' names, such as `boxoffice.commands`.
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
    shared: Arc<Shared>,
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
        let shared = Arc::new(Shared { names, retention, batch, traffic, publisher, publishing, reading });
        let appending = Convoys::start(&shared, shared.names.shards() as usize, "rabbitmq", &*tasks);
        Ok(Self { shared, appending, answering })
    }

    /// Whether commands are accepted and can be read.
    pub async fn ping(&self) -> Result<(), Failure> {
        let (published, read) = tokio::join!(self.shared.publishing.ping(), self.shared.reading.ping());
        published.and(read)
    }
}

#[async_trait]
impl Carrier for Shared {
    type Failure = Failure;

    async fn carry(&self, shard: usize, messages: Vec<LogMessage>) -> Vec<Result<(), Failure>> {
        // There are as many convoys as shards.
        let queue = self.names.shard(u32::try_from(shard).unwrap_or_default());
        let send = |message: LogMessage| {
            let content_type = if message.is_sequence { SEQUENCE_TYPE } else { CONTENT_TYPE };
            // Through the nameless exchange, which knows each queue by its name.
            let (exchange, id) = (ShortString::default(), message.id.to_string());
            let message = Message::persistent(exchange, queue.clone(), &id, content_type, message.bytes);
            self.publisher.send(message.expiring(self.retention.as_millis()))
        };
        join_all(messages.into_iter().map(send)).await
    }
}

#[async_trait]
impl CommandLog for RabbitLog {
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError> {
        if self.shared.publishing.is_blocked() {
            return Err(LogError::Blocked);
        }
        let (id, key) = (command.request.command_id, command.request.command.lane_key());
        let text = wire::command(&command).map_err(Failure::from)?;
        let shard = self.shared.names.shard_of(key) as usize;
        self.appending.append(shard, id, key, text).await.map_err(|unsent| match unsent {
            Unsent::Full => LogError::Blocked,
            Unsent::Late(time) => Failure::Silent(time).into(),
            Unsent::Failed(failure) => failure.into(),
        })
    }

    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source> {
        let reader = |shard| Box::new(RabbitReader::new(self.shared.clone(), shard)) as Box<dyn CommandReader>;
        Ok((0..self.shared.names.shards()).map(reader).collect())
    }

    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source> {
        Ok(self.answering.send(self.shared.names.answers(instance), &answers).await?)
    }

    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source> {
        let queue = self.shared.names.answers(instance);
        Ok(Box::new(RabbitAnswers::open(self.shared.reading.clone(), queue, self.shared.traffic.clone()).await?))
    }
}
