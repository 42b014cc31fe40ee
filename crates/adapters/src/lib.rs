//! The ports on real technology: one module a technology, one additive feature each.
//!
//! * [`clock`]: this machine's clock and identifiers. The only place that asks them.
//! * [`memory`]: everything in this process, nothing durable; tests, and the `memory` lock.
//! * `sqlite` (feature `sqlite`): the embedded default, one file, one writer.

pub mod clock;
pub mod memory;
mod rooms;
#[cfg(feature = "sqlite")]
pub mod sqlite;
