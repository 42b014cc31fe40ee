//! Pauses between the tries of one caller.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::pause::jittered;

/// A pause that doubles up to a bound, jittered.
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, max }
    }

    /// Sleeps, never past `deadline`. `false`: it has passed already.
    pub(super) async fn pause(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(jittered(self.step()).min(left)).await;
        true
    }

    fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_their_bound_and_end_at_the_deadline() {
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(8));
        let mut backoff = Backoff::new(min, max);
        let steps: Vec<_> = (0..6).map(|_| backoff.step().as_millis()).collect();
        assert_eq!(steps, [1, 2, 4, 8, 8, 8]);
        let deadline = Instant::now() + Duration::from_millis(30);
        let mut pauses = 0;
        while backoff.pause(deadline).await {
            pauses += 1;
        }
        assert_eq!(Instant::now(), deadline);
        assert!((4..=8).contains(&pauses), "{pauses}");
    }
}
