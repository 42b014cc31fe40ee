//! RabbitMQ 3.10 or later: the command log of the strategy `rabbitmq`, and a stream of events.
//!
//! *What it keeps.* A command that was appended survives the broker until it is decided or expires to the dead letters.
//! Each shard has one reader over all instances, so that its order is the order of the decisions. A command that was taken
//! and not acknowledged comes again, to the next reader. So commands are decided at least once, and the ledger keeps that to
//! one effect. Correctness does not depend on the broker.
//!
//! # Layout
//!
//! * [`command_log`]: appending commands. [`shared`]: what the log and its readers share.
//! * [`command_reader`]: one shard's reader. [`answer_reader`]: the answers for one instance, and sending them.
//! * [`event_sink`]: committed events, in a stream.
//! * [`address`]: the broker's nodes. [`link`]: a connection that is kept up. [`topology`]: queues, exchanges, shards.
//! * [`confirm_channel`]: messages that are published and confirmed together. [`publisher`]: the callers of one instance
//!   share these.
//! * [`failure`]: what can go wrong. [`mod@remove`]: deleting a log.
//!
//! # Connections
//!
//! An instance has two for the log: one publishes, the other one reads. A broker with an alarm stops reading from
//! connections that publish, acknowledgements included. Over a connection of their own the readers go on emptying the
//! queues, which is what ends the alarm. The sink has a third.
//!
//! # Round trips and waiting
//!
//! | call | waits for |
//! | --- | --- |
//! | `append` | the rest of the append before it in its shard, then one round trip and the broker's flush; with an alarm, nothing |
//! | `take` | the first delivery; the rest is here already: the broker sends ahead, two batches |
//! | `acknowledge` | the write to the socket; one `basic.ack` for all commands that were taken |
//! | `dead_letter` | as `append` |
//! | `answer` | the write to the socket; no confirm, nothing durable |
//! | `publish` (sink) | one round trip and one flush for each thousand events |
//!
//! # What a crash leaves
//!
//! * *of an instance*: its answers queue is gone with its connection, and answers for it are dropped. Commands that it had
//!   taken come again to the next reader in line, which then reads the shard. An append under way is stored or not, as after
//!   any time-out.
//! * *of the broker*: confirmed messages are on disk. Callers do not know the outcome of appends under way, and retry under
//!   the same command id. Readers and answers queues are declared again as soon as it is back.
//! * *between a dead letter and the acknowledgement of its command*: the dead letter comes twice.
//!
//! # Classic or quorum queues
//!
//! [`QueueType`] says which. With several nodes in the address they are quorum queues unless the settings say otherwise:
//! a command must not be lost with one node. On one node no type is named, and the virtual host's default is used, which
//! is classic unless its operator sets another (`rabbitmqctl add_vhost --default-queue-type quorum`). On one node of 3.10,
//! with two cores shared with the clients and other processes, four shards, publisher confirms:
//!
//! | 30,000 commands, a message each | classic | quorum |
//! | --- | --- | --- |
//! | 100 tasks, 1,000 wallets | 7,100/s | 6,700/s |
//! | 1,000 tasks, 1,000 wallets | 9,400/s | 9,200/s |
//! | 1,000 tasks, one wallet | 8,100/s | 7,400/s |
//! | taken and acknowledged | 12,500 to 14,900/s | 8,600 to 16,800/s |
//!
//! Speed does not decide between them; on a single node, safety does. That version of the broker records which quorum queues
//! and streams it has only from time to time. If it is killed soon after one was declared, it has lost it, with all
//! confirmed messages in it. The queue has no leader and the stream is `down or inaccessible`, permanently. Classic queues
//! survive that. For the sink it means that on a new installation the stream is safe only some minutes after it was
//! declared. Events that cannot be published to it stay in the outbox, and an operator has to delete the stream.

mod address;
mod answer_reader;
mod command_log;
mod command_reader;
mod confirm_channel;
mod event_sink;
mod failure;
mod link;
mod publisher;
mod remove;
mod shared;
mod topology;

pub use command_log::{RabbitLog, RabbitOptions};
pub use event_sink::RabbitSink;
pub use failure::Failure;
pub use remove::{remove, server_version};
pub use topology::QueueType;
