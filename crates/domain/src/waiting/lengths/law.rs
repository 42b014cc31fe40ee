//! The law of turns that are not short: log-normal lengths, cut at the longest turn there may be.

use super::bins::{BIN, LEAST, edge_s, short};

/// Before anything was seen: the median as a share of the longest turn, the spread of the logarithm, and how sure the
/// logarithms of both are.
const MEDIAN_SHARE: f64 = 0.2;
const MEDIAN_ERROR: f64 = 0.7;
const SPREAD: f64 = 0.6;
const SPREAD_ERROR: f64 = 0.4;

/// A log-normal law: logarithms of the median, and the spread.
#[derive(Clone, Copy)]
pub(super) struct Law {
    pub(super) median_ln: f64,
    pub(super) spread: f64,
}

impl Law {
    pub(super) fn before(longest_s: f64) -> Self {
        Self { median_ln: (MEDIAN_SHARE * longest_s).ln(), spread: SPREAD }
    }

    /// The grid to begin with: medians up to the longest turn.
    pub(super) fn anywhere(longest_s: f64) -> [(f64, f64); 2] {
        let half = longest_s.max(2.0).ln() / 2.0;
        [(half, half), (SPREAD.ln(), 3.0 * SPREAD_ERROR)]
    }

    pub(super) fn before_ln(self, longest_s: f64) -> f64 {
        let median = (self.median_ln - Self::before(longest_s).median_ln) / MEDIAN_ERROR;
        let spread = (self.spread / SPREAD).ln() / SPREAD_ERROR;
        -(median * median + spread * spread) / 2.0
    }

    /// The share that is longer than what this is the logarithm of.
    pub(super) fn goes_on(self, ln_s: f64) -> f64 {
        normal((self.median_ln - ln_s) / self.spread)
    }

    /// The mean of lengths that are cut.
    pub(super) fn mean_s(self, cut_s: f64) -> f64 {
        let Self { median_ln, spread } = self;
        let cut = (cut_s.ln() - median_ln) / spread;
        (median_ln + spread * spread / 2.0).exp() * normal(cut - spread) + cut_s * normal(-cut)
    }

    /// How much longer turns last that are not short, on the average.
    pub(super) fn longer_s(self, longest_s: f64) -> f64 {
        let short = short(longest_s);
        let longer_s = self.mean_s(longest_s) - self.mean_s(edge_s(short));
        (longer_s / self.goes_on(short as f64 * BIN).max(LEAST.sqrt())).clamp(0.0, longest_s)
    }
}

/// The normal distribution, to about 2 in 10,000.
fn normal(z: f64) -> f64 {
    1.0 / (1.0 + (-z * (1.5976 + 0.070_56 * z * z)).exp())
}
