//! SQLite: the contract suites, and what is special about a file: restarts, other processes, constraints, guards.

#![cfg(feature = "sqlite")]

#[path = "sqlite/support.rs"]
mod support;

mod ledger {
    boxoffice_ports::ledger_contract!(super::support::fixture);
}

mod mirror {
    boxoffice_ports::mirror_contract!(super::support::fixture);
}

#[path = "shared/logs.rs"]
mod logs;
#[path = "sqlite/room_log.rs"]
mod room_log;

#[path = "sqlite/constraints.rs"]
mod constraints;
#[path = "shared/edges.rs"]
mod edges;
#[path = "sqlite/file.rs"]
mod file;
#[path = "sqlite/guards.rs"]
mod guards;

use std::any::Any;
use std::sync::Arc;

use boxoffice_ports::{Clock, Stores};

async fn make_still(clock: Arc<dyn Clock>) -> (Stores, Box<dyn Any + Send + Sync>) {
    let place = support::Place::new();
    let store = place.open_with(clock);
    (store.stores(), Box::new(place))
}
