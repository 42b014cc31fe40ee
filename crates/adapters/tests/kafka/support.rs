//! Logs for one test each, and the messages that a topic really holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::kafka::{Failure, KafkaLog, KafkaOptions};
use boxoffice_domain::{CommandId, UserId};
use boxoffice_ports::contract::build::{charge, fresh};
use boxoffice_ports::contract::tasks::TestTasks;
use boxoffice_ports::{CommandLog, CommandReader, InstanceId, LogError, LoggedCommand, Traffic};
use chrono::DateTime;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Longer than anything here needs.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// The pause between two checks of a condition.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How long a request to a broker may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A log, and the settings of its instances.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) partitions: u32,
    pub(crate) readers: usize,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) tasks: Arc<TestTasks>,
}

impl Site {
    pub(crate) fn new(brokers: String, partitions: u32, readers: usize) -> Self {
        let name: Uuid = fresh();
        Self {
            brokers,
            topic: format!("commands-{name}"),
            group: format!("group-{name}"),
            partitions,
            readers,
            traffic: Arc::default(),
            tasks: Arc::default(),
        }
    }

    pub(crate) async fn open(&self) -> Result<Arc<KafkaLog>, Failure> {
        let options = KafkaOptions {
            brokers: self.brokers.clone(),
            commands_topic: self.topic.clone(),
            group: self.group.clone(),
            partitions: self.partitions,
            readers: self.readers,
            retention: Duration::from_secs(3_600),
            traffic: self.traffic.clone(),
            tasks: self.tasks.clone(),
        };
        timeout(LONG, KafkaLog::open(options)).await.expect("opened in time")
    }

    pub(crate) async fn log(&self) -> Arc<KafkaLog> {
        self.open().await.expect("a log")
    }

    /// The offsets that the group has committed.
    pub(crate) async fn committed(&self) -> BTreeMap<i32, i64> {
        let (config, topic) = (client(&self.brokers, &self.group), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().expect("a consumer");
            let mut partitions = TopicPartitionList::new();
            for partition in partitions_of(&consumer, &topic) {
                partitions.add_partition(&topic, partition);
            }
            let committed = consumer.committed_offsets(partitions, ANSWER).expect("offsets");
            let of = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            };
            committed.elements().iter().filter_map(of).collect()
        });
        asked.await.expect("no panic")
    }
}

fn client(brokers: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
    config.set("reconnect.backoff.max.ms", "500");
    config
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).expect("metadata");
    metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect()
}

/// A message as it is stored in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredMessage {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// All messages of a topic, each partition in order, once there are `count`.
pub(crate) async fn stored(brokers: &str, topic: &str, count: usize) -> Vec<StoredMessage> {
    let (config, topic) = (client(brokers, "onlooker"), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in partitions_of(&consumer, &topic) {
            all.add_partition_offset(&topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&all).expect("assigned");
        let deadline = Instant::now() + LONG;
        let mut messages = Vec::new();
        loop {
            let end = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                consumer.fetch_watermarks(&topic, element.partition(), ANSWER).expect("watermarks").1
            };
            let there = all.elements().iter().map(end).sum::<i64>() as usize;
            while messages.len() < there {
                assert!(Instant::now() < deadline, "timed out: only {} of {there} were read", messages.len());
                if let Some(Ok(message)) = consumer.poll(POLL) {
                    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                        (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
                    };
                    messages.push(StoredMessage {
                        partition: message.partition(),
                        key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                        bytes: message.payload().unwrap_or_default().to_vec(),
                        headers: message.headers().into_iter().flat_map(|headers| headers.iter().map(header).collect::<Vec<_>>()).collect(),
                    });
                }
            }
            if there >= count {
                return messages;
            }
            assert!(Instant::now() < deadline, "timed out: only {there} of {count} are there");
        }
    });
    read.await.expect("no panic")
}

/// Puts bytes into a topic, as another program would.
pub(crate) async fn put(brokers: &str, topic: &str, key: &str, bytes: &[u8]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("partitioner", "murmur2_random");
    let producer: FutureProducer = config.create().expect("a producer");
    producer.send(FutureRecord::to(topic).key(key).payload(bytes), ANSWER).await.expect("delivered");
    // Closing it blocks.
    tokio::task::spawn_blocking(move || drop(producer)).await.expect("no panic");
}

pub(crate) fn command(of: UserId, at: i64) -> LoggedCommand {
    LoggedCommand { request: charge(of, &at.to_string(), 1 + at), reply_to: InstanceId(fresh()), accepted_at: DateTime::UNIX_EPOCH }
}

pub(crate) fn id(of: &LoggedCommand) -> CommandId {
    of.request.command_id
}

/// Appends it until it is acknowledged. How often it was not.
pub(crate) async fn append_until_acknowledged(log: &Arc<KafkaLog>, command: &LoggedCommand) -> usize {
    let tried = async {
        let mut failures = 0;
        while let Err(error) = log.append(command.clone()).await {
            assert!(matches!(error, LogError::Unavailable(_)), "{error}");
            failures += 1;
            sleep(POLL).await;
        }
        failures
    };
    timeout(LONG, tried).await.expect("acknowledged in time")
}

/// The readers of an instance, as many as it has.
pub(crate) async fn readers(log: &Arc<KafkaLog>) -> Vec<Box<dyn CommandReader>> {
    log.readers().await.expect("readers")
}

pub(crate) async fn reader(log: &Arc<KafkaLog>) -> Box<dyn CommandReader> {
    let mut readers = readers(log).await;
    assert_eq!(readers.len(), 1);
    readers.remove(0)
}

/// Waits until `yes` returns `true`.
pub(crate) async fn until(what: &str, mut yes: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !yes().await {
            sleep(POLL).await;
        }
    };
    assert!(timeout(LONG, waited).await.is_ok(), "timed out waiting: {what}");
}
