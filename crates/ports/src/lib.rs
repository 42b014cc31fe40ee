//! What the engine and the application need of the world, as small traits.
//!
//! No technology's type appears here. No transaction object and no closure crosses a port, and arguments are owned where
//! they move to other threads. Each port documents the errors it returns. A port with several adapters has a suite in
//! [`contract`] (feature `contract`), which every adapter passes. Feature `mock` brings mockall's mocks.
//!
//! # How to add a port
//!
//! 1. `src/<port>.rs`: a `//!`, the values that cross it, its error as a `thiserror` enum that keeps its [`Source`], and the
//!    trait, with `#[async_trait]` and `#[cfg_attr(feature = "mock", mockall::automock)]`. Add `mod` and `pub use` here, and
//!    a field of [`Stores`] if every store has it.
//! 2. If it has several adapters: cases in `src/contract/<port>.rs`, and a macro that makes one test for each case. Cases get
//!    what they need beside the port (a clock that moves, a second instance) from a fixture.
//! 3. At least one adapter, and the caller in `engine`, which sees the trait alone and is tested with the mock.
//!
//! # How to add an adapter
//!
//! 1. `crates/adapters/src/<technology>/<port>.rs`: one module a technology, one file a port. `<technology>.rs` opens with
//!    what it keeps where, and how it fails; connecting is a file of its own.
//! 2. `crates/adapters/Cargo.toml` and `src/lib.rs`: one additive feature a technology, which the manifests of
//!    `app`, `lab` and `cli` pass on.
//! 3. `crates/adapters/tests/<technology>/main.rs`: the contract's macro over a real server, which the test starts by
//!    `tests/services/src/<technology>.rs` and may kill; and tests of its own for what only this technology does.
//! 4. `crates/app/src/wiring/`: the one place that names concrete adapters. A build without the feature must refuse the
//!    setting by name.
//!
//! # How to add a strategy
//!
//! A strategy is an executor of `engine` over a port: a [`Lock`] (`engine::executors::Locked`), a [`CommandLog`] (`Queued`),
//! a [`Guard`] (`Direct`), or lanes in memory (`Combining`). Most new ones are one more adapter of [`Lock`] or
//! [`CommandLog`]. These are the files that `rabbitmq`, the last one added, touches:
//!
//! 1. The adapter, as above: `crates/adapters/src/rabbitmq/` with `command_log.rs` for [`CommandLog`] (and `event_sink.rs`
//!    for [`EventSink`]), which passes `command_log_contract!`; its server in `tests/services/src/rabbitmq.rs`, and whether
//!    that is installed in `tests/run`.
//! 2. `crates/app/src/config/settings/strategy.rs`: the name in `StrategyName` (the enum, `ALL`, `name`, and predicates such
//!    as `keeps_a_log`). `settings/services.rs`: the section with its addresses. `config/check.rs`: what must be set with
//!    it. `deploy/boxoffice.toml`: each new key with its default, explained; this file is compiled in as the defaults.
//! 3. `crates/app/src/wiring/brokers.rs` (a lock: `redis.rs` and `no_redis.rs`): opens the adapter only where a setting needs
//!    it, and adds its readiness probe. `wiring/engine.rs`: the executor over it, one arm of a `match` that the compiler asks
//!    for. `wiring/scratch.rs`: how a comparison deletes what it created.
//! 4. `crates/lab/src/site/settings.rs` and `run.rs`: which part of the configuration its runs take over, and which ports
//!    its traffic is counted at. `judgements.rs`: what no run shows. `entrant.rs`, if it is measured in several sizes.
//! 5. `tests/tests/e2e/contention/mod.rs`: one line in `suite!`, and one more in a mixture. `locked.rs` and
//!    `hangs/brokers.rs`: a case through it. `brokers/`: what only logs and events do.
//! 6. Documents: the table of strategies in `README.md`, the flow in `crates/README.md`, operating it and what happens while
//!    it is away in `deploy/README.md`.

mod audit;
mod beacon;
mod catalog;
mod clock;
mod command_log;
mod deadline;
mod error;
mod event_sink;
mod executor;
mod fanout;
mod ids;
mod ledger;
mod lock;
mod outbox;
mod queries;
mod room_log;
mod room_mirror;
mod secrets;
mod stores;
mod tasks;
mod traffic;
mod upkeep;
mod waiting_room;

#[cfg(feature = "contract")]
pub mod contract;

pub use audit::*;
pub use beacon::*;
pub use boxoffice_domain::InstanceId;
pub use catalog::*;
pub use clock::*;
pub use command_log::*;
pub use deadline::*;
pub use error::*;
pub use event_sink::*;
pub use executor::*;
pub use fanout::*;
pub use ids::*;
pub use ledger::*;
pub use lock::*;
pub use outbox::*;
pub use queries::*;
pub use room_log::*;
pub use room_mirror::*;
pub use secrets::*;
pub use stores::*;
pub use tasks::*;
pub use traffic::*;
pub use upkeep::*;
pub use waiting_room::*;

pub use boxoffice_domain::waiting::PlaceClaim;
