//! Redis: locks in front of the ledger, the waiting room, and what instances tell each other.
//!
//! Nothing that must be true depends on it: the ledger guards every write again, and a queue that is lost is rebuilt.
//! Redis 6.2 or later; one node, Sentinel or Cluster, by `redis.urls`.
//!
//! # Layout
//!
//! * [`address`]: which of these the settings name. [`connect`]: the shared connection, its bounds and failures.
//! * [`simple`], [`spin`], [`pubsub`]: the locks on one Redis. [`lock`], [`keys`]: the scripts and names they share.
//! * [`redlock`], [`quorum`]: the lock on several, and which of them vote.
//! * [`lease`]: held, renewed, lost, given back. [`queue`]: the line inside this process. [`releases`]: who hears of a
//!   release.
//! * [`room_log`]: what the waiting rooms were told.
//!   [`fanout`]: which seats changed, told at once.

mod address;
mod connect;
mod fanout;
mod keys;
mod lease;
mod lock;
mod pubsub;
mod queue;
mod quorum;
mod redlock;
mod releases;
mod room_log;
mod simple;
mod spin;

use std::time::Duration;

pub use connect::{Failure, Redis};
pub use fanout::RedisFanout;
pub use pubsub::PubSubLock;
pub use redlock::Redlock;
pub use room_log::RedisRoomLog;
pub use simple::SimpleLock;
pub use spin::SpinLock;

/// A pause between half of `pause` and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
