//! What ended turns have shown: how many buy, and how many buyers do not come.

use serde::{Deserialize, Serialize};

/// The length of a turn and the share of no-shows: about the last fifty turns are remembered.
const WEIGHT: f64 = 1.0 / 50.0;
/// How many buy: about the last five hundred, because the chance of entries far behind depends on it.
const WEIGHT_OF_SALES: f64 = 1.0 / 500.0;
/// Before anything was measured: seats that one buyer takes.
const SEATS_PER_SALE: f64 = 2.0;

/// See the module's opening. Shares begin as what a cautious operator would assume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    ended: u64,
    /// Those that ended since the last call of `take_freed`.
    freed: u32,
    /// Seconds.
    pub length_s: f64,
    /// The share of turns that end with a payment.
    pub conversion: f64,
    /// The share of turns that their buyer did not come for.
    pub no_shows: f64,
    sales: f64,
    seats: f64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { ended: 0, freed: 0, length_s: 0.0, conversion: 1.0, no_shows: 0.0, sales: 0.0, seats: 0.0 }
    }
}

impl Turns {
    pub fn ended(&mut self, length_s: f64, paid: bool, seen: bool) {
        self.ended += 1;
        self.freed += 1;
        // The first ones are averaged, so that the assumption does not linger.
        let first = 1.0 / self.ended as f64;
        let (weight, weight_of_sales) = (WEIGHT.max(first), WEIGHT_OF_SALES.max(first));
        let share = |of: bool| if of { 1.0 } else { 0.0 };
        self.length_s += weight * (length_s - self.length_s);
        self.conversion += weight_of_sales * (share(paid) - self.conversion);
        self.no_shows += weight * (share(!seen) - self.no_shows);
        if paid {
            self.sales += 1.0;
        }
    }

    /// Seats that are not to be had any more.
    pub fn sold(&mut self, seats: u64) {
        self.seats += seats as f64;
    }

    pub fn are_measured(&self) -> bool {
        self.ended > 0
    }

    /// How many have ended since the last call.
    pub(super) fn take_freed(&mut self) -> u32 {
        std::mem::take(&mut self.freed)
    }

    pub fn seats_per_sale(&self) -> f64 {
        if self.sales < 1.0 || self.seats < 1.0 { SEATS_PER_SALE } else { (self.seats / self.sales).max(1.0) }
    }

    /// The standard error of `conversion`, as a share of it: large while few turns have ended.
    pub(super) fn conversion_error(&self) -> f64 {
        // A mean that forgets by a weight w is as good as one of 2/w values.
        let values = (self.ended as f64).min(2.0 / WEIGHT_OF_SALES) + 1.0;
        let share = self.conversion.clamp(0.5 / values, 1.0 - 0.5 / values);
        ((1.0 - share) / (share * values)).sqrt()
    }
}
