//! What all clients have in common: settings, bounds, failures, closing.
//!
//! A client of librdkafka connects by itself, for ever, and has threads of its own. Closing one waits for these and, for
//! a member of a group, for its leaving: that is done where waiting is allowed, never on a worker of the runtime.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rand::random_range;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, Producer};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// How long a question to the brokers may take when nothing else bounds it.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the brokers may take to say that they are there.
const PING_MAX: Duration = Duration::from_secs(2);
/// A broker that says nothing for so long is connected to anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The pauses between two attempts to connect: by default they grow to ten seconds.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// How long a runtime that ends waits for a client to be closed.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause after an error, before it is tried again.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// What a consumer fetches ahead, for each partition in messages and in all.
const AHEAD_MESSAGES: u32 = 10_000;
const AHEAD_KILOBYTES: u32 = 16 * 1024;
/// Once that much is there, fetching goes on after so long.
const AHEAD_PAUSE: Duration = Duration::from_millis(10);

/// Why Kafka was not, or is not, of use.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the settings are of no use to the client: {0}")]
    Settings(#[source] KafkaError),
    #[error("the brokers cannot be reached or refuse: {0}")]
    Unreachable(#[source] KafkaError),
    #[error("topic {topic} cannot be created or deleted: {reason}")]
    Topic { topic: String, reason: RDKafkaErrorCode },
    #[error("topic {topic} has {has} partitions and {wanted} are configured; it can be given more")]
    Partitions { topic: String, has: usize, wanted: u32 },
    #[error("topic {topic} has partitions without a leader")]
    Leaderless { topic: String },
    #[error("a command or an answer cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    #[error("{0} messages wait for the broker: no more are taken")]
    Full(usize),
    #[error("the brokers did not acknowledge within {0:?}")]
    Silent(Duration),
    #[error("no thread could be started: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the partitions of what was taken belong to somebody else by now")]
    Lost,
}

/// Passes on what librdkafka says. It repeats itself while a broker is away, so it is for whoever looks closely:
/// whoever calls learns of failures by their results.
#[derive(Clone, Copy)]
pub(super) struct Told;

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        told(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Told {}

pub(super) fn told(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, facility, message, "kafka client");
}

pub(super) type Producing = FutureProducer<Told>;

pub(super) fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "boxoffice")
        .set("reconnect.backoff.ms", RECONNECT_MIN.as_millis().to_string())
        .set("reconnect.backoff.max.ms", RECONNECT_MAX.as_millis().to_string())
        .set("socket.timeout.ms", SILENCE_MAX.as_millis().to_string())
        .set("socket.keepalive.enable", "true");
    config
}

/// A producer that neither loses nor doubles nor reorders what it takes, and gives a message up after `patience`
/// (never, if that is zero).
pub(super) fn idempotent(brokers: &str, queued_max: usize, patience: Duration) -> ClientConfig {
    let mut config = client(brokers);
    config.set("enable.idempotence", "true").set("acks", "all");
    batched(&mut config, queued_max, patience);
    config
}

/// A producer that one broker's word is enough for.
pub(super) fn hasty(brokers: &str, queued_max: usize, patience: Duration) -> ClientConfig {
    let mut config = client(brokers);
    config.set("acks", "1");
    batched(&mut config, queued_max, patience);
    config
}

fn batched(config: &mut ClientConfig, queued_max: usize, patience: Duration) {
    config
        // What comes while a request is on its way shares the next one. Waiting for more gained nothing under load, and
        // cost a lone message just that.
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", queued_max.to_string())
        .set("message.timeout.ms", patience.as_millis().to_string())
        // A key's partition is where every other client puts it, too.
        .set("partitioner", "murmur2_random");
}

pub(super) fn producer(config: &ClientConfig) -> Result<Producing, Failure> {
    config.create_with_context(Told).map_err(Failure::Settings)
}

/// A consumer that commits nothing by itself.
pub(super) fn consumer(brokers: &str, group: &str) -> ClientConfig {
    let mut config = client(brokers);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("queued.min.messages", AHEAD_MESSAGES.to_string())
        .set("queued.max.messages.kbytes", AHEAD_KILOBYTES.to_string())
        .set("fetch.queue.backoff.ms", AHEAD_PAUSE.as_millis().to_string());
    config
}

/// Whether the brokers answer, and every partition of the topic has a leader.
pub(super) async fn ping(producer: Producing, topic: &str) -> Result<(), Failure> {
    let topic = topic.to_owned();
    let asked = waiting(move || {
        let metadata = producer.client().fetch_metadata(Some(&topic), PING_MAX).map_err(Failure::Unreachable)?;
        let partitions = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
        let mut leaders = partitions.map(|partition| partition.leader() >= 0).peekable();
        if leaders.peek().is_some() && leaders.all(|has| has) { Ok(()) } else { Err(Failure::Leaderless { topic }) }
    });
    asked.await?
}

/// Runs what blocks where it may.
pub(super) async fn waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Unreachable(KafkaError::Canceled))
}

/// Closes a client, which blocks, off the runtime's workers. A runtime that ends waits for it, but not for ever: one
/// whose group is lost may never come to its end.
pub(super) fn close<T: Send + 'static>(client: T) {
    close_after(|| {}, client);
}

/// The same, after something else that blocks.
pub(super) fn close_after<T: Send + 'static>(before: impl FnOnce() + Send + 'static, client: T) {
    let (ended, end) = mpsc::channel::<()>();
    let closing = move || {
        before();
        drop(client);
        drop(ended);
    };
    let closed = thread::Builder::new().name("kafka-close".to_owned()).spawn(closing);
    if let (Ok(_), Ok(runtime)) = (closed, Handle::try_current()) {
        runtime.spawn_blocking(move || end.recv_timeout(CLOSE_MAX));
    }
}

/// Whether a consumer has come to an end. Anything else it gets over by itself: it connects again, for ever.
pub(super) fn is_over<C: ConsumerContext + 'static>(consumer: &StreamConsumer<C>) -> bool {
    consumer.client().fatal_error().is_some()
}

/// So that those who failed together do not come back together.
pub(super) async fn pause() {
    sleep(PAUSE_MAX.mul_f64(random_range(0.5..=1.0))).await;
}

pub(super) fn header(key: &str, value: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key, value: Some(value) })
}

/// Whether the message has this header with this value.
pub(super) fn has_header<H: Headers>(headers: Option<&H>, key: &str, value: &[u8]) -> bool {
    headers.is_some_and(|headers| headers.iter().any(|header| header.key == key && header.value == Some(value)))
}
