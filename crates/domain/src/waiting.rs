//! The waiting room of one concert as a state machine.

pub mod adaptive;
mod entry;
mod input;

pub use adaptive::{AdaptiveState, Health};
pub use entry::*;
pub use input::*;
