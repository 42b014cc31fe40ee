//! The controller in front of servers that answer the slower the more people shop.

use super::*;
use chrono::DateTime;
use proptest::prelude::*;
use std::collections::VecDeque;
use uuid::Uuid;

const TARGET_MS: u32 = 500;
/// How long a buyer shops.
const TURN_S: usize = 30;
/// Without a limit so many are promoted in a quarter of a second.
const UNLIMITED: u32 = 100;

fn at(ms: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn instance(number: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(number))
}

fn health(p99_ms: u32, errors_permille: u16, samples: u32) -> Health {
    Health { p99_ms, errors_permille, samples }
}

/// Servers with a crowd that never ends: every free place is filled at once.
struct Servers {
    adaptive: Adaptive,
    now_ms: i64,
    /// Who began in each of the last seconds.
    shopping: VecDeque<u64>,
}

impl Servers {
    fn new() -> Self {
        Self { adaptive: Adaptive::default(), now_ms: 0, shopping: VecDeque::new() }
    }

    fn load(&self) -> u64 {
        self.shopping.iter().sum()
    }

    /// One second with this capacity, with the same report from both of two instances.
    fn second(&mut self, capacity: u64) {
        let mut this_second = 0;
        for _ in 0..4 {
            self.now_ms += 250;
            let most = self.adaptive.allowance(at(self.now_ms)).unwrap_or(UNLIMITED);
            self.adaptive.admitted(at(self.now_ms), most);
            this_second += u64::from(most);
        }
        self.shopping.push_back(this_second);
        if self.shopping.len() > TURN_S {
            self.shopping.pop_front();
        }
        let load = self.load() as f64 / capacity as f64;
        let p99_ms = if load < 1.0 { (50.0 / (1.0 - load)).min(10_000.0) } else { 10_000.0 };
        let rate = self.shopping.iter().sum::<u64>() as f64 / self.shopping.len() as f64;
        let active = self.load();
        for one in 1..=2 {
            self.adaptive.observe(instance(one), health(p99_ms as u32, 0, 100), TARGET_MS, rate, active, at(self.now_ms));
        }
    }

    fn mean_load(&mut self, seconds: u32, capacity: u64) -> f64 {
        let mut sum = 0;
        for _ in 0..seconds {
            self.second(capacity);
            sum += self.load();
        }
        sum as f64 / f64::from(seconds)
    }
}

#[test]
fn rate_settles_near_what_the_servers_bear() {
    let mut servers = Servers::new();
    servers.mean_load(300, 600);
    let mean = servers.mean_load(600, 600);
    assert!((0.6 * 600.0..=1.1 * 600.0).contains(&mean), "{mean} of 600");
}

#[test]
fn rate_follows_when_half_the_servers_go_and_come_back() {
    let mut servers = Servers::new();
    servers.mean_load(300, 600);
    servers.mean_load(200, 300);
    let half = servers.mean_load(300, 300);
    assert!((0.5 * 300.0..=1.2 * 300.0).contains(&half), "{half} of 300");
    servers.mean_load(300, 600);
    let whole = servers.mean_load(300, 600);
    assert!((0.6 * 600.0..=1.1 * 600.0).contains(&whole), "{whole} of 600");
}

#[test]
fn one_bad_report_lowers_the_rate_once() {
    let mut adaptive = Adaptive::default();
    adaptive.observe(instance(1), health(TARGET_MS, ERRORS_MAX_PERMILLE, 10), TARGET_MS, 100.0, 10, at(0));
    assert_eq!(adaptive.allowance(at(0)), None, "at the target nothing is bad");
    adaptive.observe(instance(1), health(1, ERRORS_MAX_PERMILLE + 1, 10), TARGET_MS, 100.0, 10, at(1_000));
    assert_eq!(adaptive.state(at(1_000)).rate_per_s, Some(70.0), "errors count without a slow answer");
    for s in 2..=4 {
        adaptive.observe(instance(2), health(1, 0, 10), TARGET_MS, 100.0, 10, at(s * 1_000));
    }
    assert_eq!(adaptive.state(at(4_000)).rate_per_s, Some(70.0), "the other instance's report still counts, and is no news");
    adaptive.observe(instance(2), health(TARGET_MS + 1, 0, 10), TARGET_MS, 70.0, 10, at(6_000));
    assert_eq!(adaptive.state(at(6_000)).rate_per_s, Some(49.0));
}

#[test]
fn worst_instance_counts_and_a_silent_one_is_forgotten() {
    let mut adaptive = Adaptive::default();
    adaptive.observe(instance(1), health(900, 3, 10), TARGET_MS, 10.0, 10, at(0));
    adaptive.observe(instance(2), health(20, 7, 10), TARGET_MS, 10.0, 10, at(0));
    let state = adaptive.state(at(0));
    assert_eq!((state.p99_ms, state.errors_permille), (Some(900), Some(7)));
    assert_eq!(adaptive.state(at(REPORT_KEPT_S * 1_000 + 1)).p99_ms, None);
    adaptive.observe(instance(3), health(9_000, 0, 0), TARGET_MS, 10.0, 10, at(1_000));
    assert_eq!(adaptive.state(at(1_000)).p99_ms, Some(900), "an instance without answers has no p99");
}

#[test]
fn limit_that_is_not_needed_goes_and_does_not_grow() {
    let mut adaptive = Adaptive::default();
    adaptive.observe(instance(1), health(900, 0, 10), TARGET_MS, 10.0, 10, at(0));
    for s in 1..CALM_S {
        adaptive.observe(instance(1), health(10, 0, 10), TARGET_MS, 0.0, 10, at(s * 1_000));
        assert_eq!(adaptive.state(at(s * 1_000)).rate_per_s, Some(7.0), "{s}");
    }
    adaptive.observe(instance(1), health(10, 0, 10), TARGET_MS, 0.0, 10, at(CALM_S * 1_000));
    assert_eq!(adaptive.state(at(CALM_S * 1_000)).rate_per_s, None);
}

#[test]
fn how_many_the_servers_bear_is_found() {
    const CAPACITY: f64 = 3_000.0;
    let mut adaptive = Adaptive::default();
    let mut active = 0.0f64;
    let mut sum = 0.0;
    for s in 1..=600 {
        // Places that are free are filled at once; one in thirty becomes free every second.
        active = (active * (1.0 - 1.0 / 30.0)).max(adaptive.bearable().min(10_000.0));
        let p99_ms = if active < CAPACITY { (50.0 / (1.0 - active / CAPACITY)).min(10_000.0) } else { 10_000.0 };
        adaptive.observe(instance(1), health(p99_ms as u32, 0, 100), TARGET_MS, 1.0, active as u64, at(s * 1_000));
        if s == 5 {
            assert!(active < 2.0 * ACTIVE_AT_FIRST, "it begins small: {active}");
        }
        sum += if s > 300 { active / 300.0 } else { 0.0 };
    }
    assert!((0.6 * CAPACITY..=1.1 * CAPACITY).contains(&sum), "{sum}");
}

#[test]
fn servers_that_are_asked_nothing_bear_those_who_are_active() {
    let mut adaptive = Adaptive::default();
    for s in 1..=20 {
        let active = adaptive.bearable() as u64;
        adaptive.observe(instance(1), health(0, 0, 0), TARGET_MS, 1.0, active, at(s * 1_000));
    }
    assert!(adaptive.bearable() > 4.0 * ACTIVE_AT_FIRST, "{}", adaptive.bearable());
    let unused = adaptive.bearable();
    adaptive.observe(instance(1), health(0, 0, 0), TARGET_MS, 1.0, 10, at(21_000));
    assert_eq!(adaptive.bearable(), unused, "places that are not used are no measure of the servers");
}

proptest! {
    #[test]
    fn no_entry_starves_and_no_second_sees_more_than_the_rate(reports in proptest::collection::vec((0u32..2_000, 0u16..30, 1u32..5, 0i64..3_000), 1..200)) {
        let mut adaptive = Adaptive::default();
        let mut now_ms = 0;
        let mut admitted: Vec<(i64, u32)> = Vec::new();
        let mut highest = 0.0f64;
        for (p99_ms, errors, one, passed_ms) in reports {
            adaptive.observe(instance(u128::from(one)), health(p99_ms, errors, 10), TARGET_MS, 20.0, 50, at(now_ms));
            now_ms += passed_ms;
            let Some(rate) = adaptive.state(at(now_ms)).rate_per_s else { continue };
            prop_assert!(rate >= RATE_MIN && rate.is_finite() && adaptive.bearable() >= RATE_MIN);
            highest = highest.max(rate);
            let most = adaptive.allowance(at(now_ms)).unwrap_or(0);
            if passed_ms >= 1_000 {
                prop_assert!(most >= 1, "a second without a promotion");
            }
            adaptive.admitted(at(now_ms), most);
            admitted.push((now_ms, most));
        }
        for &(from, _) in &admitted {
            let within: u32 = admitted.iter().filter(|(ms, _)| (from..from + 1_000).contains(ms)).map(|(_, count)| count).sum();
            // What a second saved up, and that second's.
            prop_assert!(f64::from(within) <= 2.0 * highest + 1.0, "{within} from {from}");
        }
    }
}
