//! PostgreSQL, Redis, Kafka and RabbitMQ for tests and benchmarks: each on free ports of the loopback address, in a
//! temporary folder, and ended with the process that started it, even when that is killed. And a clock that can be set,
//! for a process that is started with it.
//!
//! Calls block: a server needs a second or so to start. If a program is missing on the machine, the error says how to
//! install it.

mod kafka;
mod postgres;
mod process;
mod rabbitmq;
mod redis;
mod set_clock;

pub use kafka::Kafka;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
pub use set_clock::SetClock;
