//! PostgreSQL, Redis, Kafka and RabbitMQ of one's own, for tests and benchmarks: each on free ports of the loopback
//! address, in a temporary folder, and gone with the process that started it, even when that is killed.
//!
//! Calls block: a server needs a second or so to start. What is missing on the machine is said with how to install it.

mod kafka;
mod postgres;
mod process;
mod rabbitmq;
mod redis;

pub use kafka::Kafka;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
