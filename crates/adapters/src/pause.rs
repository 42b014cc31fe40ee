//! Pauses between attempts that fail: they double up to a bound, and are jittered.

use std::time::Duration;

/// Between half of `pause` and all of it, so that callers that failed together do not try again together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// The pause after the failure that follows `failures` others: `min` at first, twice as long each time, `max` at most.
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
pub(crate) fn doubled(min: Duration, max: Duration, failures: u32) -> Duration {
    min.saturating_mul(2_u32.saturating_pow(failures)).min(max)
}

#[cfg(all(test, any(feature = "rabbitmq", feature = "redis")))]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_double_up_to_a_bound() {
        let (min, max) = (Duration::from_millis(20), Duration::from_millis(500));
        let pauses: Vec<_> = (0..7).map(|failures| doubled(min, max, failures).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(doubled(min, max, u32::MAX), max);
    }
}
