//! The health of this instance: how long its answers take, and how many of them fail, second by second.
//!
//! *Cost.* Noting an answer is two relaxed additions. Durations are counted in classes a quarter of a power of two
//! wide.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use boxoffice_domain::waiting::Health;

/// Classes for each doubling of the duration.
const CLASSES_PER_DOUBLING: u32 = 4;
/// From 0.25 ms to beyond a minute.
const CLASSES: usize = 76;
const FIRST_US: f64 = 250.0;

/// See the module's opening.
#[derive(Debug)]
pub struct ServerHealth {
    took: [AtomicU32; CLASSES],
    failed: AtomicU32,
}

impl Default for ServerHealth {
    fn default() -> Self {
        Self { took: [const { AtomicU32::new(0) }; CLASSES], failed: AtomicU32::new(0) }
    }
}

impl ServerHealth {
    /// Notes how long an answer took, and whether it failed for reasons of the server's own.
    pub fn answered(&self, took: Duration, failed: bool) {
        let doublings = (took.as_secs_f64() * 1e6 / FIRST_US).max(1.0).log2();
        // The last class takes all that are longer.
        let class = ((doublings * f64::from(CLASSES_PER_DOUBLING)).ceil() as usize).min(CLASSES - 1);
        self.took[class].fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was noted since the last time.
    pub fn take(&self) -> Health {
        let took: Vec<u32> = self.took.iter().map(|count| count.swap(0, Ordering::Relaxed)).collect();
        let failed = u64::from(self.failed.swap(0, Ordering::Relaxed));
        let samples: u64 = took.iter().map(|count| u64::from(*count)).sum();
        let mut slower = samples / 100;
        let slowest = took.iter().enumerate().rev().find(|(_, count)| {
            let count = u64::from(**count);
            let is_it = count > slower;
            slower = slower.saturating_sub(count);
            is_it
        });
        let p99_us = slowest.map_or(0.0, |(class, _)| FIRST_US * (class as f64 / f64::from(CLASSES_PER_DOUBLING)).exp2());
        Health {
            p99_ms: (p99_us / 1_000.0).ceil() as u32,
            errors_permille: (failed * 1_000).checked_div(samples).map_or(0, |share| share.min(1_000) as u16),
            samples: u32::try_from(samples).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundredth_slowest_decides() {
        let server_health = ServerHealth::default();
        assert_eq!(server_health.take(), Health { p99_ms: 0, errors_permille: 0, samples: 0 });
        for _ in 0..990 {
            server_health.answered(Duration::from_micros(100), false);
        }
        for at in 0..10 {
            server_health.answered(Duration::from_millis(700), at < 5);
        }
        let health = server_health.take();
        assert_eq!((health.samples, health.errors_permille, health.p99_ms), (1_000, 5, 1), "one in a hundred may be slow");
        for _ in 0..989 {
            server_health.answered(Duration::from_micros(100), false);
        }
        for _ in 0..11 {
            server_health.answered(Duration::from_millis(700), false);
        }
        let p99_ms = server_health.take().p99_ms;
        assert!((700..=850).contains(&p99_ms), "within a class: {p99_ms}");
        assert_eq!(server_health.take().samples, 0, "counted once");
    }

    #[test]
    fn the_longest_answer_is_counted_too() {
        let server_health = ServerHealth::default();
        server_health.answered(Duration::from_secs(86_400), true);
        let health = server_health.take();
        assert!(health.p99_ms >= 60_000 && health.errors_permille == 1_000, "{health:?}");
    }
}
