//! Whole servers over HTTP: with a real file, side by side on PostgreSQL, killed in the middle.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, in its helpers too")]

mod abuse;
mod booking;
mod brokers;
mod commands;
mod contention;
mod crash;
mod draw;
mod expiry;
mod faults;
mod hangs;
mod idempotency;
mod isolation;
mod locked;
mod onsale;
mod overload;
mod presence;
mod problems;
mod push;
mod queue;
mod rooms;
mod sellout;
mod simulate;
mod soak;
mod surface;
mod tour;
