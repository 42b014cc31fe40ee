//! How many commands may stand in the log unanswered, so that the last of them is still answered in time.
//!
//! As many may stand there as are answered in a third of `wait` at the measured rate. The rest of `wait` allows for
//! errors of the measure, and for shards that are slower than others. The bound is never less than a batch, or every
//! commit would carry less than it could, and never more than `backlog_max`.
//!
//! *Measure.* Answers a second over windows of an eighth of `wait`, idle time left out, smoothed over the last few. A
//! window in which there was always a batch left to take, or in which the bound was reached, shows the capacity: the
//! rate follows it up and down. A window with less shows the demand: the rate only follows it up. Windows before the
//! first answer show nothing: the readers may not have begun. Until something is measured, half of `backlog_max` may
//! stand there, and four batches at least: a crowd that comes at once to a fresh instance is let in.

use std::time::Duration;

use tokio::time::Instant;

/// How many batches may wait before anything was measured, at least.
const START_BATCHES: usize = 4;
/// The commands in the log may take one part in so many of the wait.
const WAIT_PARTS: u32 = 3;
/// The weight of the latest window against all those before.
const LATEST: f64 = 0.5;

#[derive(Clone, Copy, Debug)]
pub(super) struct PaceSettings {
    pub(super) batch_max: usize,
    pub(super) backlog_max: usize,
    pub(super) wait: Duration,
}

/// See the module's opening.
pub(super) struct Pace {
    settings: PaceSettings,
    /// Answers a second.
    rate: f64,
    measured: bool,
    window: Window,
    /// Until when the window is accounted for.
    seen: Instant,
}

#[derive(Clone, Copy)]
struct Window {
    busy: Duration,
    answers: usize,
    /// The fewest and the most that were outstanding at any time.
    least: usize,
    most: usize,
}

const EMPTY: Window = Window { busy: Duration::ZERO, answers: 0, least: usize::MAX, most: 0 };

impl Pace {
    pub(super) fn new(settings: PaceSettings, now: Instant) -> Self {
        let start = settings.batch_max.saturating_mul(START_BATCHES).max(settings.backlog_max / 2);
        let rate = start as f64 / (settings.wait / WAIT_PARTS).as_secs_f64().max(f64::MIN_POSITIVE);
        Self { settings, rate, measured: false, window: EMPTY, seen: now }
    }

    /// How many may be outstanding.
    pub(super) fn bound(&self) -> usize {
        let in_time = self.rate * (self.settings.wait / WAIT_PARTS).as_secs_f64();
        // A float beyond the range of integers becomes the largest.
        (in_time as usize).max(self.settings.batch_max).min(self.settings.backlog_max)
    }

    /// `outstanding` commands were outstanding since the last call, and `answers` of them were answered just now.
    pub(super) fn pass(&mut self, now: Instant, outstanding: usize, answers: usize) {
        let passed = now.saturating_duration_since(self.seen);
        self.seen = now;
        if outstanding > 0 {
            self.window.busy += passed;
        }
        self.window.answers += answers;
        self.window.least = self.window.least.min(outstanding.saturating_sub(answers));
        self.window.most = self.window.most.max(outstanding);
        if self.window.busy >= self.settings.wait / 8 {
            let window = std::mem::replace(&mut self.window, EMPTY);
            self.measure(window);
        }
    }

    fn measure(&mut self, window: Window) {
        self.measured |= window.answers > 0;
        let rate = window.answers as f64 / window.busy.as_secs_f64().max(f64::MIN_POSITIVE);
        let enough = window.least >= self.settings.batch_max || window.most >= self.bound();
        if rate > self.rate || self.measured && enough {
            self.rate += LATEST * (rate - self.rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: PaceSettings = PaceSettings { batch_max: 100, backlog_max: 8_000, wait: Duration::from_secs(3) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// `rounds` of 50 ms with `outstanding` commands, of which `answers` are answered at the end.
    async fn rounds(pace: &mut Pace, rounds: u32, outstanding: usize, answers: usize) {
        for _ in 0..rounds {
            tokio::time::advance(ms(50)).await;
            pace.pass(Instant::now(), outstanding, answers);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_is_what_a_third_of_the_wait_answers() {
        let mut pace = Pace::new(SETTINGS, Instant::now());
        assert_eq!(pace.bound(), 4_000, "half of all before anything is known");
        let few = Pace::new(PaceSettings { backlog_max: 500, ..SETTINGS }, Instant::now());
        assert_eq!(few.bound(), 400, "or four batches");
        // 50 in 50 ms: 1,000 a second.
        rounds(&mut pace, 200, 4_000, 50).await;
        assert!((950..=1_050).contains(&pace.bound()), "{}", pace.bound());
        rounds(&mut pace, 200, 500, 200).await;
        assert!((3_900..=4_100).contains(&pace.bound()), "it follows up: {}", pace.bound());
        rounds(&mut pace, 200, 4_000, 25).await;
        assert!((450..=550).contains(&pace.bound()), "and down: {}", pace.bound());
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_is_a_batch_at_least_and_backlog_max_at_most() {
        let mut pace = Pace::new(SETTINGS, Instant::now());
        rounds(&mut pace, 200, 4_000, 1).await;
        assert_eq!(pace.bound(), 100);
        rounds(&mut pace, 200, 8_000, 1_000).await;
        assert_eq!(pace.bound(), 8_000);
        let mut small = Pace::new(PaceSettings { backlog_max: 7, ..SETTINGS }, Instant::now());
        assert_eq!(small.bound(), 7);
        rounds(&mut small, 200, 7, 7).await;
        assert_eq!(small.bound(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_demand_does_not_lower_the_bound() {
        let mut pace = Pace::new(SETTINGS, Instant::now());
        rounds(&mut pace, 200, 4_000, 50).await;
        let bound = pace.bound();
        rounds(&mut pace, 200, 2, 1).await;
        assert_eq!(pace.bound(), bound, "ten a second were asked for and answered");
        rounds(&mut pace, 200, 0, 0).await;
        assert_eq!(pace.bound(), bound, "nothing was asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_measured_before_the_first_answer() {
        let mut pace = Pace::new(SETTINGS, Instant::now());
        rounds(&mut pace, 200, 4_000, 0).await;
        assert_eq!(pace.bound(), 4_000, "the readers may not have begun");
        rounds(&mut pace, 10, 4_000, 50).await;
        rounds(&mut pace, 200, 4_000, 0).await;
        assert_eq!(pace.bound(), 100, "they had, and have stopped");
    }
}
