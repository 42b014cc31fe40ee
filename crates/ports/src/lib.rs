//! What the engine and the application need of the world, as small traits.
//!
//! No technology's type appears here, no transaction object and no closure crosses a port, arguments are owned where
//! they move to other threads. Each port documents the errors it returns; each that has several adapters has a suite
//! in [`contract`] (feature `contract`) that every one of them passes. Feature `mock` brings mockall's mocks.

mod audit;
mod beacon;
mod catalog;
mod clock;
mod command_log;
mod deadline;
mod event_sink;
mod executor;
mod fanout;
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
pub use event_sink::*;
pub use executor::*;
pub use fanout::*;
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

/// Whatever an adapter's technology said, kept as a source and never matched on.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// The store did not do what was asked, for reasons of its own. Nothing was changed, or it is unknown whether.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or does not answer in time: trying again later is right.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A defect: what was read or written made no sense to it.
    #[error("the store failed: {0}")]
    Broken(#[source] Source),
}
