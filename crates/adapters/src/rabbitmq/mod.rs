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
//! | `append` | its flight's turn, then one round trip and the flush of a majority of the queue's replicas; with an alarm, nothing |
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
//! # Quorum queues
//!
//! Measured with the package's 3.10 on two cores, beside its clients: APPENDS.

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

/// A pause between half of `pause` and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
