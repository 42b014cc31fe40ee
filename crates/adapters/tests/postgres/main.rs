//! PostgreSQL: the contract suites, and what is special about a server: plans, locks, crashes, several instances, guards.

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
