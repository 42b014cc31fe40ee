//! PostgreSQL, Redis, Kafka and RabbitMQ of one's own, for tests and benchmarks: each on free ports of the loopback
//! address, in a temporary folder, and gone with the process that started it, even when that is killed.
//!
//! And a clock that can be set, for a process that is started with it.
//!
//! Calls block: a server needs a second or so to start. What is missing on the machine is said with how to install it.

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
