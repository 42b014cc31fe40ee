//! Messages handed over together, and what became of each.
//!
//! All messages of a flight are written one behind the other, and then their confirms are awaited: one round trip and
//! one flush for all. They are mandatory: what no queue takes comes back, *and* is acknowledged. The library gives a
//! returned message to whichever of several acknowledgements it sees first; the broker acknowledges many at once, so
//! that may be another message's. So a channel carries one flight at a time: once all of it is acknowledged, all that
//! was returned has come with one acknowledgement or another, and says by its id which message it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::sleep;

use super::failure::Failure;
use super::link::{Link, Session};

/// The most messages of a flight. Beyond it the wait for the last confirm delays the first ones.
pub(super) const FLIGHT_MAX: usize = 1_000;
/// Survives the broker.
const PERSISTENT: u8 = 2;

pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    /// Two messages with one id share their fate.
    id: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl Message {
    /// One that survives the broker, in a durable queue.
    pub(super) fn persistent(exchange: ShortString, key: ShortString, id: &str, content_type: &str, body: Vec<u8>) -> Self {
        let id = ShortString::from(id);
        let properties = BasicProperties::default();
        let properties = properties.with_delivery_mode(PERSISTENT).with_content_type(content_type.into()).with_message_id(id.clone());
        Self { exchange, key, id, properties, body }
    }

    /// After so many milliseconds in its queue it goes to the dead letters.
    pub(super) fn expiring(mut self, milliseconds: u128) -> Self {
        self.properties = self.properties.with_expiration(milliseconds.to_string().into());
        self
    }

    pub(super) fn with_headers(mut self, headers: FieldTable) -> Self {
        self.properties = self.properties.with_headers(headers);
        self
    }
}

/// A channel on which messages are confirmed, kept from flight to flight.
#[derive(Default)]
pub(super) struct Runway(Option<(Arc<Session>, Channel)>);

impl Runway {
    async fn channel(&mut self, session: &Arc<Session>) -> Result<Channel, Failure> {
        match &self.0 {
            Some((of, channel)) if of.is(session) && channel.status().connected() => Ok(channel.clone()),
            _ => {
                self.0 = None;
                let channel = session.channel().await?;
                session.answers(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                self.0 = Some((session.clone(), channel.clone()));
                Ok(channel)
            }
        }
    }

    /// One outcome for each message. Dropped before it returns, it leaves unknown what became of them.
    pub(super) async fn fly(&mut self, link: &Link, messages: Vec<Message>, confirm_max: Duration) -> Vec<Result<(), Failure>> {
        let count = messages.len();
        let all = |failure: Failure| (0..count).map(|_| Err(failure.clone())).collect::<Vec<_>>();
        let session = match link.session().await {
            Ok(session) => session,
            Err(failure) => return all(failure),
        };
        let channel = match self.channel(&session).await {
            Ok(channel) => channel,
            Err(failure) => return all(failure),
        };
        // Put back when nothing of the flight is under way any more.
        self.0 = None;
        // In a task: a channel that is dropped is closed before what was not yet written, for which the broker would end
        // the connection. So it lives until the flight has landed or the connection has ended.
        let mut flight = tokio::spawn(fly(channel.clone(), messages));
        let outcomes = tokio::select! {
            outcomes = &mut flight => outcomes.unwrap_or_else(|_| all(Failure::Unconfirmed)),
            () = link.left(&session) => return all(Failure::Unconfirmed),
            () = sleep(confirm_max) => {
                session.give_up();
                return all(Failure::Silent(confirm_max));
            }
        };
        self.0 = Some((session.clone(), channel));
        // A missing queue returns the message, a missing exchange closes the channel.
        if outcomes.iter().any(|outcome| matches!(outcome, Err(Failure::Unroutable | Failure::Unreachable(_))))
            && let Err(failure) = link.declare(&session).await
        {
            tracing::warn!(error = %failure, "what is missing could not be declared again");
        }
        outcomes
    }
}

async fn fly(channel: Channel, messages: Vec<Message>) -> Vec<Result<(), Failure>> {
    let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
    // In the order of the messages: each is written when it is first polled.
    let confirms: FuturesOrdered<_> = messages.into_iter().map(|message| publish(&channel, message)).collect();
    let confirms: Vec<_> = confirms.collect().await;
    let mut returned = HashSet::new();
    let outcomes = confirms.into_iter().map(|confirm| match confirm {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Nack(None)) => Err(Failure::Refused),
        Ok(Confirmation::Ack(Some(message))) => {
            returned.insert(message.delivery.properties.message_id().clone());
            Ok(())
        }
        Ok(Confirmation::Nack(Some(message))) => {
            returned.insert(message.delivery.properties.message_id().clone());
            Err(Failure::Refused)
        }
        Ok(Confirmation::NotRequested) => Err(Failure::Unconfirmed),
        Err(error) => Err(Failure::Unreachable(error)),
    });
    let outcomes: Vec<_> = outcomes.collect();
    let unroutable = |id: ShortString| returned.contains(&Some(id)) || returned.contains(&None);
    ids.into_iter().zip(outcomes).map(|(id, outcome)| if unroutable(id) { Err(Failure::Unroutable) } else { outcome }).collect()
}

async fn publish(channel: &Channel, message: Message) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(message.exchange, message.key, options, &message.body, message.properties).await?.await
}
