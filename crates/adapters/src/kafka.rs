//! Kafka: commands in the order of a partition, the answers to them, and events for other systems.
//!
//! One thing depends on it: a command that was accepted is in the log until it is decided. Its producers are idempotent
//! and wait for all replicas in sync; positions are committed after the ledger's commit. Brokers of version 2.4 or later,
//! without TLS.
//!
//! # Layout
//!
//! * [`command_log`]: appending commands and publishing answers. [`shared`]: the topics and producers that the log and its
//!   readers share.
//! * [`command_reader`]: taking commands. [`positions`]: what may be committed.
//! * [`answer_reader`]: the answers for one instance.
//! * [`event_sink`]: events, each key in order over any failure.
//! * [`producer`]: the producer behind commands and events. [`partition`]: where a key lies.
//! * [`connect`]: settings of all clients, their bounds, and how a client is closed. [`failure`]: what can go wrong.
//! * [`topics`]: created when missing, checked otherwise. [`mod@remove`]: deleting a log.

mod answer_reader;
mod command_log;
mod command_reader;
mod connect;
mod event_sink;
mod failure;
mod partition;
mod positions;
mod producer;
mod remove;
mod shared;
mod topics;

pub use command_log::{KafkaLog, KafkaOptions};
pub use event_sink::{KafkaSink, KafkaSinkOptions};
pub use failure::Failure;
pub use remove::{client_version, remove};
