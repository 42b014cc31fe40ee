//! The queues and exchanges, and which shard a key belongs to.
//!
//! | name | what it is |
//! | --- | --- |
//! | `<name>.0` to `<name>.<shards - 1>` | commands: durable, one consumer at a time, the rest stand by |
//! | `<name>.dead` (exchange and queue) | commands that could not be read or decided, or were not taken in time; the header `reason` or `x-death` says why |
//! | `<name>.answers.<instance>` | answers for one instance: exclusive, gone with its connection |
//! | `<events>` (exchange and stream) | committed events, kept for [`STREAM_AGE`]; the routing key is the event's type |
//!
//! All of it is declared at every connection, and again if something turns out to be missing. A queue's arguments never
//! depend on the settings, so instances with different ones agree and a change needs no new queue. How long a command is
//! kept is written on each command.
//!
//! *The type* of the queues that keep commands is that of [`QueueType`]. A queue that exists with another type, and is the
//! same otherwise, is used as it is, with a warning: commands may stand in it. Its operator deletes it once it is empty,
//! and it is declared again with the right type.
//!
//! *Fewer shards* than before leave queues without a reader: the commands in them expire to the dead letters.

use boxoffice_domain::Key;
use boxoffice_ports::InstanceId;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::failure::Failure;

/// The longest name: with its suffixes it stays far below the 255 bytes of the protocol.
const NAME_MAX: usize = 100;
/// More shards than this would need more readers than any database can serve.
const SHARDS_MAX: u32 = 256;
/// The most dead letters: beyond it the oldest are dropped. Each was logged, for an operator to look at.
const DEAD_LETTERS_MAX: i64 = 1_000_000;
/// The most answers that wait for an instance: beyond it the oldest are dropped, and their callers read the ledger.
const ANSWERS_MAX: i64 = 10_000;
/// How long an event can be read again; the oldest are dropped a segment at a time.
const STREAM_AGE: &str = "7D";
/// How often a quorum queue delivers a command again: without a limit in practice. From version 4 on the broker would move
/// it to the dead letters after twenty times, which happens while a store is away.
const DELIVERIES_MAX: i64 = 1_000_000_000;

/// The type of the queues that keep commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// The default of the virtual host: classic, unless its operator sets another one.
    #[default]
    Default,
    /// On one node.
    Classic,
    /// On most nodes of a cluster.
    Quorum,
}

impl QueueType {
    /// This one first, then the types that an existing queue may have.
    fn tries(self) -> [Self; 3] {
        match self {
            Self::Default => [Self::Default, Self::Classic, Self::Quorum],
            Self::Classic => [Self::Classic, Self::Default, Self::Quorum],
            Self::Quorum => [Self::Quorum, Self::Default, Self::Classic],
        }
    }

    fn add_to(self, arguments: &mut FieldTable) {
        let name = match self {
            Self::Default => return,
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        };
        arguments.insert(TYPE.into(), text(name));
        if self == Self::Quorum {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERIES_MAX));
        }
    }
}

const TYPE: &str = "x-queue-type";

/// The names of one log.
#[derive(Clone, Debug)]
pub(super) struct Names {
    name: String,
    shards: u32,
    queue_type: QueueType,
}

impl Names {
    pub(super) fn new(name: &str, shards: u32, queue_type: QueueType) -> Result<Self, Failure> {
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(Failure::Settings(format!("a log has 1 to {SHARDS_MAX} shards")));
        }
        Ok(Self { name: checked(name)?, shards, queue_type })
    }

    pub(super) fn shards(&self) -> u32 {
        self.shards
    }

    pub(super) fn shard(&self, shard: u32) -> ShortString {
        format!("{}.{shard}", self.name).into()
    }

    /// The shard of a key's commands.
    pub(super) fn shard_of(&self, key: Key) -> u32 {
        shard_of(key, self.shards)
    }

    /// Exchange and queue.
    pub(super) fn dead(&self) -> ShortString {
        format!("{}.dead", self.name).into()
    }

    pub(super) fn answers(&self, instance: InstanceId) -> ShortString {
        format!("{}.answers.{instance}", self.name).into()
    }
}

fn checked(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Failure::Settings(format!("a queue's name has 1 to {NAME_MAX} bytes")));
    }
    Ok(name.to_owned())
}

/// FNV-1a of 64 bits over the key as text. It is the same in every process and version, since commands of different
/// versions may stand in one log.
fn shard_of(key: Key, shards: u32) -> u32 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = key.to_string().bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    // The remainder is below `shards`.
    (hash % u64::from(shards)) as u32
}

/// The queues and exchanges that a connection declares before it is used.
#[derive(Clone, Debug)]
pub(super) enum Topology {
    Commands(Names),
    /// Exchange and stream of this name.
    Events(ShortString),
}

impl Topology {
    pub(super) fn events(name: &str) -> Result<Self, Failure> {
        Ok(Self::Events(checked(name)?.into()))
    }

    pub(super) async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let mut declaring = Declaring::begin(connection).await?;
        match self {
            Self::Commands(names) => {
                declare_dead(&mut declaring, names).await?;
                for shard in 0..names.shards {
                    declaring.shard(names, shard).await?;
                }
            }
            Self::Events(name) => declare_events(&declaring.channel, name).await?,
        }
        declaring.end().await
    }
}

/// Declares one after the other. A channel on which the broker has refused a declaration is closed, and replaced.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl<'a> Declaring<'a> {
    async fn begin(connection: &'a Connection) -> lapin::Result<Self> {
        Ok(Self { connection, channel: connection.create_channel().await? })
    }

    async fn end(self) -> lapin::Result<()> {
        self.channel.close(REPLY_SUCCESS, "OK".into()).await
    }

    async fn shard(&mut self, names: &Names, shard: u32) -> lapin::Result<()> {
        let arguments = [("x-single-active-consumer", AMQPValue::Boolean(true)), ("x-dead-letter-exchange", text(names.dead().as_str()))];
        self.queue(&names.shard(shard), names.queue_type, table(arguments)).await
    }

    /// A durable queue. One that exists with the same arguments and another type is used as it is.
    async fn queue(&mut self, name: &ShortString, queue_type: QueueType, arguments: FieldTable) -> lapin::Result<()> {
        let mut refused = None;
        for tried in queue_type.tries() {
            let mut arguments = arguments.clone();
            tried.add_to(&mut arguments);
            match queue(&self.channel, name, QueueDeclareOptions::durable(), arguments).await {
                Ok(()) if refused.is_none() => return Ok(()),
                Ok(()) => {
                    tracing::warn!(queue = %name, wanted = ?queue_type, found = ?tried, "a queue of another type is used as it is");
                    return Ok(());
                }
                Err(error) if differs(&error) => {
                    refused.get_or_insert(error);
                    self.channel = self.connection.create_channel().await?;
                }
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

/// A queue of this name exists with other arguments.
fn differs(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
}

async fn declare_dead(declaring: &mut Declaring<'_>, names: &Names) -> lapin::Result<()> {
    let dead = names.dead();
    exchange(&declaring.channel, &dead, ExchangeKind::Fanout).await?;
    declaring.queue(&dead, names.queue_type, table([("x-max-length", AMQPValue::LongLongInt(DEAD_LETTERS_MAX))])).await?;
    bind(&declaring.channel, &dead, "").await
}

pub(super) async fn declare_shard(connection: &Connection, names: &Names, shard: u32) -> lapin::Result<()> {
    let mut declaring = Declaring::begin(connection).await?;
    declaring.shard(names, shard).await?;
    declaring.end().await
}

pub(super) async fn declare_answers(channel: &Channel, name: &ShortString) -> lapin::Result<()> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    queue(channel, name, options, table([("x-max-length", AMQPValue::LongLongInt(ANSWERS_MAX))])).await
}

async fn declare_events(channel: &Channel, name: &ShortString) -> lapin::Result<()> {
    exchange(channel, name, ExchangeKind::Topic).await?;
    let arguments = [(TYPE, text("stream")), ("x-max-age", text(STREAM_AGE))];
    queue(channel, name, QueueDeclareOptions::durable(), table(arguments)).await?;
    bind(channel, name, "#").await
}

async fn exchange(channel: &Channel, name: &ShortString, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.clone(), kind, options, FieldTable::default()).await
}

async fn queue(channel: &Channel, name: &ShortString, options: QueueDeclareOptions, arguments: FieldTable) -> lapin::Result<()> {
    channel.queue_declare(name.clone(), options, arguments).await.map(drop)
}

/// Binds the queue to the exchange of the same name.
async fn bind(channel: &Channel, name: &ShortString, key: &str) -> lapin::Result<()> {
    channel.queue_bind(name.clone(), name.clone(), key.into(), QueueBindOptions::default(), FieldTable::default()).await
}

pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(super) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::SeatKey;
    use uuid::Uuid;

    #[test]
    fn the_shard_of_a_key_never_changes() {
        let id = Uuid::from_u128(0x0190_a3c4_0000_7000_8000_0000_0000_002a);
        for (key, shards) in [
            (Key::Account(id.into()), [1, 5, 629]),
            (Key::Seat(SeatKey { date: id.into(), number: 12 }), [0, 6, 182]),
            (Key::Date(id.into()), [0, 2, 898]),
            (Key::Reservation(id.into()), [0, 2, 202]),
            (Key::Payment(id.into()), [0, 2, 66]),
        ] {
            assert_eq!([2, 8, 1_000].map(|of| shard_of(key, of)), shards, "{key}");
        }
    }

    #[test]
    fn keys_spread_over_all_shards() {
        let mut used = [0; 8];
        for number in 0..8_000 {
            used[shard_of(Key::Seat(SeatKey { date: Uuid::from_u128(7).into(), number }), 8) as usize] += 1;
        }
        assert!(used.iter().all(|keys| (700..1_300).contains(keys)), "{used:?}");
    }

    #[test]
    fn names_and_shards_have_bounds() {
        assert!(Names::new("boxoffice.commands", SHARDS_MAX, QueueType::Default).is_ok());
        for (name, shards) in [("", 1), (&*"n".repeat(NAME_MAX + 1), 1), ("n", 0), ("n", SHARDS_MAX + 1)] {
            assert!(matches!(Names::new(name, shards, QueueType::Default), Err(Failure::Settings(_))), "{name} {shards}");
        }
        assert!(Topology::events("").is_err());
    }
}
