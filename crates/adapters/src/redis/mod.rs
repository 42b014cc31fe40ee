//! Redis: locks in front of the ledger, the waiting room, and what instances tell each other.
//!
//! Nothing that must be true depends on it: the ledger guards every write again, and a queue that is lost is rebuilt.
//! Redis 6.2 or later; one node, Sentinel or Cluster, by `redis.urls`.
//!
//! # Layout
//!
//! * [`address`]: which of these the settings name. [`connect`]: the shared connection, its bounds and failures.
//! * [`keys`]: what everything is called in Redis.

mod address;
mod connect;
mod keys;

use std::time::Duration;

pub use connect::{Failure, Redis};

/// A pause between half of `pause` and all of it, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
