//! PostgreSQL and Redis of one's own, for tests and benchmarks: each on a free port of the loopback address, in a
//! temporary folder, and gone with the process that started it, even when that is killed.
//!
//! Calls block: a server needs a second or so to start. What is missing on the machine is said with how to install it.

mod postgres;
mod process;
mod redis;

pub use postgres::Postgres;
pub use redis::Redis;
