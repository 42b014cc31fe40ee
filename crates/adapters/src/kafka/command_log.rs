//! Commands in the order of their partitions, and the answers to them.
//!
//! *Topics.* `<name>` holds the commands, in the partition of what they contend for, so that these stay in order. Commands
//! that queue up for a partition during a round trip go together ([`crate::wire::convoy`]), under the key of the first one.
//! `<name>.answers` holds the answers. Those for an instance lie in one partition, chosen by its id, with the instance as a
//! header. `<name>.dead` holds what could not be decided or read, as it came, with the reason as a header.
//!
//! *What a call waits for.* [`KafkaLog::append`]: the rest of the request before it. Then one request, shared with other
//! commands for the partition, until all replicas in sync have it; [`APPEND_MAX`] at most. [`KafkaLog::answer`]: nothing;
//! answers go out in the background, acknowledged by one broker. [`KafkaLog::ping`]: one round trip.
//!
//! *At the bound.* The next command is refused as [`LogError::Blocked`] while as many wait as a convoy's shard takes, or
//! [`APPENDS_QUEUED_MAX`] messages wait for a broker. Answers beyond [`ANSWERS_QUEUED_MAX`] messages are dropped.
//!
//! *A crash* in the middle of an append leaves the command in the log or not, and the caller without an answer. A retry
//! under the same key finds the decision. A crash after an append loses nothing. Answers that were not sent are lost; a caller
//! that waits for one reads the ledger.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, CommandLog, CommandReader, InstanceId, LogError, LoggedCommand, Source, Tasks, Traffic};
use rdkafka::producer::FutureRecord;

use super::answer_reader::KafkaAnswers;
use super::command_reader::KafkaReader;
use super::connect::{self, hasty, header, idempotent, producer};
use super::failure::Failure;
use super::partition::partition_of;
use super::producer::{Idempotent, Record, refused};
use super::shared::{INSTANCE, Shared};
use super::topics::{self, Wanted, answers_of, dead_of};
use crate::wire;
use crate::wire::convoy::{Carrier, Convoys, LogMessage, Unsent};

/// How long an append may take: longer than a cluster needs to replace a broker.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// How long answers are retried: no caller waits for them longer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const APPENDS_QUEUED_MAX: usize = 20_000;
const ANSWERS_QUEUED_MAX: usize = 20_000;
/// The most answers of one message, far below what a broker takes at once.
const ANSWERS_PER_MESSAGE_MAX: usize = 100;

pub struct KafkaOptions {
    /// `host:port`, separated by commas; others of the same cluster are found.
    pub brokers: String,
    pub commands_topic: String,
    /// The group that the readers of all instances are members of.
    pub group: String,
    /// Of each topic that is created.
    pub partitions: u32,
    /// How many readers this instance has.
    pub readers: usize,
    /// How long commands and answers are kept in topics that are created.
    pub retention: Duration,
    pub traffic: Arc<Traffic>,
    pub tasks: Arc<dyn Tasks>,
}

/// See the module's opening.
pub struct KafkaLog {
    shared: Arc<Shared>,
    appending: Convoys<Arc<Failure>>,
    group: String,
    readers: usize,
}

impl KafkaLog {
    /// Connects, and creates the topics that are missing.
    pub async fn open(options: KafkaOptions) -> Result<Arc<Self>, Failure> {
        let KafkaOptions { brokers, commands_topic: commands, group, partitions, readers, retention, traffic, tasks } = options;
        let (answers, dead) = (answers_of(&commands), dead_of(&commands));
        let kept = Some(retention);
        let wanted = [(&commands, kept), (&answers, kept), (&dead, None)];
        let wanted = wanted.map(|(name, retention)| Wanted { name, partitions, retention });
        let [command_partitions, answer_partitions, _] = topics::ensure(&brokers, &wanted).await?[..] else {
            return Err(Failure::Leaderless { topic: commands });
        };
        let appending = Idempotent::new(idempotent(&brokers, APPENDS_QUEUED_MAX, APPEND_MAX), APPENDS_QUEUED_MAX)?;
        let answering = Some(producer(&hasty(&brokers, ANSWERS_QUEUED_MAX, ANSWER_MAX))?);
        let shared =
            Arc::new(Shared { brokers, commands, answers, dead, command_partitions, answer_partitions, appending, answering, traffic });
        let appending = Convoys::start(&shared, command_partitions, "kafka", &*tasks);
        Ok(Arc::new(Self { shared, appending, group, readers }))
    }

    /// Whether the brokers answer and every partition of the commands has a leader.
    pub async fn ping(&self) -> Result<(), Failure> {
        connect::ping(self.shared.appending.client()?, &self.shared.commands).await
    }
}

#[async_trait]
impl CommandLog for KafkaLog {
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError> {
        let text = wire::command(&command).map_err(|error| LogError::Unavailable(Failure::from(error).into()))?;
        let (id, key) = (command.request.command_id, command.request.command.lane_key());
        let shard = partition_of(key.to_string().as_bytes(), self.shared.command_partitions);
        self.appending.append(shard, id, key, text).await.map_err(|unsent| match unsent {
            Unsent::Full => LogError::Blocked,
            Unsent::Late(time) => LogError::Unavailable(Failure::Silent(time).into()),
            Unsent::Failed(failure) if matches!(*failure, Failure::Full(_)) => LogError::Blocked,
            Unsent::Failed(failure) => LogError::Unavailable(failure.into()),
        })
    }

    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source> {
        let reader = |_| Ok(Box::new(KafkaReader::join(self.shared.clone(), self.group.clone())?) as Box<dyn CommandReader>);
        (0..self.readers).map(reader).collect()
    }

    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source> {
        let shared = &self.shared;
        let Some(producer) = &shared.answering else { return Ok(()) };
        let headers = header(INSTANCE, &instance.to_string());
        for part in answers.chunks(ANSWERS_PER_MESSAGE_MAX) {
            let bytes = wire::answers(part)?;
            let record = FutureRecord::<[u8], _>::to(&shared.answers)
                .partition(shared.answer_partition(instance))
                .payload(&bytes)
                .headers(headers.clone());
            // The delivery is not awaited: one that fails is lost, which is harmless.
            producer.send_result(record).map_err(|(error, _)| refused(error, ANSWERS_QUEUED_MAX))?;
            shared.traffic.broker_messages(1);
        }
        Ok(())
    }

    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source> {
        Ok(Box::new(KafkaAnswers::open(self.shared.clone(), instance).await?))
    }
}

#[async_trait]
impl Carrier for Shared {
    type Failure = Arc<Failure>;

    async fn carry(&self, shard: usize, messages: Vec<LogMessage>) -> Vec<Result<(), Arc<Failure>>> {
        let partition = i32::try_from(shard).ok();
        let send = |message: LogMessage| {
            let key = message.key.to_string();
            let record = Record { topic: &self.commands, partition, key: Some(key.as_bytes()), bytes: &message.bytes, headers: None };
            let delivery = self.appending.send(record)?;
            self.traffic.broker_messages(1);
            Ok(delivery)
        };
        let sent: Vec<Result<_, Failure>> = messages.into_iter().map(send).collect();
        let mut outcomes = Vec::with_capacity(sent.len());
        for delivery in sent {
            let outcome = match delivery {
                Ok(mut delivery) => self.appending.delivered(&mut delivery).await,
                Err(failure) => Err(failure),
            };
            outcomes.push(outcome.map_err(Arc::new));
        }
        outcomes
    }
}
