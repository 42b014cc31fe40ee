//! Shared by the two SQL databases, where a difference would be a bug.
//!
//! Ledgers, statements and SQL types stay with each database: they differ in how they lock, batch and bind.
//!
//! * [`statement`]: an SQL text with a static identity, and the values that are bound to it.
//! * [`columns`]: how single values are written. [`rows`], [`catalog`], [`queries`], [`mirror`]: records of columns.
//! * [`audit`]: the rows of an audit. [`failure`]: failures, and the error that each port makes of them.

pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod columns;
pub(crate) mod failure;
pub(crate) mod mirror;
pub(crate) mod queries;
pub(crate) mod rows;
pub(crate) mod statement;
