//! What a simulation found, as data: everything printed or drawn is made from this. Times are of the simulated world; how
//! long the simulation itself took is not in it.

use super::world::World;
use serde::Serialize;

/// Rises when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub schema: u32,
    pub world: World,
    /// After the start of the sale, to the end of the last turn.
    pub duration_s: f64,
    pub buyers: Fates,
    /// Of those whose turn came, from coming, or from the start of the sale; null when there were none.
    pub waiting: Option<Waits>,
    pub seats: Seats,
    pub utilisation: Utilisation,
    /// Rank correlation of arrival, or of the draw, and service; null for fewer than two. Of each lane, the general first.
    pub fairness: Option<f64>,
    pub fairness_by_lane: Vec<Option<f64>>,
    /// Of ranges told to people asked at random while they wait.
    pub eta_while_waiting: Calibration,
    /// Of the first range each was told.
    pub eta_on_joining: Calibration,
    /// As the room itself counts it; null while nothing was judged.
    pub eta_by_the_room: Option<f64>,
    pub chance: Vec<Reliability>,
    pub timeline: Vec<Moment>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    pub came: u64,
    pub had_a_turn: u64,
    pub bought: u64,
    /// Left while they waited.
    pub gave_up: u64,
    /// Were still waiting at the end: nothing was left.
    pub sent_away: u64,
    /// Whose turn came and who did not.
    pub no_shows: u64,
    /// Had a turn and found no seat that was free.
    pub found_nothing: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waits {
    pub median_s: f64,
    pub p90_s: f64,
    pub p99_s: f64,
    pub mean_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seats {
    pub sold: u64,
    /// When the last one was sold, after the start of the sale; null: some were left.
    pub sold_out_after_s: Option<f64>,
    /// How long a seat stood unsold, on the average.
    pub unsold_min: f64,
    /// For how long somebody waited while a seat stood free: neither sold nor held.
    pub idle_min: f64,
}

/// While anybody waited and there was anything to sell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Utilisation {
    /// Of the places of those who may be active; null if nobody had to wait.
    pub of_max_active: Option<f64>,
    /// Of the rate; null also without one.
    pub of_rate: Option<f64>,
    /// The most who were active at once, and who may have been.
    pub active_most: u64,
    pub max_active_most: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    pub judged: u64,
    /// The share of the ranges that held the truth; 0.8 is meant.
    pub right: Option<f64>,
    /// From their lower to their upper end, seconds, on the average.
    pub width_s: Option<f64>,
    pub horizons: Vec<Horizon>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Horizon {
    pub horizon: &'static str,
    pub judged: u64,
    pub right: Option<f64>,
    /// The turn came before the range, and after it.
    pub sooner: u64,
    pub later: u64,
}

/// Of answers with about the same chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Their mean.
    pub told: f64,
    pub came_true: f64,
    pub answers: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Moment {
    /// After the start of the sale.
    pub at_s: f64,
    pub waiting: u64,
    pub active: u64,
    pub max_active: u64,
    pub sold: u64,
    /// Whose turn has come, ever.
    pub promoted: u64,
    /// What adaptive admission allows; null while it does not limit.
    pub rate_per_s: Option<f64>,
}
