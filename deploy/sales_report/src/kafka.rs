//! Events from Kafka. The brokers keep the group's position: it is committed here, after the report, and never by the
//! client itself, which would commit what it has only fetched.

use anyhow::Result;
use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

use crate::taken::{BATCH_MAX, Taken};

/// The pause after an error: the client connects again by itself.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Events {
    consumer: StreamConsumer,
    topic: String,
    /// The next offset of each partition, to commit once the events before it are counted.
    next: BTreeMap<i32, i64>,
}

impl Events {
    pub(crate) fn open(brokers: &str, topic: &str, group: &str) -> Result<Self> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // A new group, or one whose position has expired, begins with the oldest event. Events that were counted
            // before are known by their ids.
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()?;
        consumer.subscribe(&[topic])?;
        Ok(Self { consumer, topic: topic.to_owned(), next: BTreeMap::new() })
    }

    pub(crate) async fn take(&mut self) -> Result<Taken> {
        let mut events = Vec::new();
        while events.is_empty() {
            match self.consumer.recv().await {
                Ok(first) => events.push(note(&mut self.next, &first)),
                Err(error @ KafkaError::MessageConsumption(_)) => {
                    eprintln!("Kafka: {error}");
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut rest = self.consumer.stream();
        while events.len() < BATCH_MAX
            && let Some(Some(Ok(message))) = rest.next().now_or_never()
        {
            events.push(note(&mut self.next, &message));
        }
        Ok(Taken { events, position: None })
    }

    /// A commit that is refused because the partition has moved is harmless: the events come again, and their ids are
    /// known.
    pub(crate) fn acknowledge(&mut self) -> Result<()> {
        let mut next = TopicPartitionList::new();
        for (partition, offset) in std::mem::take(&mut self.next) {
            next.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        if let Err(error) = self.consumer.commit(&next, CommitMode::Sync) {
            eprintln!("Kafka: events were not acknowledged and may come again: {error}");
        }
        Ok(())
    }
}

fn note(next: &mut BTreeMap<i32, i64>, message: &BorrowedMessage<'_>) -> Vec<u8> {
    next.insert(message.partition(), message.offset() + 1);
    message.payload().unwrap_or_default().to_vec()
}
