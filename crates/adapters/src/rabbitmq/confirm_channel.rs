//! A channel on which messages are published together, with the outcome of each.
//!
//! All messages of a call are written one behind the other, and then their confirms are awaited: one round trip and one
//! flush for all. They are mandatory: a message that no queue takes is returned, *and* acknowledged. The library attaches a
//! returned message to the first of several acknowledgements that it sees. The broker acknowledges many at once, so that
//! may be another message's. So a channel carries the messages of one call at a time. Once all of them are acknowledged, every
//! returned message has come with one of the acknowledgements, and its id tells which message it was.

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
use super::link::{Link, OpenConnection};

/// The most messages of one call. Beyond it the wait for the last confirm delays the first ones.
pub(super) const MESSAGES_MAX: usize = 1_000;
/// Survives the broker.
const PERSISTENT: u8 = 2;

pub(super) struct Message {
    exchange: ShortString,
    key: ShortString,
    /// Two messages with one id have one outcome.
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

/// See the module's opening. The channel is kept from call to call.
#[derive(Default)]
pub(super) struct ConfirmChannel(Option<(Arc<OpenConnection>, Channel)>);

impl ConfirmChannel {
    async fn channel(&mut self, connection: &Arc<OpenConnection>) -> Result<Channel, Failure> {
        match &self.0 {
            Some((of, channel)) if of.is(connection) && channel.status().connected() => Ok(channel.clone()),
            _ => {
                self.0 = None;
                let channel = connection.channel().await?;
                connection.bounded(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                self.0 = Some((connection.clone(), channel.clone()));
                Ok(channel)
            }
        }
    }

    /// One outcome for each message. If the call is dropped before it returns, the outcomes are unknown.
    pub(super) async fn publish(&mut self, link: &Link, messages: Vec<Message>, confirm_max: Duration) -> Vec<Result<(), Failure>> {
        let count = messages.len();
        let all = |failure: Failure| (0..count).map(|_| Err(failure.clone())).collect::<Vec<_>>();
        let connection = match link.connection().await {
            Ok(connection) => connection,
            Err(failure) => return all(failure),
        };
        let channel = match self.channel(&connection).await {
            Ok(channel) => channel,
            Err(failure) => return all(failure),
        };
        // Put back when none of the messages is under way any more.
        self.0 = None;
        // In a task: a channel that is dropped is closed before the rest of its messages is written, and for that the
        // broker would end the connection. So it lives until all are confirmed or the connection has ended.
        let mut publishing = tokio::spawn(publish_all(channel.clone(), messages));
        let outcomes = tokio::select! {
            outcomes = &mut publishing => outcomes.unwrap_or_else(|_| all(Failure::Unconfirmed)),
            () = link.left(&connection) => return all(Failure::Unconfirmed),
            () = sleep(confirm_max) => {
                connection.give_up();
                return all(Failure::Silent(confirm_max));
            }
        };
        self.0 = Some((connection.clone(), channel));
        // A missing queue returns the message, a missing exchange closes the channel.
        if outcomes.iter().any(|outcome| matches!(outcome, Err(Failure::Unroutable | Failure::Unreachable(_))))
            && let Err(failure) = link.declare(&connection).await
        {
            tracing::warn!(error = %failure, "missing queues and exchanges could not be declared again");
        }
        outcomes
    }
}

async fn publish_all(channel: Channel, messages: Vec<Message>) -> Vec<Result<(), Failure>> {
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
