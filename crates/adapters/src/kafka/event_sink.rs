//! Events for other systems: one message each, a CloudEvent in JSON, under the key of what it is about.
//!
//! *Order.* A key's events stay in order over any failure. They are in one partition, and the producer is idempotent and
//! accepts nothing behind a message that failed. A call that fails abandons it with all that was under way. So in each
//! partition the events of a call that arrived are its first ones, and a retry of the call goes on from there.
//!
//! *What a call waits for.* Until all replicas in sync have all its messages, which are sent together: one round trip or a
//! few, [`PUBLISH_MAX`] at most. Calls for different shards share requests, and fail together.
//!
//! *A crash* leaves the first of the call's events; the relay, which has not deleted their rows, publishes them again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{EventSink, OutboxRow, Source, Traffic};
use tokio::time::timeout;

use super::connect::{self, header, idempotent};
use super::failure::Failure;
use super::producer::{Idempotent, Record};
use super::topics::{self, Wanted};
use crate::wire::{self, CLOUD_EVENT_TYPE};

/// Longer than a cluster needs to replace a broker.
const PUBLISH_MAX: Duration = Duration::from_secs(10);
/// More than all shards publish at once. Beyond it a call fails, and is retried.
const QUEUED_MAX: usize = 100_000;

const CONTENT_TYPE: &str = "content-type";

pub struct KafkaSinkOptions {
    /// `host:port`, separated by commas; others of the same cluster are found.
    pub brokers: String,
    pub events_topic: String,
    /// Of the topic, if it is created.
    pub partitions: u32,
    pub traffic: Arc<Traffic>,
}

/// See the module's opening.
pub struct KafkaSink {
    producer: Idempotent,
    topic: String,
    traffic: Arc<Traffic>,
}

impl KafkaSink {
    /// Connects, and creates the topic if it is missing.
    pub async fn open(options: KafkaSinkOptions) -> Result<Arc<Self>, Failure> {
        let KafkaSinkOptions { brokers, events_topic: topic, partitions, traffic } = options;
        topics::ensure(&brokers, &[Wanted { name: &topic, partitions, retention: None }]).await?;
        // A message is never given up by itself: those behind it would overtake it.
        let mut config = idempotent(&brokers, QUEUED_MAX, Duration::ZERO);
        config.set("enable.gapless.guarantee", "true");
        Ok(Arc::new(Self { producer: Idempotent::new(config, QUEUED_MAX)?, topic, traffic }))
    }

    /// Whether the brokers answer and every partition of the events has a leader.
    pub async fn ping(&self) -> Result<(), Failure> {
        connect::ping(self.producer.client()?, &self.topic).await
    }
}

#[async_trait]
impl EventSink for KafkaSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        let events = rows.iter().map(wire::published).collect::<Result<Vec<_>, _>>()?;
        let headers = header(CONTENT_TYPE, CLOUD_EVENT_TYPE);
        let records = events.iter().map(|event| Record {
            topic: &self.topic,
            partition: None,
            key: Some(event.key.as_bytes()),
            bytes: &event.body,
            headers: Some(headers.clone()),
        });
        let mut sent = self.producer.send_all(records)?;
        self.traffic.broker_messages(events.len() as u64);
        let all = async {
            for delivery in &mut sent {
                self.producer.delivered(delivery).await?;
            }
            Ok(())
        };
        let published = timeout(PUBLISH_MAX, all).await.unwrap_or(Err(Failure::Silent(PUBLISH_MAX)));
        if let (Err(_), Some(first)) = (&published, sent.first()) {
            self.producer.abandon_with(first);
        }
        Ok(published?)
    }
}
