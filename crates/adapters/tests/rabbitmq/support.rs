//! Logs on a node, and another client of the same broker.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::rabbitmq::{RabbitLog, RabbitOptions};
use boxoffice_domain::{Key, UserId};
use boxoffice_ports::contract::build::{charge, fresh};
use boxoffice_ports::{CommandLog, CommandReader, InstanceId, LoggedCommand};
use boxoffice_services::RabbitMq;
use chrono::DateTime;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};

/// Longer than anything here needs.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(10);
pub(crate) const SHARDS: u32 = 4;
pub(crate) const BATCH: u16 = 100;
/// A day: no command expires.
const RETENTION: Duration = Duration::from_secs(86_400);

/// The node of this process, which no test disturbs.
pub(crate) async fn shared() -> &'static RabbitMq {
    tokio::task::spawn_blocking(RabbitMq::shared).await.expect("RabbitMQ starts")
}

/// A node for one test.
pub(crate) async fn own() -> RabbitMq {
    tokio::task::spawn_blocking(RabbitMq::start).await.expect("no panic").expect("RabbitMQ starts")
}

/// A name that no other test has.
pub(crate) fn new_name() -> String {
    format!("test.{}", fresh::<UserId>())
}

pub(crate) fn options(url: &str, name: &str) -> RabbitOptions {
    RabbitOptions {
        url: url.to_owned(),
        name: name.to_owned(),
        shards: SHARDS,
        queue_type: None,
        retention: RETENTION,
        batch: BATCH,
        traffic: Arc::default(),
        tasks: boxoffice_ports::contract::supervisor(),
    }
}

pub(crate) fn open(url: &str, name: &str) -> Arc<RabbitLog> {
    Arc::new(RabbitLog::open(options(url, name)).expect("settings"))
}

/// The `at`th command of a user: its amount is `at`.
pub(crate) fn command(of: UserId, at: i64) -> LoggedCommand {
    LoggedCommand { request: charge(of, &at.to_string(), at), reply_to: InstanceId(fresh()), accepted_at: DateTime::UNIX_EPOCH }
}

pub(crate) fn at(of: &LoggedCommand) -> i64 {
    match &of.request.command {
        boxoffice_domain::Command::ChargeWallet { amount, .. } => *amount,
        other => panic!("{other:?} was never appended"),
    }
}

/// The reader of a command's shard.
pub(crate) async fn reader_of(log: &Arc<RabbitLog>, key: Key) -> Box<dyn CommandReader> {
    log.readers().await.expect("readers").swap_remove(shard_of(key) as usize)
}

pub(crate) async fn take(reader: &mut Box<dyn CommandReader>, count: usize) -> Vec<LoggedCommand> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let Ok(batch) = timeout(LONG, reader.take(count - taken.len())).await else {
            panic!("only {} of {count} were taken", taken.len());
        };
        taken.extend(batch);
    }
    taken
}

/// Asks until `done` returns something.
pub(crate) async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = done().await {
                return found;
            }
            sleep(POLL).await;
        }
    };
    let Ok(found) = timeout(LONG, asked).await else { panic!("timed out waiting: {what}") };
    found
}

/// FNV-1a, as the layout of the log specifies: another program finds a key's queue in this way.
pub(crate) fn shard_of(key: Key) -> u32 {
    let mut hash = 14_695_981_039_346_656_037_u64;
    for byte in key.to_string().into_bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    (hash % u64::from(SHARDS)) as u32
}

pub(crate) fn queue_of(name: &str, key: Key) -> String {
    format!("{name}.{}", shard_of(key))
}

/// Another program at the same broker.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    connection: Connection,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
        Self { channel: connection.create_channel().await.expect("a channel"), connection }
    }

    pub(crate) async fn open(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    pub(crate) async fn put(&self, queue: &str, bytes: &[u8]) {
        let options = BasicPublishOptions::default();
        self.channel.basic_publish("".into(), queue.into(), options, bytes, BasicProperties::default()).await.expect("published");
    }

    /// The number of messages that are not delivered to a consumer; `None` without such a queue.
    pub(crate) async fn waiting(&mut self, queue: &str) -> Option<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        match self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            Ok(queue) => Some(queue.message_count()),
            Err(_) => {
                self.channel = self.open().await;
                None
            }
        }
    }

    pub(crate) async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    /// The bytes and properties of the messages in a queue, which stay there. Waits for `count`.
    pub(crate) async fn look(&mut self, queue: &str, count: usize) -> Vec<(Vec<u8>, BasicProperties)> {
        let enough = async {
            while self.waiting(queue).await.is_none_or(|waiting| (waiting as usize) < count) {
                sleep(POLL).await;
            }
        };
        assert!(timeout(LONG, enough).await.is_ok(), "there are no {count} messages in {queue}");
        let channel = self.open().await;
        let mut found = Vec::new();
        while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("answered") {
            found.push((message.delivery.data, message.delivery.properties));
        }
        channel.close(200, "OK".into()).await.expect("closed");
        found
    }
}

/// The value of a header of a message.
pub(crate) fn header(of: &BasicProperties, name: &str) -> Option<String> {
    of.headers().as_ref()?.inner().get(name)?.as_long_string().map(ToString::to_string)
}

/// Appends until it is accepted.
pub(crate) async fn append_at_last(log: &Arc<RabbitLog>, command: &LoggedCommand) {
    until("an append", async || log.append(command.clone()).await.ok()).await;
}
