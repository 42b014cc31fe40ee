//! RabbitMQ: the contract suite against a real node, and what only a broker can do: end, hang, close, refuse, forget.

#![cfg(feature = "rabbitmq")]

mod contract;
mod faults;
mod figures;
mod sink;
mod support;
mod topology;
