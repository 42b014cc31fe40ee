//! The decision's tests: tables of cases for every command and state, replies, and random walks that keep the
//! design's invariants. They run over [`world::World`], rows in memory loaded and written as a ledger does it.

mod holds;
mod invariants;
mod payments;
mod properties;
mod replies;
mod wallet;
mod world;
