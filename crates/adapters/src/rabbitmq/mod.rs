//! RabbitMQ 3.10 or later: the command log of the strategy `rabbitmq`, and where events are published.
//!
//! *What it keeps.* A command that was appended survives the broker until it is decided or expires to the dead letters.
//! Each shard has one reader over all instances, so that its order is the order of the decisions. What was taken and not
//! acknowledged comes again, to whoever reads next: commands are decided at least once, and the ledger keeps that to one
//! effect. Nothing that must be true depends on the broker.
//!
//! # Layout
//!
//! * [`address`]: which broker. [`topology`]: queues, exchanges, shards. [`failure`]: what can go wrong.
//! * [`link`]: a connection that is kept up. [`flight`]: messages that are confirmed together. [`publisher`]: the callers
//!   of one instance share flights.
//! * [`log`]: the command log. [`reader`]: one shard's reader. [`answers`]: what an instance hears of its commands.
//! * [`sink`]: committed events, in a stream. [`mod@remove`]: taking a log away.
//!
//! # Connections
//!
//! An instance has two for the log: one publishes, the other one reads. A broker with an alarm stops reading from
//! connections that publish, acknowledgements included: over one of its own the readers go on emptying the queues, which
//! is what ends the alarm. The sink has a third.
//!
//! # Round trips and waiting
//!
//! | call | waits for |
//! | --- | --- |
//! | `append` | the rest of the append before it in its shard, then one round trip and the broker's flush; with an alarm, nothing |
//! | `take` | the first delivery; the rest is here already: the broker sends ahead, two batches |
//! | `acknowledge` | the write to the socket; one `basic.ack` for all that was taken |
//! | `dead_letter` | as `append` |
//! | `answer` | the write to the socket; no confirm, nothing durable |
//! | `publish` (sink) | one round trip and one flush for each thousand events |
//!
//! # What a crash leaves
//!
//! * *of an instance*: its answers queue is gone with its connection, answers for it go nowhere; what it had taken comes
//!   again to the next reader in line, which then reads the shard; an append under way is stored or not, as after any
//!   time-out.
//! * *of the broker*: what was confirmed is on disk. Appends under way are unknown to their callers, who try again under
//!   the same command id. Readers and answers queues are declared again as soon as it is back.
//! * *between a dead letter and the acknowledgement of its command*: the dead letter comes twice.
//!
//! # Classic or quorum queues
//!
//! [`QueueType`] says which. With several nodes in the address they are quorum queues unless the settings say otherwise:
//! a command must not be lost with one node. On one node nothing is named, and the virtual host's default type is taken,
//! which is classic unless its operator says otherwise (`rabbitmqctl add_vhost --default-queue-type quorum`). On one node
//! of 3.10, with two cores shared with the clients and others, four shards, publisher confirms:
//!
//! | 30,000 commands, a message each | classic | quorum |
//! | --- | --- | --- |
//! | 100 tasks, 1,000 wallets | 7,100/s | 6,700/s |
//! | 1,000 tasks, 1,000 wallets | 9,400/s | 9,200/s |
//! | 1,000 tasks, one wallet | 8,100/s | 7,400/s |
//! | taken and acknowledged | 12,500 to 14,900/s | 8,600 to 16,800/s |
//!
//! With speed no reason, safety is one, for a single node: that version of the broker writes down which quorum queues and streams it has
//! only from time to time. Killed soon after one was declared it has forgotten it, with all that was confirmed in it: the
//! queue has no leader and the stream is `down or inaccessible`, for good. Classic queues survive that. For the sink it
//! means that on a new installation the stream is safe only some minutes after it was declared; what cannot be published
//! to it stays in the outbox, and an operator has to delete it.

mod address;
mod answers;
mod failure;
mod flight;
mod link;
mod log;
mod publisher;
mod reader;
mod remove;
mod sink;
mod topology;

use std::time::Duration;

pub use failure::Failure;
pub use log::{RabbitLog, RabbitOptions};
pub use remove::{remove, server_version};
pub use sink::RabbitSink;
pub use topology::QueueType;

/// A pause between half of `pause` and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
