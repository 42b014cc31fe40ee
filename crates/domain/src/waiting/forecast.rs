//! How long one will wait, and whether a seat will still be there; and how often the ranges told were right.

use super::turns::Turns;
use crate::{Eta, QueueEntryId, Timestamp};
use serde::{Deserialize, Serialize};

/// What one lane has told, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {}

impl Forecast {
    /// `admitted` promotions of this lane in the last `window_s` seconds.
    pub fn estimate(&self, ahead: u64, admitted: u32, window_s: f64) -> Option<Eta> {
        Eta::estimate(ahead, admitted, window_s)
    }

    /// An entry was told this range at `now`: it may be held against what comes.
    pub fn told(&mut self, _entry: QueueEntryId, _eta: Eta, _now: Timestamp) {}

    /// Its turn came.
    pub fn promoted(&mut self, _entry: QueueEntryId, _now: Timestamp) {}

    /// It left: nothing can be said of what it was told.
    pub fn left(&mut self, _entry: QueueEntryId) {}

    /// The share of ranges that were right, and how many were judged.
    pub fn calibration(&self) -> Option<(f64, u64)> {
        None
    }
}

/// How likely a seat is still to be had behind so many people, in thousandths.
pub fn chance(ahead: u64, active: u64, obtainable: u64, turns: &Turns) -> u16 {
    if obtainable == 0 {
        return 0;
    }
    let (buyers, seats) = ((ahead + active) as f64, turns.seats_per_sale());
    let mean = buyers * turns.conversion * seats;
    let deviation = (buyers * turns.conversion * (1.0 - turns.conversion)).sqrt() * seats + seats;
    // The logistic curve is near enough to the normal one.
    let likely = 1.0 / (1.0 + (-1.702 * (obtainable as f64 - mean) / deviation).exp());
    (likely * 1_000.0).round().clamp(0.0, 1_000.0) as u16
}

/// How many may be active when that is to be found: enough buyers for the seats there are, no more than the servers
/// bear, and as many more as do not come.
pub fn auto_max_active(obtainable: u64, bearable_per_s: Option<f64>, turns: &Turns) -> u32 {
    let buyers = obtainable as f64 / (turns.seats_per_sale() * turns.conversion.max(0.05));
    let bearable = bearable_per_s.map_or(f64::INFINITY, |rate| rate * turns.length_s.max(1.0));
    let come = (1.0 - turns.no_shows).max(0.1);
    (buyers.min(bearable) / come).ceil().clamp(1.0, f64::from(crate::admission::MAX_ACTIVE_MAX)) as u32
}
