//! Events, published to a topic exchange and kept in a stream.
//!
//! The routing key is the event's type, so whoever wants a part binds a queue of its own (`payment.*`). The stream is
//! bound to all: what is published before anybody listens can be read from its beginning, and the oldest go after some
//! days, so that nobody who does not listen fills the disk.
//!
//! *Order.* One step after the other, each a flight: the stream holds a step's events in their order, and those of a
//! step after those of the steps before it. A step of which anything was refused, came back, or remained unknown has
//! failed, and the relay publishes all of it again: whoever listens tells repetitions by their ids. Only when the
//! stream was deleted, and made again in the middle of a step, do some of its events come before those that came back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{EventSink, OutboxRow, Source, Tasks, Traffic};
use lapin::types::ShortString;
use tokio::sync::Mutex;

use super::address::Address;
use super::failure::Failure;
use super::flight::{FLIGHT_MAX, Message, Runway};
use super::link::Link;
use super::topology::Topology;
use crate::wire::{self, CLOUD_EVENT_TYPE};

/// The longest until a flight is confirmed; then the connection is given up, and the step has failed.
const CONFIRM_MAX: Duration = Duration::from_secs(10);

/// See the module's opening.
pub struct RabbitSink {
    link: Link,
    exchange: ShortString,
    runway: Mutex<Runway>,
    traffic: Arc<Traffic>,
}

impl RabbitSink {
    /// Reads the settings; connects in the background, so it must be called in a runtime. `name` is that of the
    /// exchange and of the stream.
    pub fn open(url: &str, name: &str, traffic: Arc<Traffic>, tasks: &dyn Tasks) -> Result<Self, Failure> {
        let (address, topology) = (Arc::new(Address::parse(url)?), Topology::events(name)?);
        let link = Link::start(address, topology, "events", tasks);
        Ok(Self { link, exchange: name.into(), runway: Mutex::default(), traffic })
    }

    /// Whether events are taken.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.link.ping().await
    }

    async fn fly(&self, messages: Vec<Message>) -> Result<(), Failure> {
        // One flight at a time, also of several steps: a dropped one leaves its channel to whatever was on its way.
        let mut runway = self.runway.lock().await;
        self.traffic.broker_messages(messages.len() as u64);
        runway.fly(&self.link, messages, CONFIRM_MAX).await.into_iter().collect()
    }
}

#[async_trait]
impl EventSink for RabbitSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        for step in rows.chunks(FLIGHT_MAX) {
            let message = |row| {
                let event = wire::published(row).map_err(Failure::from)?;
                Ok(Message::persistent(self.exchange.clone(), event.kind.into(), &event.id, CLOUD_EVENT_TYPE, event.body))
            };
            self.fly(step.iter().map(message).collect::<Result<_, Failure>>()?).await?;
        }
        Ok(())
    }
}
