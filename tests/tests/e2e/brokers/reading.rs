//! The contents of a broker, as another program reads them.

use boxoffice_tests::PATIENCE;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a broker may take to answer a request.
const ANSWER: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// How many events RabbitMQ may send before they are acknowledged.
const AHEAD: u16 = 500;

/// A reader of a topic, and the end of each partition.
struct Topic {
    consumer: BaseConsumer,
    name: String,
    ends: Vec<(i32, i64)>,
}

impl Topic {
    fn open(brokers: &str, name: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "reader").set("enable.auto.commit", "false");
        config.set("reconnect.backoff.max.ms", "500");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(name), ANSWER).expect("metadata");
        let partitions: Vec<_> = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
        let end = |partition| (partition, consumer.fetch_watermarks(name, partition, ANSWER).expect("watermarks").1);
        let ends = partitions.into_iter().map(end).collect();
        Self { consumer, name: name.to_owned(), ends }
    }

    fn count(&self) -> u64 {
        self.ends.iter().map(|(_, end)| end.unsigned_abs()).sum()
    }

    fn read(&self) -> Vec<Value> {
        let mut all = TopicPartitionList::new();
        for (partition, _) in &self.ends {
            all.add_partition_offset(&self.name, *partition, Offset::Beginning).expect("an offset");
        }
        self.consumer.assign(&all).expect("assigned");
        let (wanted, deadline) = (self.count() as usize, Instant::now() + 3 * PATIENCE);
        let mut events = Vec::with_capacity(wanted);
        while events.len() < wanted {
            assert!(Instant::now() < deadline, "only {} of {wanted} were read", events.len());
            if let Some(Ok(message)) = self.consumer.poll(POLL) {
                events.push(serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON"));
            }
        }
        events
    }
}

/// How many messages were ever written to a topic.
pub(super) async fn kafka_count(brokers: &str, topic: &str) -> u64 {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    spawn_blocking(move || Topic::open(&brokers, &topic).count()).await.expect("no panic")
}

/// The messages of a topic, each partition in its order.
pub(super) async fn kafka_events(brokers: &str, topic: &str) -> Vec<Value> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    spawn_blocking(move || Topic::open(&brokers, &topic).read()).await.expect("no panic")
}

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// How many messages wait in a queue.
pub(super) async fn rabbitmq_count(url: &str, queue: &str) -> u64 {
    let (_connection, channel) = channel(url).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.expect("it is there").message_count().into()
}

/// The messages of a stream from its beginning to the first that `is_last`.
pub(super) async fn rabbitmq_events(url: &str, stream: &str, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let (_connection, channel) = channel(url).await;
    channel.basic_qos(AHEAD, BasicQosOptions::default()).await.expect("a prefetch");
    let mut from = FieldTable::default();
    from.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let consumer = channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), from);
    let (mut consumer, mut events) = (consumer.await.expect("a consumer"), Vec::new());
    loop {
        let Ok(next) = timeout(PATIENCE, consumer.next()).await else {
            panic!("timed out waiting for the last event, after {}", events.len())
        };
        let delivery = next.expect("an open subscription").expect("a delivery");
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.expect("acknowledged");
        let event = serde_json::from_slice(&delivery.data).expect("JSON");
        let last = is_last(&event);
        events.push(event);
        if last {
            return events;
        }
    }
}
