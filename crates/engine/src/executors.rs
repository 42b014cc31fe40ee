//! Executors: the mechanisms that decide which command goes next. Each answers every request once, bounds its waiting,
//! and leaves what is true to the ledger.
//!
//! [`Combining`] batches in this process. [`Locked`] and [`Direct`] run one command at a time. [`Queued`] leaves the
//! order to a log outside and decides what has arrived there.

mod attempt;
mod behind;
mod combining;
mod direct;
mod locked;
mod one_by_one;
mod queued;
mod row_waiters;
mod stored;

pub use combining::{Combining, CombiningSettings};
pub use direct::Direct;
pub use locked::Locked;
pub use queued::{Queued, QueuedParts, QueuedSettings};
