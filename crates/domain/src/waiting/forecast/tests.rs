//! Ranges over lines that move as the test says; whole rooms are simulated elsewhere.

use super::*;
use chrono::{DateTime, TimeDelta};
use uuid::Uuid;

fn at(ms: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn entry(number: u128) -> QueueEntryId {
    QueueEntryId(Uuid::from_u128(number))
}

/// A line from whose front `rate` go every second, and which is always so long.
struct Line {
    forecast: Forecast,
    now_ms: i64,
    first: u128,
    waiting: u64,
}

impl Line {
    fn new(waiting: u64) -> Self {
        Self { forecast: Forecast::default(), now_ms: 0, first: 0, waiting }
    }

    fn second(&mut self, promoted: u32) {
        self.now_ms += 1_000;
        self.forecast.pass(at(self.now_ms), true, self.waiting);
        for _ in 0..promoted {
            self.forecast.promoted(entry(self.first));
            self.first += 1;
        }
        self.forecast.moved(Moved { lasting: 1.0, limit: None });
        for depth in self.forecast.wanted(self.waiting, None) {
            self.forecast.shown(entry(self.first + u128::from(depth)), depth, None);
        }
    }
}

#[test]
fn nothing_is_told_before_anything_was_measured() {
    let mut line = Line::new(100);
    assert_eq!(line.forecast.estimate(10, None), None);
    line.second(0);
    assert_eq!((line.forecast.estimate(10, None), line.forecast.calibration()), (None, None));
    line.second(5);
    assert!(line.forecast.estimate(10, None).is_some());
}

#[test]
fn steady_line_is_told_as_it_is() {
    let mut line = Line::new(10_000);
    (0..600).for_each(|_| line.second(5));
    let eta = line.forecast.estimate(599, None).unwrap();
    assert!(eta.contains(120.0) && (110..=130).contains(&eta.mid_s) && eta.high_s - eta.low_s < 30, "{eta:?}");
}

#[test]
fn leaving_ahead_shortens_the_wait() {
    let mut line = Line::new(1_000);
    for _ in 0..600 {
        line.forecast.left(entry(u128::MAX));
        line.second(5);
    }
    // One in a thousand leaves every second: ln(1 + 0.001 · 1,000/5)/0.001 instead of 200 s.
    let point = line.forecast.point(999, None).unwrap();
    assert!((point.seconds - 182.3).abs() < 2.0, "{point:?}");
    assert!((890.0..=930.0).contains(&line.forecast.turns_before(999, None)), "{}", line.forecast.turns_before(999, None));
}

#[test]
fn pause_neither_slows_the_rate_nor_makes_a_range_wrong() {
    let mut line = Line::new(10_000);
    (0..300).for_each(|_| line.second(5));
    let (before, judged) = (line.forecast.estimate(99, None).unwrap(), line.forecast.calibration().unwrap());
    line.now_ms += 3_600_000;
    line.forecast.pass(at(line.now_ms), false, line.waiting);
    assert_eq!(line.forecast.estimate(99, None), Some(before));
    (0..60).for_each(|_| line.second(5));
    let (right, of) = line.forecast.calibration().unwrap();
    assert!(of > judged.1 && right * of as f64 >= judged.0 * judged.1 as f64 + 0.6 * (of - judged.1) as f64, "{right} of {of}");
}

#[test]
fn who_leaves_is_not_judged_and_who_is_never_promoted_counts_as_missed() {
    let mut line = Line::new(10_000);
    (0..10).for_each(|_| line.second(10));
    let forecast = &mut line.forecast;
    (forecast.samples, forecast.judged, forecast.right) = (BTreeMap::new(), 0, 0);
    for horizon in &mut forecast.horizons {
        (horizon.under_way, horizon.next_us) = (0, 0);
    }
    forecast.shown(entry(u128::MAX), 100, None);
    forecast.shown(entry(u128::MAX - 1), 1_000, None);
    assert_eq!(forecast.samples.len(), 2);
    forecast.left(entry(u128::MAX));
    assert_eq!(forecast.samples.len(), 1);
    for _ in 0..400 {
        line.now_ms += 1_000;
        line.forecast.pass(at(line.now_ms), true, line.waiting);
        line.forecast.wanted(10_000, None);
    }
    assert_eq!((line.forecast.judged, line.forecast.right), (1, 0));
}

#[test]
fn it_is_bounded_and_comes_back_from_its_bytes() {
    let mut line = Line::new(100_000);
    for s in 0..2_000u32 {
        line.second(s % 7);
        for who in 0..20 {
            line.forecast.shown(entry(line.first + 50 * who), 50 * who as u64, None);
        }
    }
    assert!(line.forecast.samples.len() <= HORIZONS * SAMPLES_MAX as usize);
    let under_way: u32 = line.forecast.horizons.iter().map(|horizon| horizon.under_way).sum();
    assert_eq!(under_way as usize, line.forecast.samples.len());
    let bytes = postcard::to_stdvec(&line.forecast).unwrap();
    assert_eq!(postcard::from_bytes::<Forecast>(&bytes), Ok(line.forecast));
}

#[test]
fn chance_falls_with_those_ahead_and_is_certain_at_both_ends() {
    let mut turns = Turns::default();
    for turn in 0..1_000 {
        turns.ended(60.0, turn % 2 == 0, true);
    }
    turns.sold(1_000);
    assert_eq!(turns.seats_per_sale(), 2.0);
    let chances: Vec<_> = (0..400).map(|tens| chance(f64::from(tens) * 10.0, 1_000, &turns)).collect();
    assert!(chances.is_sorted_by(|one, next| one >= next));
    assert_eq!((chances[0], chances[399], chance(0.0, 0, &turns)), (1_000, 0, 0));
    // 500 sales are left, and one in two buys.
    assert!(
        chances[80] > 990 && chances[120] < 10 && (400..=600).contains(&chances[100]),
        "{} {} {}",
        chances[80],
        chances[100],
        chances[120]
    );
}

#[test]
fn auto_admits_as_many_as_there_are_seats_for_and_the_servers_bear() {
    let mut turns = Turns::default();
    for turn in 0..1_000 {
        turns.ended(60.0, turn % 2 == 0, turn % 10 != 0);
    }
    turns.sold(1_000);
    assert!(auto_max_active(1_000, 1e6, &turns).abs_diff(1_000) < 20, "500 sales, one in two buys");
    assert!(auto_max_active(1_000, 90.0, &turns).abs_diff(100) < 5, "one in ten does not come");
    assert_eq!((auto_max_active(0, 90.0, &turns), auto_max_active(u64::MAX, 1e300, &turns)), (1, crate::admission::MAX_ACTIVE_MAX));
}
