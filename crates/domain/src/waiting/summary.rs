//! The public summary of a room.

use super::adaptive::AdaptiveState;
use crate::AdmissionMode;

/// What every client of a room may know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomSummary {
    pub mode: AdmissionMode,
    pub sold_out: bool,
    /// Whether promotion may go on: the sale has started, and its draw is done.
    pub open: bool,
    pub waiting: u64,
    /// Of each lane: promotions ever, and per second lately.
    pub lanes: Vec<(u64, f64)>,
    /// The most that may be active now.
    pub max_active: u32,
    pub adaptive: AdaptiveState,
}
