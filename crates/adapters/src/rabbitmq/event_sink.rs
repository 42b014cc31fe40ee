//! Events, published to a topic exchange and kept in a stream.
//!
//! The routing key is the event's type, so a consumer of a part binds a queue of its own (`payment.*`). The stream is
//! bound to all types: events from before the first consumer can be read from its beginning. The oldest are deleted after
//! some days, so that the disk does not fill up without consumers.
//!
//! *Order.* Steps of events are published one after the other: the stream holds a step's events in their order, behind
//! those of the steps before it. A step has failed if any event was refused or returned, or its outcome is unknown. The relay
//! publishes all of it again; consumers recognise repetitions by their ids. Only when the stream was deleted, and declared
//! again in the middle of a step, do some of its events come before those that were returned.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{EventSink, OutboxRow, Source, Tasks, Traffic};
use lapin::types::ShortString;
use tokio::sync::Mutex;

use super::address::Address;
use super::confirm_channel::{ConfirmChannel, MESSAGES_MAX, Message};
use super::failure::Failure;
use super::link::Link;
use super::topology::Topology;
use crate::wire::{self, CLOUD_EVENT_TYPE};

/// The longest until a step is confirmed; then the connection is given up, and the step has failed.
const CONFIRM_MAX: Duration = Duration::from_secs(10);

/// See the module's opening.
pub struct RabbitSink {
    link: Link,
    exchange: ShortString,
    channel: Mutex<ConfirmChannel>,
    traffic: Arc<Traffic>,
}

impl RabbitSink {
    /// Reads the settings; connects in the background, so it must be called in a runtime. `name` is that of the
    /// exchange and of the stream.
    pub fn open(url: &str, name: &str, traffic: Arc<Traffic>, tasks: &dyn Tasks) -> Result<Self, Failure> {
        let (address, topology) = (Arc::new(Address::parse(url)?), Topology::events(name)?);
        let link = Link::start(address, topology, "events", tasks);
        Ok(Self { link, exchange: name.into(), channel: Mutex::default(), traffic })
    }

    /// Whether events are accepted.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.link.ping().await
    }

    async fn publish_step(&self, messages: Vec<Message>) -> Result<(), Failure> {
        // One step at a time, also of several callers. One that is dropped leaves its channel to the messages under way.
        let mut channel = self.channel.lock().await;
        self.traffic.broker_messages(messages.len() as u64);
        channel.publish(&self.link, messages, CONFIRM_MAX).await.into_iter().collect()
    }
}

#[async_trait]
impl EventSink for RabbitSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        for step in rows.chunks(MESSAGES_MAX) {
            let message = |row| {
                let event = wire::published(row).map_err(Failure::from)?;
                Ok(Message::persistent(self.exchange.clone(), event.kind.into(), &event.id, CLOUD_EVENT_TYPE, event.body))
            };
            self.publish_step(step.iter().map(message).collect::<Result<_, Failure>>()?).await?;
        }
        Ok(())
    }
}
