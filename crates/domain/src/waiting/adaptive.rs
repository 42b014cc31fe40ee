//! Admission that adapts to the health of the servers: additive increase, multiplicative decrease (D.-M. Chiu and R. Jain,
//! 1989).
//!
//! The worst instance counts: a p99 beyond the target, or too many failed answers. The rate then falls
//! to a share of itself, and the level at which it fell is kept as the ceiling. It falls again only after
//! [`DECREASES_APART_S`]: active users go on working, so that less admission takes effect late, and falling at
//! every bad report would answer one overload many times. While all is well it rises by steps of the ceiling, faster below
//! it than beyond it, and only when it is used: a rate that is not used is no measure of what the servers can sustain. Once
//! nothing has been bad for [`CALM_S`] and the limit was not used, there is none any more.
//!
//! No entry starves: the rate never falls below [`RATE_MIN`]. Without reports it stays where it is. I4: it only ever
//! lowers what the other policies allow.
//!
//! How many may be active at once when that is to be found starts at [`ACTIVE_AT_FIRST`] and grows in the same way:
//! quickly until the servers are first overloaded, slowly once their limit is known, and only while it is used.
//!
//! All instances apply the same reports in the same order; there are only sums and products of floating-point numbers,
//! which are the same everywhere.

use crate::Timestamp;
use crate::ids::InstanceId;
use chrono::TimeDelta;
use chrono::serde::{ts_microseconds, ts_microseconds_option};
use serde::{Deserialize, Serialize};

/// The health of an instance in about the last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub p99_ms: u32,
    /// Answers that were the server's fault, in thousandths.
    pub errors_permille: u16,
    pub samples: u32,
}

/// How long a report counts.
pub const REPORT_KEPT_S: i64 = 3;
/// Beyond this share of failed answers, in thousandths, the servers count as overloaded at any p99.
pub const ERRORS_MAX_PERMILLE: u16 = 10;
/// How long after a fall of the rate nothing bad makes it fall again, seconds.
pub const DECREASES_APART_S: i64 = 5;
/// Without a limit in use and without anything bad for so long, there is no limit any more, seconds.
pub const CALM_S: i64 = 60;
/// The rate falls to this share of itself.
const DECREASE: f64 = 0.7;
/// And rises every second by this share of the ceiling, below it and beyond it.
const INCREASE: f64 = 0.02;
const INCREASE_BEYOND: f64 = 0.005;
/// What is used is at least this share of what is allowed.
const USED: f64 = 0.5;
/// The lowest rate, per second: waiting entries still move.
pub const RATE_MIN: f64 = 1.0;
/// How many may be active before it is known what the servers can sustain.
pub const ACTIVE_AT_FIRST: f64 = 200.0;
/// How many may be active grows every second by this share of itself until something is bad for the first time.
const GROWTH: f64 = 0.1;
/// The most instances whose reports are kept: beyond it the oldest report goes.
const REPORTS_MAX: usize = 256;

/// What the controller is at, to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdaptiveState {
    /// Promotions per second; `None` while it does not limit.
    pub rate_per_s: Option<f64>,
    /// The worst of what the instances reported last.
    pub p99_ms: Option<u32>,
    pub errors_permille: Option<u16>,
}

/// See the module's opening. Time comes from outside and never runs backwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Adaptive {
    reports: Vec<Report>,
    limit: Option<Limit>,
    borne: Borne,
}

/// How many active at once the servers bear, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Borne {
    active: f64,
    /// At how many it fell last.
    ceiling: Option<f64>,
    #[serde(with = "ts_microseconds_option")]
    fell_at: Option<Timestamp>,
    #[serde(with = "ts_microseconds_option")]
    rose_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    instance: InstanceId,
    #[serde(with = "ts_microseconds")]
    at: Timestamp,
    health: Health,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Limit {
    rate: f64,
    /// The rate at which it fell last.
    ceiling: f64,
    #[serde(with = "ts_microseconds")]
    fell_at: Timestamp,
    #[serde(with = "ts_microseconds")]
    rose_at: Timestamp,
    /// When it was used, or something was bad, last.
    #[serde(with = "ts_microseconds")]
    needed_at: Timestamp,
    /// Promoted since `rose_at`.
    used: u32,
    /// What may be promoted now, and since when it was counted.
    budget: f64,
    #[serde(with = "ts_microseconds")]
    counted_at: Timestamp,
}

impl Adaptive {
    /// `measured_per_s`: the rate of promotions as it is, and `active` whose turn it is.
    pub fn observe(&mut self, instance: InstanceId, health: Health, target_p99_ms: u32, measured_per_s: f64, active: u64, now: Timestamp) {
        self.reports.retain(|report| report.instance != instance && now - report.at <= TimeDelta::seconds(REPORT_KEPT_S));
        if self.reports.len() >= REPORTS_MAX {
            self.reports.remove(0);
        }
        self.reports.push(Report { instance, at: now, health });
        let is_bad = |health: &Health| health.p99_ms > target_p99_ms || health.errors_permille > ERRORS_MAX_PERMILLE;
        let telling = || self.reports.iter().map(|report| report.health).filter(|health| health.samples > 0);
        let (known, bad) = (telling().next().is_some(), telling().any(|health| is_bad(&health)));
        // Servers without requests can sustain those that are active.
        if bad {
            self.borne.fall(active, now)
        } else {
            self.borne.rise(active, now)
        }
        match &mut self.limit {
            None if bad => self.limit = Some(Limit::beginning_at(measured_per_s, now)),
            Some(limit) if bad => limit.fall(now),
            Some(limit) if known => {
                limit.rise(now);
                if now - limit.needed_at >= TimeDelta::seconds(CALM_S) {
                    self.limit = None;
                }
            }
            _ => {}
        }
    }

    /// How many may be promoted now; `None`: it does not limit.
    pub fn allowance(&self, now: Timestamp) -> Option<u32> {
        self.limit.as_ref().map(|limit| limit.filled(now) as u32)
    }

    pub fn admitted(&mut self, now: Timestamp, count: u32) {
        if let Some(limit) = &mut self.limit {
            limit.fill(now);
            limit.budget -= f64::from(count);
            limit.used = limit.used.saturating_add(count);
        }
    }

    pub(super) fn move_back(&mut self, by: TimeDelta) {
        let kept = self.reports.iter_mut().map(|report| &mut report.at);
        let borne = [&mut self.borne.fell_at, &mut self.borne.rose_at].into_iter().flatten();
        let limits = self.limit.iter_mut();
        let limits = limits.flat_map(|limit| [&mut limit.fell_at, &mut limit.rose_at, &mut limit.needed_at, &mut limit.counted_at]);
        kept.chain(borne).chain(limits).for_each(|at| *at -= by);
    }

    /// How many may be active at once as far as the servers go.
    pub fn bearable(&self) -> f64 {
        self.borne.active
    }

    pub fn state(&self, now: Timestamp) -> AdaptiveState {
        let fresh = self.reports.iter().filter(|report| now - report.at <= TimeDelta::seconds(REPORT_KEPT_S));
        let health = || fresh.clone().map(|report| report.health).filter(|health| health.samples > 0);
        AdaptiveState {
            rate_per_s: self.limit.as_ref().map(|limit| limit.rate),
            p99_ms: health().map(|health| health.p99_ms).max(),
            errors_permille: health().map(|health| health.errors_permille).max(),
        }
    }
}

impl Default for Borne {
    fn default() -> Self {
        Self { active: ACTIVE_AT_FIRST, ceiling: None, fell_at: None, rose_at: None }
    }
}

impl Borne {
    fn fall(&mut self, active: u64, now: Timestamp) {
        // As long as more are active than may be, the last fall has yet to show what it does.
        let is_draining = self.ceiling.is_some() && active as f64 > self.active;
        if is_draining || self.fell_at.is_some_and(|at| now - at < TimeDelta::seconds(DECREASES_APART_S)) {
            return;
        }
        // What was allowed and not used did no harm.
        let ceiling = self.active.min((active as f64).max(RATE_MIN));
        *self = Self { active: (ceiling * DECREASE).max(RATE_MIN), ceiling: Some(ceiling), fell_at: Some(now), rose_at: Some(now) };
    }

    fn rise(&mut self, active: u64, now: Timestamp) {
        let seconds = self.rose_at.map_or(1.0, |at| (now - at).as_seconds_f64());
        if seconds < 1.0 {
            return;
        }
        self.rose_at = Some(now);
        if active as f64 >= USED * self.active {
            let step = match self.ceiling {
                None => self.active * GROWTH,
                Some(ceiling) if self.active < ceiling => ceiling * INCREASE,
                Some(ceiling) => ceiling * INCREASE_BEYOND,
            };
            self.active = (self.active + step * seconds.min(REPORT_KEPT_S as f64)).min(RATE_MAX);
        }
    }
}

impl Limit {
    fn beginning_at(measured_per_s: f64, now: Timestamp) -> Self {
        let ceiling = measured_per_s.max(RATE_MIN);
        let rate = (ceiling * DECREASE).max(RATE_MIN);
        Self { rate, ceiling, fell_at: now, rose_at: now, needed_at: now, used: 0, budget: 0.0, counted_at: now }
    }

    fn fall(&mut self, now: Timestamp) {
        self.needed_at = now;
        if now - self.fell_at < TimeDelta::seconds(DECREASES_APART_S) {
            return;
        }
        self.fill(now);
        // Several falls in a row answer one overload.
        if self.rose_at > self.fell_at {
            self.ceiling = self.rate;
        }
        self.rate = (self.rate * DECREASE).max(RATE_MIN);
        (self.fell_at, self.rose_at, self.used) = (now, now, 0);
    }

    fn rise(&mut self, now: Timestamp) {
        let passed = now - self.rose_at;
        if passed < TimeDelta::seconds(1) {
            return;
        }
        self.fill(now);
        let seconds = passed.as_seconds_f64();
        if f64::from(self.used) >= USED * self.rate * seconds {
            self.needed_at = now;
            let step = if self.rate < self.ceiling { INCREASE } else { INCREASE_BEYOND };
            // Reports that come seldom do not let it leap.
            self.rate = (self.rate + step * self.ceiling.max(RATE_MIN) * seconds.min(REPORT_KEPT_S as f64)).min(RATE_MAX);
        }
        (self.rose_at, self.used) = (now, 0);
    }

    /// At most a second's worth is saved up.
    fn filled(&self, now: Timestamp) -> f64 {
        let passed = (now - self.counted_at).num_microseconds().unwrap_or(0).max(0) as f64 / 1e6;
        (self.budget + passed * self.rate).min(self.rate.max(1.0))
    }

    fn fill(&mut self, now: Timestamp) {
        self.budget = self.filled(now);
        self.counted_at = now;
    }
}

/// The highest rate, per second: as many as may be active at all.
const RATE_MAX: f64 = crate::admission::MAX_ACTIVE_MAX as f64;

#[cfg(test)]
mod tests;
