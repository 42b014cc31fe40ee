//! The ports on real technology: one module a technology, one additive feature each.
//!
//! * [`clock`]: this machine's clock and identifiers. The only place that asks them.
//! * [`memory`]: everything in this process, nothing durable; tests, and the `memory` lock.
//! * `postgres` (feature `postgres`): one database, many instances.
//! * `redis` (feature `redis`): locks, the waiting room, what instances tell each other.
//! * `sqlite` (feature `sqlite`): the embedded default, one file, one writer.

pub mod clock;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod rooms;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[allow(dead_code, reason = "each broker carries a part of it")]
mod wire;
