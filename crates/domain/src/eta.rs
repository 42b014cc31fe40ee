//! How long one will wait, as a range.

use serde::{Deserialize, Serialize};

/// Seconds until one's turn: the 10th, 50th and 90th percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    pub low_s: u32,
    pub mid_s: u32,
    pub high_s: u32,
}

/// The 90th percentile of the standard normal distribution.
const Z_90: f64 = 1.281_551_6;

impl Eta {
    /// From `ahead` people before one and `admitted` promotions measured in the last `window_s` seconds; `None` while
    /// nothing was measured.
    ///
    /// Both the wait for `ahead + 1` promotions and the measured rate are sums of random gaps, so the relative error is
    /// √(1/(ahead+1) + 1/admitted); a log-normal spread keeps the range positive.
    pub fn estimate(ahead: u64, admitted: u32, window_s: f64) -> Option<Self> {
        if admitted == 0 || window_s <= 0.0 {
            return None;
        }
        let turns = ahead as f64 + 1.0;
        let mid = turns * window_s / f64::from(admitted);
        let spread = (Z_90 * (1.0 / turns + 1.0 / f64::from(admitted)).sqrt()).exp();
        let seconds = |value: f64| value.min(f64::from(u32::MAX)) as u32;
        Some(Self { low_s: seconds((mid / spread).floor()), mid_s: seconds(mid.round()), high_s: seconds((mid * spread).ceil()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eta_is_a_range_around_places_over_rate() {
        assert_eq!(Eta::estimate(10, 0, 60.0), None);
        let eta = Eta::estimate(599, 600, 60.0).unwrap();
        assert_eq!(eta.mid_s, 60);
        assert!(eta.low_s < 60 && eta.high_s > 60 && eta.high_s < 70, "{eta:?}");
        let unsure = Eta::estimate(599, 6, 60.0).unwrap();
        assert!(unsure.high_s - unsure.low_s > 6_000, "few measurements make a wide range: {unsure:?}");
        assert_eq!(Eta::estimate(u64::MAX, 1, 60.0).unwrap().high_s, u32::MAX);
    }
}
