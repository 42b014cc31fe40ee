//! Admission that adapts to how the servers fare: additive increase, multiplicative decrease.

use crate::Timestamp;
use crate::ids::InstanceId;
use chrono::TimeDelta;
use chrono::serde::ts_microseconds;
use serde::{Deserialize, Serialize};

/// How an instance fared in about the last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub p99_ms: u32,
    /// Answers that were the server's fault, in thousandths.
    pub errors_permille: u16,
    pub samples: u32,
}

/// How long a report counts.
pub const REPORT_KEPT_S: i64 = 3;
/// Beyond this share of failed answers, in thousandths, the servers fare badly whatever their p99.
pub const ERRORS_MAX_PERMILLE: u16 = 10;
/// A second's rate falls to this share of itself, at most once a second.
const DECREASE: f64 = 0.5;
/// And rises by this share of the rate at which it began to fall.
const INCREASE: f64 = 0.05;
/// The lowest rate, per second: whoever waits still moves.
const RATE_MIN: f64 = 1.0;

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
    /// The rate at which it began.
    began: f64,
    #[serde(with = "ts_microseconds")]
    changed_at: Timestamp,
    /// What may be promoted now, and since when it was counted.
    budget: f64,
    #[serde(with = "ts_microseconds")]
    counted_at: Timestamp,
}

impl Adaptive {
    /// `measured_per_s`: the rate of promotions as it is.
    pub fn observe(&mut self, instance: InstanceId, health: Health, target_p99_ms: u32, measured_per_s: f64, now: Timestamp) {
        self.reports.retain(|report| report.instance != instance && now - report.at <= TimeDelta::seconds(REPORT_KEPT_S));
        self.reports.push(Report { instance, at: now, health });
        let is_bad =
            |health: &Health| health.samples > 0 && (health.p99_ms > target_p99_ms || health.errors_permille > ERRORS_MAX_PERMILLE);
        let bad = self.reports.iter().any(|report| is_bad(&report.health));
        match &mut self.limit {
            None if bad => {
                let began = measured_per_s.max(RATE_MIN);
                let rate = (began * DECREASE).max(RATE_MIN);
                self.limit = Some(Limit { rate, began, changed_at: now, budget: 0.0, counted_at: now });
            }
            Some(limit) if now - limit.changed_at >= TimeDelta::seconds(1) => {
                limit.fill(now);
                limit.changed_at = now;
                limit.rate = if bad { (limit.rate * DECREASE).max(RATE_MIN) } else { limit.rate + limit.began * INCREASE };
                if limit.rate > 2.0 * limit.began {
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
        }
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

impl Limit {
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
