//! RabbitMQ: the contract suite against a real node, and cases that need one: a broker that ends, hangs, closes connections,
//! refuses messages or forgets queues.

#![cfg(feature = "rabbitmq")]

mod contract;
mod faults;
mod figures;
mod sink;
mod support;
mod topology;
