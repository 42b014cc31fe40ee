//! Kafka: the contract suite against a real broker, and cases that need one: brokers that end and restart, and partitions
//! that move.

#![cfg(feature = "kafka")]

mod contract;
mod log;
mod rebalance;
mod sink;
mod support;
mod topics;
