//! Kafka: the contract suite against a real broker, and what only brokers can do: end, come back, move partitions.

#![cfg(feature = "kafka")]

mod contract;
mod log;
mod rebalance;
mod sink;
mod support;
mod topics;
