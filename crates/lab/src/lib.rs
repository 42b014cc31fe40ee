//! The strategy lab: the same commands for every strategy, and what each strategy did with them.
//!
//! Each strategy gets a [`site`] of its own, which is removed afterwards; each run gets fresh users and a fresh date.
//! What is reported as applied was found in the store, never taken from an answer. A difference between the two is a
//! finding, reported prominently. Every run ends by itself: see [`drive`].
//!
//! # Layout
//!
//! * [`plan`]: what to compare. [`mod@bench`]: the runs of a plan. [`workload`]: the commands, as data.
//! * [`caller`], [`client`]: one command to its answer, in process or over HTTP. [`drive`]: many callers at the same
//!   time, on threads of their own ([`caller_runtime`]).
//! * [`entrant`]: a strategy in one of its set-ups. [`site`]: its store, servers and users. [`run`]: one measurement.
//!   [`overload`]: the measurement under ten times more than can be answered.
//! * [`effects`]: what is in the store. [`figures`]: what the operating system counts.
//! * [`report`]: the result as data. [`table`], [`page`]: the same for readers. [`judgements`]: what no run shows.

mod bench;
mod caller;
mod caller_runtime;
mod client;
mod drive;
mod effects;
mod entrant;
mod error;
mod figures;
pub mod judgements;
mod overload;
pub mod page;
mod plan;
pub mod report;
mod run;
mod site;
pub mod table;
#[cfg(test)]
mod tests;
pub mod workload;

pub use bench::bench;
pub use error::LabError;
pub use plan::{INSTANCES_MAX, Plan, Progress, SECONDS_MAX};
