//! SQLite: the contract suites, what only a file can do (restart, other processes, constraints), and its figures.

#![cfg(feature = "sqlite")]

#[path = "sqlite/support.rs"]
mod support;

mod ledger {
    boxoffice_ports::ledger_contract!(super::support::fixture);
}

mod room {
    boxoffice_ports::room_contract!(super::support::fixture);
}

#[path = "sqlite/constraints.rs"]
mod constraints;
#[path = "sqlite/figures.rs"]
mod figures;
#[path = "sqlite/file.rs"]
mod file;
