//! Redis: the contract suites against real nodes, and what only a server can do: hang, end, forget.

#![cfg(feature = "redis")]

mod fanout;
mod locks;
mod room_log;
mod topologies;
