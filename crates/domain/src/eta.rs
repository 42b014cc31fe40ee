//! How long one will wait, as a range.

use serde::{Deserialize, Serialize};

/// Seconds until an entry's turn: the 10th, 50th and 90th percentile. Where the 10th is less than half a second, `high_s` is
/// the 80th instead: a range from zero misses on one side alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    pub low_s: u32,
    pub mid_s: u32,
    pub high_s: u32,
}

impl Eta {
    /// From seconds, which may be beyond the range of the type, or not in order.
    pub fn of_seconds(low: f64, mid: f64, high: f64) -> Self {
        /// A range that is narrower lies within the whole seconds around it.
        const NARROW_S: f64 = 1.0;
        let (low, high) = if high - low < NARROW_S { (low.floor(), high.ceil()) } else { (low.round(), high.round()) };
        // The conversion saturates.
        let [low_s, mid_s, high_s] = [low, mid.round(), high].map(|value| value as u32);
        Self { low_s: low_s.min(mid_s), mid_s, high_s: high_s.max(mid_s).max(1) }
    }

    pub fn contains(&self, seconds: f64) -> bool {
        (f64::from(self.low_s)..=f64::from(self.high_s)).contains(&seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_in_order_and_within_what_can_be_told() {
        let eta = Eta::of_seconds(3.4, 10.0, 30.6);
        assert_eq!(eta, Eta { low_s: 3, mid_s: 10, high_s: 31 });
        assert!(eta.contains(3.0) && eta.contains(31.0) && !eta.contains(31.1) && !eta.contains(2.9));
        assert_eq!(Eta::of_seconds(29.7, 30.1, 30.2), Eta { low_s: 29, mid_s: 30, high_s: 31 });
        assert_eq!(Eta::of_seconds(9.0, 5.0, 2.0), Eta { low_s: 5, mid_s: 5, high_s: 5 });
        assert_eq!(Eta::of_seconds(0.0, 0.1, 0.2), Eta { low_s: 0, mid_s: 0, high_s: 1 }, "only zero is rounded to no time at all");
        assert_eq!(Eta::of_seconds(-1.0, 1e300, f64::INFINITY), Eta { low_s: 0, mid_s: u32::MAX, high_s: u32::MAX });
    }
}
