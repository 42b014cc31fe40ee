//! One strategy under ten times more than it can answer.

use serde::Serialize;

use crate::drive::Latencies;
use crate::entrant;

/// One strategy under ten times more than it can answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overload {
    pub strategy: &'static str,
    pub partitions: Option<u32>,
    /// The highest rate of effects of callers that wait for their answers, and the number of those callers.
    pub peak_per_s: f64,
    pub peak_callers: u32,
    /// The same while as many offers were rejected without an executor, the mean of before and after: the cost of
    /// offering and of a fuller store is not the strategy's.
    pub peak_beside_per_s: f64,
    pub seconds: f64,
    pub offered: u32,
    pub offered_per_s: f64,
    /// Answered while offers were made, a second.
    pub answered_per_s: f64,
    pub share_of_peak: f64,
    pub share_of_peak_beside: f64,
    pub answered: u32,
    pub turned_away: u32,
    pub failed: u32,
    pub wait_ms: u64,
    /// Of the accepted commands, to their outcome.
    pub latency: Option<Latencies>,
    pub findings: Vec<String>,
    pub breaches: Vec<String>,
    pub first_failure: Option<String>,
}

impl Overload {
    pub fn title(&self) -> String {
        entrant::title(self.strategy, self.partitions)
    }

    pub fn is_true(&self) -> bool {
        self.findings.is_empty() && self.breaches.is_empty()
    }

    /// How many times the peak was really offered.
    pub fn times(&self) -> f64 {
        if self.peak_per_s > 0.0 { self.offered_per_s / self.peak_per_s } else { 0.0 }
    }

    /// Whether accepted commands are still answered in time, and the rest costs almost nothing. A machine that cannot
    /// offer as much as intended proves nothing.
    pub fn holds(&self) -> bool {
        self.times() > TIMES_MIN
            && self.share_of_peak_beside > SHARE_MIN
            && self.latency.is_some_and(|latency| latency.p99_ms < self.wait_ms as f64)
    }
}

/// How many times the peak must be offered.
pub const TIMES_MIN: f64 = 9.5;
/// The share that a strategy must keep of `peak_beside_per_s`.
pub const SHARE_MIN: f64 = 0.9;
