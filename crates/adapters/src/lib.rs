//! The ports on real technology: one module a technology, one additive feature each.
//!
//! * [`clock`]: this machine's clock and identifiers. The only place that reads them.
//! * `http_beacon` (feature `beacon`): the public randomness of draws, over HTTP.
//! * [`log_sink`]: events on standard output.
//! * `kafka` (feature `kafka`): the command log, and events for other systems.
//! * [`memory`]: everything in this process, nothing durable; tests, and the `memory` lock.
//! * `postgres` (feature `postgres`): one database, many instances.
//! * `rabbitmq` (feature `rabbitmq`): the command log in queues, events in a stream.
//! * `redis` (feature `redis`): locks, the logs of waiting rooms, messages between instances.
//! * `sqlite` (feature `sqlite`): the embedded default, one file, one writer. Shares `sql` with `postgres`.

pub mod clock;
#[cfg(feature = "beacon")]
pub mod http_beacon;
mod import;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod log_sink;
pub mod memory;
#[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
mod pause;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
mod room_log;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod room_wire;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod stores;
#[cfg_attr(not(any(feature = "kafka", feature = "rabbitmq")), allow(dead_code, reason = "without a broker only events are carried"))]
mod wire;
