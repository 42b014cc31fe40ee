//! The strategy lab: the same commands for every strategy, and what each made of them.
//!
//! Each strategy gets a [`site`] of its own, which is gone afterwards; each run fresh people and a fresh date. What is
//! reported as applied was found in the store, never taken from an answer; a difference between the two is a finding,
//! and whoever runs the lab is told loudly. Every run ends by itself: see [`drive`].
//!
//! # Layout
//!
//! * [`workload`]: what is asked. [`caller`], [`client`]: one command to its answer, in process or over HTTP.
//! * [`entrant`]: who takes part. [`site`]: store, servers, people. [`drive`]: many callers at once, on threads of their
//!   own ([`outside`]). [`run`]: one measurement. [`overload`]: another one, of ten times more than can be answered.
//! * [`effects`]: what is in the store. [`figures`]: what the operating system counts.
//! * [`report`]: the result as data. [`table`], [`page`]: the same for people. [`judgements`]: what no run shows.

mod bench;
mod caller;
mod client;
mod drive;
mod effects;
mod entrant;
mod error;
mod figures;
pub mod judgements;
mod outside;
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
