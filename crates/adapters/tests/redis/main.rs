//! Redis: the contract suites against real nodes, and cases that need one: servers that hang, end, or lose their data.

#![cfg(feature = "redis")]

mod fanout;
mod locks;
mod room_log;
mod topologies;
