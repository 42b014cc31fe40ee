//! Kafka: commands in the order of a partition, the answers to them, and events for other systems.
//!
//! Nothing that must be true depends on it but one thing: a command that was accepted is in the log until it is decided.
//! Its producers are idempotent and wait for all replicas in sync; positions are committed after the ledger's commit.
//! Brokers of version 2.4 or later, without TLS.
//!
//! # Layout
//!
//! * [`connect`]: settings of all clients, their bounds, failures, and how a client is closed.
//! * [`topics`]: created when missing, checked otherwise.
//! * [`produce`]: the producer behind commands and events.
//! * [`log`]: appending commands and telling answers. [`partition`]: where a key lies. [`reader`]: taking commands. [`positions`]: what may be committed.
//!   [`answers`]: hearing answers.
//! * [`mod@remove`]: taking a log away.
//! * [`sink`]: events, each key in order over any failure.

mod answers;
mod connect;
mod log;
mod partition;
mod positions;
mod produce;
mod reader;
mod remove;
mod sink;
mod topics;

pub use connect::Failure;
pub use log::{KafkaLog, KafkaOptions};
pub use remove::{client_version, remove};
pub use sink::{KafkaSink, KafkaSinkOptions};
