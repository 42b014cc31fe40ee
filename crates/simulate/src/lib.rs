//! Admission policies tried on a simulated crowd: a discrete-event simulation around the state machine that serves
//! ([`boxoffice_domain::waiting::Room`]). The room gets the inputs that an instance would append, tick by tick.
//!
//! No clock is read and all random numbers come from the seed: the same world gives the same report, byte for byte.
//! About 400 bytes a buyer; time grows with buyers and with ticks.
//!
//! # Layout
//!
//! * [`world`]: the parameters. `crowd`, `buyer`: the random crowd. `servers`: how servers slow down under it.
//! * `run`: the events, in their order. `judge`: compares what buyers were shown with what happened.
//! * [`report`]: the result. [`text`], [`page`]: for a terminal, for a browser. [`html`]: the page around any report.

mod buyer;
mod crowd;
pub mod html;
mod judge;
pub mod page;
pub mod report;
mod run;
mod servers;
pub mod text;
pub mod world;

pub use run::simulate;
pub use world::World;

#[cfg(test)]
mod tests;
