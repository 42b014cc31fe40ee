//! PostgreSQL: the contract suites, what only a server can do (plans, locks, crashes, several instances), and its guards.

#![cfg(feature = "postgres")]

mod audit;
mod constraints;
mod contract;
mod guards;
mod held;
#[path = "../shared/logs.rs"]
mod logs;
mod order;
mod relays;
mod rest;
mod room_log;
mod sessions;
mod support;
mod trouble;
