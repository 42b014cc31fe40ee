//! The messages of brokers: commands, answers and events as bytes.
//!
//! Commands and answers are JSON with a version. A process reads every version up to its own, so old messages survive an
//! update. A message that it cannot read is [`Unreadable`] and belongs with the dead letters. A field that is added has a
//! default and keeps the version; a change that old readers would misunderstand raises it. A message of the log holds one
//! command or a [`sequence`] of them, each with a version of its own.
//!
//! Events are CloudEvents 1.0 in structured JSON. Consumers recognise repetitions by `source` and `id`, which never change
//! for an event. Events about the same thing are in order under its `partitionkey`.

pub(crate) mod convoy;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
pub(crate) mod intake;
pub(crate) mod sequence;
pub(crate) mod taken;

use boxoffice_domain::{CommandId, Event, Reply, Request, Timestamp};
use boxoffice_ports::{Answer, InstanceId, LoggedCommand, OutboxRow};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use uuid::Uuid;

/// The version of commands and answers that is written.
const VERSION: u32 = 1;
/// The version of an event's `data`.
const EVENT_VERSION: u32 = 1;
/// The source of events; with their `id` it makes them unique.
const SOURCE: &str = "/boxoffice";

/// Bytes that are no message of ours, or one of a version that is not known yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("not a message of this log: {0}")]
    Json(#[from] serde_json::Error),
    #[error("version {0} is newer than this process reads ({VERSION})")]
    Version(u32),
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct CommandMessage<'a> {
    v: u32,
    request: Cow<'a, Request>,
    reply_to: Uuid,
    accepted_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct AnswersMessage<'a> {
    v: u32,
    answers: Vec<AnswerMessage<'a>>,
}

/// Either a reply, or the reason why there is none.
#[derive(Serialize, Deserialize)]
struct AnswerMessage<'a> {
    command: CommandId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<Cow<'a, Reply>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead: Option<Cow<'a, str>>,
}

fn checked<'a, T: Deserialize<'a>>(bytes: &'a [u8], version: impl FnOnce(&T) -> u32) -> Result<T, Unreadable> {
    match serde_json::from_slice::<T>(bytes) {
        Ok(message) => match version(&message) {
            ..=VERSION => Ok(message),
            newer => Err(Unreadable::Version(newer)),
        },
        // A newer version may have another shape: then its number is the reason.
        Err(error) => match serde_json::from_slice::<Versioned>(bytes) {
            Ok(Versioned { v }) if v > VERSION => Err(Unreadable::Version(v)),
            _ => Err(error.into()),
        },
    }
}

pub(crate) fn command(command: &LoggedCommand) -> Result<Vec<u8>, serde_json::Error> {
    let LoggedCommand { request, reply_to, accepted_at } = command;
    serde_json::to_vec(&CommandMessage { v: VERSION, request: Cow::Borrowed(request), reply_to: reply_to.0, accepted_at: *accepted_at })
}

pub(crate) fn parse_command(bytes: &[u8]) -> Result<LoggedCommand, Unreadable> {
    let CommandMessage { request, reply_to, accepted_at, .. } = checked(bytes, |message: &CommandMessage<'_>| message.v)?;
    Ok(LoggedCommand { request: request.into_owned(), reply_to: InstanceId(reply_to), accepted_at })
}

pub(crate) fn answers(answers: &[Answer]) -> Result<Vec<u8>, serde_json::Error> {
    let answers = answers.iter().map(|answer| AnswerMessage {
        command: answer.command,
        reply: answer.reply.as_ref().ok().map(Cow::Borrowed),
        dead: answer.reply.as_ref().err().map(|reason| Cow::Borrowed(reason.as_str())),
    });
    serde_json::to_vec(&AnswersMessage { v: VERSION, answers: answers.collect() })
}

pub(crate) fn parse_answers(bytes: &[u8]) -> Result<Vec<Answer>, Unreadable> {
    let AnswersMessage { answers, .. } = checked(bytes, |message: &AnswersMessage<'_>| message.v)?;
    let answer = |AnswerMessage { command, reply, dead }: AnswerMessage<'_>| {
        let reply = match (reply, dead) {
            (Some(reply), _) => Ok(reply.into_owned()),
            (None, Some(reason)) => Err(reason.into_owned()),
            (None, None) => return Err(serde::de::Error::custom("an answer without a reply or a reason")),
        };
        Ok(Answer { command, reply })
    };
    answers.into_iter().map(answer).collect::<Result<_, serde_json::Error>>().map_err(Unreadable::Json)
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: String,
    time: Timestamp,
    datacontenttype: &'static str,
    schemaversion: u32,
    partitionkey: &'a str,
    data: &'a Event,
}

/// An event, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) id: String,
    /// The event's type.
    pub(crate) kind: &'static str,
    /// Events with the same key stay in order: that of the seat, the reservation or the wallet.
    pub(crate) key: String,
    /// A CloudEvent in structured JSON.
    pub(crate) body: Vec<u8>,
}

pub(crate) const CLOUD_EVENT_TYPE: &str = "application/cloudevents+json";

pub(crate) fn published(row: &OutboxRow) -> Result<Published, serde_json::Error> {
    let (id, kind) = (format!("{}-{}", row.shard, row.id), row.event.kind());
    let (subject, key) = match &row.event {
        Event::Seat { date, seat, .. } => (format!("dates/{date}/seats/{seat}"), format!("{date}/{seat}")),
        Event::Reservation { reservation, .. } => (format!("reservations/{reservation}"), reservation.to_string()),
        Event::PaymentPaid { payment, user, .. } | Event::PaymentRefunded { payment, user, .. } => {
            (format!("payments/{payment}"), user.to_string())
        }
        Event::WalletCharged { user, .. } | Event::WalletUsed { user, .. } => (format!("wallets/{user}"), user.to_string()),
    };
    let body = serde_json::to_vec(&CloudEvent {
        specversion: "1.0",
        id: &id,
        source: SOURCE,
        kind,
        subject,
        time: row.occurred_at,
        datacontenttype: "application/json",
        schemaversion: EVENT_VERSION,
        partitionkey: &key,
        data: &row.event,
    })?;
    Ok(Published { id, kind, key, body })
}

#[cfg(test)]
mod tests;
