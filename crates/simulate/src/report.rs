//! The result of a simulation, as data: text and page are made from this alone. Times are of the simulated world; how long
//! the simulation took is not in it.

use super::world::World;
use serde::Serialize;

/// Rises when a field changes its meaning or is removed.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub schema: u32,
    pub world: World,
    /// From the start of the sale to the end of the last turn.
    pub duration_s: f64,
    pub buyers: Fates,
    /// Of buyers that had a turn, from their arrival or the start of the sale; null without any.
    pub waiting: Option<Waits>,
    pub seats: Seats,
    pub utilisation: Utilisation,
    /// Rank correlation of arrival, or of the draw, and service; null for fewer than two. Then for each lane, the general
    /// one first.
    pub fairness: Option<f64>,
    pub fairness_by_lane: Vec<Option<f64>>,
    /// Of ranges shown to buyers that were sampled at random while waiting.
    pub eta_while_waiting: Calibration,
    /// Of the first range that each buyer was shown.
    pub eta_on_joining: Calibration,
    /// As the room itself measures it; null while nothing was judged.
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
    /// Still waiting at the end, when nothing was left to sell.
    pub sent_away: u64,
    /// Did not come to their turn.
    pub no_shows: u64,
    /// Had a turn and found no free seat.
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
    /// From the start of the sale to the last sold seat; null: some were left.
    pub sold_out_after_s: Option<f64>,
    /// How long a seat stayed unsold, on average.
    pub unsold_min: f64,
    /// How long buyers waited while a seat was free: neither sold nor held.
    pub idle_min: f64,
}

/// While buyers waited and seats were unsold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Utilisation {
    /// Active buyers as a share of `max_active`; null if no buyer had to wait.
    pub of_max_active: Option<f64>,
    /// Promotions as a share of the rate; null also without one.
    pub of_rate: Option<f64>,
    /// The most buyers that were active at the same time, and the highest limit.
    pub active_most: u64,
    pub max_active_most: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    pub judged: u64,
    /// The share of the ranges that contained the actual wait; the target is 0.8.
    pub right: Option<f64>,
    /// From the lower to the upper end of a range, seconds, on average.
    pub width_s: Option<f64>,
    pub horizons: Vec<Horizon>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Horizon {
    pub horizon: &'static str,
    pub judged: u64,
    pub right: Option<f64>,
    /// Turns that came before the range, and after it.
    pub sooner: u64,
    pub later: u64,
}

/// Of samples with about the same chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// The mean of the chances that were shown.
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
    /// Promotions so far.
    pub promoted: u64,
    /// The rate of adaptive admission; null while it does not limit.
    pub rate_per_s: Option<f64>,
}
