//! What all clients have in common: settings, bounds, closing.
//!
//! A client of librdkafka connects and reconnects by itself, without end, and has threads of its own. Closing one waits for
//! these and, for a member of a group, until it has left. So it is done on a thread that may block, never on a worker of
//! the runtime.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, Producer};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::failure::Failure;
use crate::pause::jittered;

/// How long a request to the brokers may take when nothing else bounds it.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long the brokers may take to answer a ping.
const PING_MAX: Duration = Duration::from_secs(2);
/// A connection on which a broker is silent for so long is replaced.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The pauses between two attempts to connect: by default they grow to ten seconds.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// How long a runtime that shuts down waits for a client to be closed.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause between an error and the next attempt.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How much a consumer fetches ahead: messages for each partition, and kilobytes in all.
const AHEAD_MESSAGES: u32 = 10_000;
const AHEAD_KILOBYTES: u32 = 16 * 1024;
/// The pause before it fetches on once that much is here.
const AHEAD_PAUSE: Duration = Duration::from_millis(10);

/// Logs librdkafka's messages. It repeats them while a broker is away, so they are for debugging: callers learn of failures by
/// their results.
#[derive(Clone, Copy)]
pub(super) struct ClientLog;

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "Kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka client");
    }
}

impl ConsumerContext for ClientLog {}

pub(super) type Producing = FutureProducer<ClientLog>;

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

/// A producer that neither loses nor duplicates nor reorders messages, and gives one up after `patience` (never, if that
/// is zero).
pub(super) fn idempotent(brokers: &str, queued_max: usize, patience: Duration) -> ClientConfig {
    let mut config = client(brokers);
    config.set("enable.idempotence", "true").set("acks", "all");
    batched(&mut config, queued_max, patience);
    config
}

/// A producer for which the acknowledgement of one broker is enough.
pub(super) fn hasty(brokers: &str, queued_max: usize, patience: Duration) -> ClientConfig {
    let mut config = client(brokers);
    config.set("acks", "1");
    batched(&mut config, queued_max, patience);
    config
}

fn batched(config: &mut ClientConfig, queued_max: usize, patience: Duration) {
    config
        // Messages that come during a request share the next one. Waiting for more gained nothing under load, and delayed a
        // lone message by just that.
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", queued_max.to_string())
        .set("message.timeout.ms", patience.as_millis().to_string())
        // A key's partition is the one that every other client chooses.
        .set("partitioner", "murmur2_random");
}

pub(super) fn producer(config: &ClientConfig) -> Result<Producing, Failure> {
    config.create_with_context(ClientLog).map_err(Failure::Settings)
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
    let asked = blocking(move || {
        let metadata = producer.client().fetch_metadata(Some(&topic), PING_MAX).map_err(Failure::Unreachable)?;
        let partitions = metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
        let mut leaders = partitions.map(|partition| partition.leader() >= 0).peekable();
        if leaders.peek().is_some() && leaders.all(|has| has) { Ok(()) } else { Err(Failure::Leaderless { topic }) }
    });
    asked.await?
}

/// Runs blocking work off the runtime's workers.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Unreachable(KafkaError::Canceled))
}

/// Closes a client, which blocks, off the runtime's workers. A runtime that shuts down waits for it, but not for ever:
/// closing one whose group is lost may never end.
pub(super) fn close<T: Send + 'static>(client: T) {
    close_after(|| {}, client);
}

/// The same, after other work that blocks.
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

/// Whether a consumer has ended. From any other error it recovers by itself.
pub(super) fn is_over<C: ConsumerContext + 'static>(consumer: &StreamConsumer<C>) -> bool {
    consumer.client().fatal_error().is_some()
}

/// Between an error and the next attempt.
pub(super) async fn pause() {
    sleep(jittered(PAUSE_MAX)).await;
}

pub(super) fn header(key: &str, value: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key, value: Some(value) })
}

/// Whether the message has this header with this value.
pub(super) fn has_header<H: Headers>(headers: Option<&H>, key: &str, value: &[u8]) -> bool {
    headers.is_some_and(|headers| headers.iter().any(|header| header.key == key && header.value == Some(value)))
}
