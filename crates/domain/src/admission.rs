//! How many may go from waiting to active, and when: at most N active, and at most N in any interval, together.

use crate::Timestamp;
use crate::fault::Fault;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The most entries that may be active at once.
pub const MAX_ACTIVE_MAX: u32 = 1_000_000;
/// The longest interval of a rate, seconds.
pub const INTERVAL_S_MAX: u32 = 3_600;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionMode {
    #[default]
    Running,
    /// Joining goes on, promotion stops.
    Paused,
    /// No new entry may join; waiting entries are still admitted.
    Draining,
}

/// At most `count` promotions in every window of `seconds`, wherever it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerInterval {
    pub count: u32,
    pub seconds: u32,
}

/// How one concert admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub mode: AdmissionMode,
    /// With `auto` the bound of what is found.
    pub max_active: u32,
    pub per_interval: Option<PerInterval>,
    /// How many may be active is found from the seats left, the length of a turn and what the servers bear.
    pub auto: bool,
    /// The rate falls while the servers are overloaded, and rises slowly afterwards.
    pub adaptive: bool,
}

impl Admission {
    /// Whether it depends on the health of the servers: then every instance reports it.
    pub fn heeds_health(&self) -> bool {
        self.adaptive || self.auto
    }

    /// What is wrong with it, field by field.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |field: &str, value: u32, max: u32| {
            if !(1..=max).contains(&value) {
                faults.push(Fault { field: field.to_owned(), reason: format!("must be from 1 to {max}") });
            }
        };
        check("max_active", self.max_active, MAX_ACTIVE_MAX);
        if let Some(per_interval) = self.per_interval {
            check("per_interval.count", per_interval.count, MAX_ACTIVE_MAX);
            check("per_interval.seconds", per_interval.seconds, INTERVAL_S_MAX);
        }
        faults
    }
}

/// The promotions of the recent past, for the rate limit and for measuring the rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    promotions: VecDeque<(Timestamp, u32)>,
}

impl Pace {
    pub fn record(&mut self, at: Timestamp, count: u32) {
        if count == 0 {
            return;
        }
        match self.promotions.back_mut() {
            Some((last, sum)) if *last == at => *sum += count,
            _ => self.promotions.push_back((at, count)),
        }
    }

    /// Drops what neither the longest interval nor the measured rate needs any more.
    pub fn forget_before(&mut self, instant: Timestamp) {
        while self.promotions.front().is_some_and(|(at, _)| *at < instant) {
            self.promotions.pop_front();
        }
    }

    /// The clock was set back by so much: what lies in the past is as long ago as it was.
    pub fn move_back(&mut self, by: TimeDelta) {
        self.promotions.iter_mut().for_each(|(at, _)| *at -= by);
    }

    /// How many were promoted after `now - window`, that instant itself excluded.
    pub fn within(&self, now: Timestamp, window: TimeDelta) -> u32 {
        let from = now - window;
        self.promotions.iter().rev().take_while(|(at, _)| *at > from).map(|(_, count)| *count).fold(0, u32::saturating_add)
    }

    /// How many may be promoted now without any window of the interval's length exceeding its count.
    pub fn allowance(&self, now: Timestamp, limit: Option<PerInterval>) -> u32 {
        limit.map_or(u32::MAX, |limit| limit.count.saturating_sub(self.within(now, TimeDelta::seconds(i64::from(limit.seconds)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    #[test]
    fn admission_names_the_faulty_field() {
        let good = Admission {
            mode: AdmissionMode::Running,
            max_active: 1,
            per_interval: Some(PerInterval { count: 1, seconds: 1 }),
            auto: false,
            adaptive: false,
        };
        let fields = |admission: Admission| admission.faults().into_iter().map(|fault| fault.field).collect::<Vec<_>>();
        assert!(fields(good).is_empty());
        assert_eq!(fields(Admission { max_active: 0, ..good }), ["max_active"]);
        assert_eq!(fields(Admission { max_active: MAX_ACTIVE_MAX + 1, ..good }), ["max_active"]);
        assert_eq!(fields(Admission { per_interval: Some(PerInterval { count: 0, seconds: 1 }), ..good }), ["per_interval.count"]);
        assert_eq!(fields(Admission { per_interval: Some(PerInterval { count: 1, seconds: 3_601 }), ..good }), ["per_interval.seconds"]);
    }

    #[test]
    fn rate_holds_for_every_window_not_per_clock_tick() {
        let limit = Some(PerInterval { count: 10, seconds: 1 });
        let mut pace = Pace::default();
        pace.record(at(900), 10);
        assert_eq!(pace.allowance(at(1_000), limit), 0, "a new second by the clock is not a new window");
        assert_eq!(pace.allowance(at(1_899), limit), 0);
        assert_eq!(pace.allowance(at(1_900), limit), 10);
        assert_eq!(pace.allowance(at(1_000), None), u32::MAX);
    }

    #[test]
    fn promotions_are_kept_by_instant_and_only_as_long_as_they_count() {
        let mut pace = Pace::default();
        for _ in 0..3 {
            pace.record(at(5), 2);
            pace.record(at(5), 0);
        }
        pace.record(at(6), 1);
        assert_eq!(pace.promotions, [(at(5), 6), (at(6), 1)]);
        pace.forget_before(at(5));
        assert_eq!(pace.promotions.len(), 2);
        pace.forget_before(at(6));
        assert_eq!(pace.promotions, [(at(6), 1)]);
    }

    proptest! {
        #[test]
        fn no_window_ever_exceeds_the_rate(count in 1u32..20, seconds in 1u32..5, steps in proptest::collection::vec((0i64..700, 0u32..30), 1..200)) {
            let limit = PerInterval { count, seconds };
            let (mut pace, mut now, mut all) = (Pace::default(), 0, Vec::new());
            for (step, wanted) in steps {
                now += step;
                let granted = wanted.min(pace.allowance(at(now), Some(limit)));
                pace.record(at(now), granted);
                all.push((now, granted));
                pace.forget_before(at(now - 3_600_000));
            }
            for &(start, _) in &all {
                let sum: u32 = all.iter().filter(|(t, _)| (start..start + i64::from(seconds) * 1_000).contains(t)).map(|(_, n)| n).sum();
                prop_assert!(sum <= count, "{sum} in the window from {start}");
            }
        }
    }
}
