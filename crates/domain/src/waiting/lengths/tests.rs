//! Places that are always taken, with turns whose lengths are known.

use super::curve::STEPS;
use super::*;
use chrono::DateTime;
use std::collections::BTreeMap;

const PLACES: u32 = 400;
const LONGEST_S: f64 = 600.0;

fn at(ms: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(1_000_000 + ms)
}

/// A full room: a turn that ends makes room for the next. `length_s` of the n-th turn; `None` is a no-show.
struct Full<F> {
    lengths: Lengths,
    length_s: F,
    began: u32,
    ends: BTreeMap<(i64, u32), Turn>,
    /// When it is seen that a buyer came.
    come: BTreeMap<(i64, u32), (i64, u32)>,
    ended: u32,
    now_ms: i64,
}

impl<F: Fn(u32) -> Option<f64>> Full<F> {
    fn new(length_s: F) -> Self {
        let mut full =
            Self { lengths: Lengths::default(), length_s, began: 0, ends: BTreeMap::new(), come: BTreeMap::new(), ended: 0, now_ms: 0 };
        (0..PLACES).for_each(|_| full.begin());
        full
    }

    fn begin(&mut self) {
        let turn = Turn { promoted_at: at(self.now_ms), until: at(self.now_ms + (LONGEST_S * 1e3) as i64), extended: 0, seen: false };
        let length_s = (self.length_s)(self.began);
        let end = (self.now_ms + (length_s.unwrap_or(LONGEST_S).min(LONGEST_S) * 1e3) as i64, self.began);
        if length_s.is_some() {
            self.come.insert((self.now_ms + 300, self.began), end);
        }
        self.lengths.began(&turn);
        self.ends.insert(end, turn);
        self.began += 1;
    }

    fn until(&mut self, s: i64) -> &mut Self {
        while self.now_ms < s * 1_000 {
            self.now_ms += 250;
            while let Some(entry) = self.come.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
                if let Some(turn) = self.ends.get_mut(&entry.remove()) {
                    self.lengths.seen(turn);
                    turn.seen = true;
                }
            }
            while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
                let turn = entry.remove();
                let length = at(self.now_ms).min(turn.until) - turn.promoted_at;
                self.lengths.ended(&turn, length.as_seconds_f64(), turn.until <= at(self.now_ms));
                self.ended += 1;
                self.begin();
            }
            self.lengths.look(at(self.now_ms), LONGEST_S);
        }
        self
    }

    fn length_s(&self) -> f64 {
        f64::from(PLACES) / self.lengths.curve().unwrap().rate
    }
}

/// Evenly spread over (0, 1), in no order.
fn spread(n: u32) -> f64 {
    (f64::from(n) + 0.5) * 0.618_033_988_75 % 1.0
}

/// Log-normal with this mean, where the last place in twenty is a no-show.
fn people(mean_s: f64) -> impl Fn(u32) -> Option<f64> {
    const SIGMA: f64 = 0.6;
    move |n| {
        // The logistic curve is near enough to the normal one, and has an inverse.
        let z = (spread(n) / (1.0 - spread(n))).ln() / 1.702;
        (n % 20 != 0).then(|| (mean_s.ln() - SIGMA * SIGMA / 2.0 + SIGMA * z).exp())
    }
}

#[test]
fn nothing_is_foreseen_before_a_turn_has_ended() {
    let mut full = Full::new(|_| Some(30.0));
    assert_eq!(full.until(29).lengths.curve(), None);
    assert!(full.until(32).lengths.curve().is_some());
}

#[test]
fn length_is_known_long_before_the_first_round_is_over() {
    for mean_s in [80.0, 120.0, 200.0] {
        let mut full = Full::new(people(mean_s));
        let true_s = 0.95 * mean_s + 0.05 * LONGEST_S;
        let early = full.until((mean_s * 0.6) as i64).length_s();
        let error = (early / true_s).ln();
        let deviation = full.lengths.curve().unwrap().deviation;
        // No no-show is over yet, and the mean of those that ended is far too short.
        assert!(error.abs() < 2.0 * deviation && deviation < 0.25, "{mean_s}: {early} of {true_s}, {deviation}");
        let late = full.until((mean_s * 6.0) as i64).length_s();
        let narrower = full.lengths.curve().unwrap().deviation;
        assert!((late / true_s).ln().abs() < 0.06 && narrower < deviation / 2.0, "{mean_s}: {late} of {true_s}, {narrower}");
    }
}

#[test]
fn turns_end_as_the_curve_predicts() {
    let mut full = Full::new(people(120.0));
    let curve = full.until(90).lengths.curve().unwrap().clone();
    let (from_s, before) = (full.now_ms / 1_000, full.ended);
    for step in [4, 16, 32, STEPS] {
        let in_s = step as f64 * curve.step_s;
        full.until(from_s + in_s as i64);
        let (meant, ended) = (curve.ended[step], f64::from(full.ended - before));
        assert!((ended / meant).ln().abs() < 0.12, "{ended} in {in_s} s and not {meant}");
    }
}

#[test]
fn programs_among_people_bend_no_law() {
    let person = people(120.0);
    let mut full = Full::new(move |n| if n % 10 < 3 { Some(5.0) } else { person(n) });
    let true_s = 0.3 * 5.0 + 0.7 * 120.0;
    let found = full.until(500).length_s();
    assert!((found / true_s).ln().abs() < 0.12, "{found} of {true_s}");
}

#[test]
fn what_ends_as_it_should_not_is_unlearnt() {
    // Three thousand programs, then people.
    let person = people(120.0);
    let mut full = Full::new(move |n| if n < 3_000 { Some(5.0) } else { person(n) });
    assert!(full.until(30).length_s() < 20.0);
    let found = full.until(420).length_s();
    assert!((100.0..=190.0).contains(&found), "{found}");
}

#[test]
fn no_turn_is_lost_and_the_state_is_bounded() {
    let mut full = Full::new(people(30.0));
    full.until(1_300);
    assert_eq!(full.lengths.active(), f64::from(PLACES));
    assert!(full.lengths.cohorts.len() < 200, "{}", full.lengths.cohorts.len());
    assert!(full.lengths.cohorts.iter().all(|cohort| cohort.later_us >= 0), "{:?}", full.lengths.cohorts);
    let bytes = postcard::to_allocvec(&full.lengths).unwrap();
    assert!(bytes.len() < 8_000, "{}", bytes.len());
    assert_eq!(postcard::from_bytes::<Lengths>(&bytes), Ok(full.lengths));
}
