//! Admission policies tried on a crowd that is not there: a discrete-event simulation around the very state machine that
//! serves ([`boxoffice_domain::waiting::Room`]), told what an instance would tell it, tick by tick.
//!
//! Nothing here reads a clock, and what is random is drawn from the seed alone: the same world is the same report, byte
//! for byte. About 400 bytes a buyer; time grows with buyers and with ticks.
//!
//! # Layout
//!
//! * [`world`]: what is simulated. `crowd`, `buyer`: what is drawn of it. `servers`: what bears the crowd.
//! * `run`: the events, in their order. `judge`: what was told against what came.
//! * [`report`]: what came out. [`text`], [`page`]: for a terminal, for a browser. [`html`]: the page around any report.

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
