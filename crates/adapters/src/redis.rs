//! Redis: locks in front of the ledger, the logs of the waiting rooms, and messages between instances.
//!
//! Correctness does not depend on it: the ledger guards every write again, and a queue that is lost is rebuilt.
//! Redis 6.2 or later; one node, Sentinel or Cluster, by `redis.urls`.
//!
//! # Layout
//!
//! * [`address`]: which of these the settings name. [`connect`]: the shared connection and its bounds. [`script`]: scripts,
//!   sent by their hash. [`failure`]: what can go wrong.
//! * [`simple`], [`spin`], [`pubsub`]: the locks on one Redis. [`lock`], [`keys`]: the scripts and names that they share.
//! * [`redlock`], [`quorum`]: the lock on several nodes, and which of them vote.
//! * [`lease`]: held, renewed, lost, given back. [`queue`]: the queue inside this process. [`releases`]: notifies waiters
//!   of a release. [`backoff`]: the pauses between tries.
//! * [`room_log`]: the inputs of the waiting rooms. [`fanout`]: seat changes, published to all instances.

mod address;
mod backoff;
mod connect;
mod failure;
mod fanout;
mod keys;
mod lease;
mod lock;
mod pubsub;
mod queue;
mod quorum;
mod redlock;
mod releases;
mod room_log;
mod script;
mod simple;
mod spin;

pub use connect::Redis;
pub use failure::Failure;
pub use fanout::RedisFanout;
pub use pubsub::PubSubLock;
pub use redlock::Redlock;
pub use room_log::RedisRoomLog;
pub use simple::SimpleLock;
pub use spin::SpinLock;
