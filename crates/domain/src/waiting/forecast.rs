//! How long an entry will wait, how often the forecast ranges were right, and whether a seat will still be there.
//!
//! A line moves because entries are promoted from it and because others leave it. With promotions at rate r and each entry
//! leaving at rate h, `ahead` entries are gone after ln(1 + h·(ahead + 1)/r)/h seconds.
//!
//! In a full room r is how fast turns end, which [`super::lengths`] predicts from the first ones: a curve, of which every
//! lane has its share. Where a rate bounds promotion instead, or nothing has ended yet, r is measured. It is measured over
//! several memories at once, each of which forgets exponentially; the one used fits the time looked ahead.
//!
//! The range around that point is learnt, by online conformal prediction (I. Gibbs and E. Candès, 2021; A. Angelopoulos
//! and others, *Conformal PID Control*, 2023). For each horizon the 10th, 50th and 90th percentile of the error
//! ln(true wait / point) are tracked, in units of the error to be expected, which has three parts:
//!
//! * chance, as if turns ended and entries left at random;
//! * the error of r, which is the same for all that wait. So ranges have to be wide at first, and may be narrow later;
//! * the error of h: an entry far behind waits for others to leave.
//!
//! With x = h·(ahead + 1)/r an error of r counts by x/((1 + x)·ln(1 + x)) of itself, and one of h by the rest. A measured r is
//! as good as its m promotions: √(1/(ahead + 1) + 1/m).
//!
//! A horizon without samples, as the far ones in the first minutes, begins near the next nearer one. A sample outside its
//! percentile moves it outwards by nine parts, one inside moves it inwards by one. In the long run one in ten lies beyond
//! each end, for any distribution. A sample is judged with the percentiles as they are then, not as they were when it was
//! taken: many samples are under way at once, and must not all correct the same old error.
//!
//! Time counts only while promotion may go on: a pause, a closed room or a sold-out one neither slow the rate nor make
//! a range wrong. An entry that leaves does not count. One that still waits long after its range counts against it.
//!
//! Promotion depends on nothing here: the logarithms of two machines may differ in the last bit.

use super::lengths::Curve;
use super::turns::Turns;
use crate::{Eta, QueueEntryId, Timestamp};
use chrono::TimeDelta;
use chrono::serde::ts_microseconds_option;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A memory of this length weighs what is that old by 1/e, seconds.
const MEMORIES_S: [f64; 6] = [8.0, 32.0, 128.0, 512.0, 2_048.0, 8_192.0];
/// Leaving is measured over this one.
const LEAVING: usize = 3;
/// What is believed before any entry has left: as if so many had, each after so many seconds on the average.
const LEFT_BEFORE: f64 = 0.5;
const PATIENCE_S: f64 = 3_600.0;
/// A rate of nothing, per second: what is divided by.
const RATE_MIN: f64 = 1e-9;
/// A memory with less in it than this gives way to a longer one.
const PROMOTIONS_MIN: f64 = 24.0;
/// A rate of so many an interval comes in steps; a memory spans at least so many of them.
const INTERVALS_MIN: f64 = 4.0;
/// Where one horizon ends and the next begins, seconds.
const HORIZONS_S: [f64; 6] = [4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0];
const HORIZONS: usize = HORIZONS_S.len() + 1;
/// The most ranges of one horizon that wait for the truth; beyond it none is taken.
const SAMPLES_MAX: u32 = 64;
/// Ranges of one horizon are taken at least so far apart, seconds, and more seldom the longer they last.
const SAMPLES_APART_S: f64 = 0.5;
/// An entry that has waited for so many times the upper end of its range was missed by it.
const LATE: f64 = 1.5;
/// How fast percentiles move, as a share of their distance; the first samples move them faster, the n-th by n to the power
/// [`SETTLING`]. Many samples err together, so faster ones would follow the error of the day and miss that of the next.
const LEARNING: f64 = 0.03;
const LEARNING_AT_FIRST: f64 = 0.3;
const SETTLING: f64 = 0.7;
/// How far a horizon of which nothing has come yet begins on the way to the next nearer one.
const INHERITED: f64 = 0.8;
/// The least distance of the outer percentiles, so that they can grow again.
const SPREAD_MIN: f64 = 0.1;
/// The furthest that a percentile goes from the point, in units of the error that is to be expected.
const ERROR_MAX: f64 = 20.0;
/// What the steps of ticks, or of a rate, add to that error: their standard deviation in units of the step.
const STEPPED: f64 = 0.3;
/// And the drift of the rate: looking as far ahead as was looked back, or further.
const DRIFT: f64 = 0.06;
/// The least step, of ticks.
const STEP_S: f64 = 0.25;
/// Added to waits before they are compared, seconds: a quarter of a second against half of one is no error of 100 %.
const OFFSET_S: f64 = 0.5;
/// How often places are sampled, microseconds.
const SAMPLED_EVERY_US: u64 = 1_000_000;

/// What one lane has measured and forecast, and what came of it. Bounded: at most [`SAMPLES_MAX`] entries a horizon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// How long promotion could go on, ever.
    ran_us: u64,
    #[serde(with = "ts_microseconds_option")]
    at: Option<Timestamp>,
    /// Up to where `ran_us` is in the memories.
    measured_us: u64,
    sampled_us: u64,
    memories: [Memory; MEMORIES_S.len()],
    promoted: u32,
    left: u32,
    /// What the policies allow the lane at most, per second, and in steps of how many seconds.
    limit: Option<(f64, f64)>,
    horizons: [Horizon; HORIZONS],
    samples: BTreeMap<QueueEntryId, Sample>,
    right: u64,
    judged: u64,
}

/// Sums that forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    promoted: f64,
    seconds: f64,
    left: f64,
    /// People times seconds waited.
    waited: f64,
}

impl Memory {
    fn rate(&self) -> f64 {
        self.promoted / self.seconds.max(OFFSET_S)
    }
}

/// Percentiles of the error, see the module's opening.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Horizon {
    low: f64,
    mid: f64,
    high: f64,
    judged: u32,
    /// Samples under way.
    under_way: u32,
    next_us: u64,
}

impl Default for Horizon {
    /// As for promotions at random, until something was seen.
    fn default() -> Self {
        Self { low: -1.25, mid: 0.0, high: 1.25, judged: 0, under_way: 0, next_us: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    shown_us: u64,
    point: Point,
    eta: Eta,
}

/// An estimate before anything was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    seconds: f64,
    /// The standard deviation to be expected of the logarithm.
    deviation: f64,
}

/// Promotions per second, from so many within so many seconds.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rate: f64,
    promoted: f64,
    seen_s: f64,
}

/// When an entry's turn comes, and how many of the lane have had theirs by then.
struct Reached {
    point: Point,
    turns: f64,
}

/// The turns whose places go to one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    pub(super) curve: &'a Curve,
    /// Of all that end.
    pub(super) share: f64,
}

/// What a tick did to one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    /// The share of its promotions that was no filling of free places.
    pub(super) lasting: f64,
    /// What the policies allow it at most, per second, and in steps of how many seconds.
    pub(super) limit: Option<(f64, f64)>,
}

impl Forecast {
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// Time passes: `ran` says whether promotion could go on meanwhile, `waiting` how many waited. In the first seconds of
    /// a flash sale it matters that no entry counts for the time before it joined.
    pub(super) fn pass(&mut self, now: Timestamp, ran: bool, waiting: u64) {
        if let Some(at) = self.at.filter(|_| ran) {
            let passed_us = (now - at).num_microseconds().map_or(0, |us| us.max(0) as u64);
            self.ran_us += passed_us;
            let waited = passed_us as f64 / 1e6 * waiting as f64;
            self.memories.iter_mut().for_each(|memory| memory.waited += waited);
        }
        self.at = Some(now);
    }

    pub(super) fn move_back(&mut self, by: TimeDelta) {
        self.at = self.at.map(|at| at - by);
    }

    /// A tick's promotions are over.
    pub(super) fn moved(&mut self, moved: Moved) {
        let seconds = (self.ran_us - self.measured_us) as f64 / 1e6;
        self.measured_us = self.ran_us;
        let (promoted, left) = (f64::from(self.promoted) * moved.lasting, f64::from(self.left));
        (self.promoted, self.left) = (0, 0);
        self.limit = moved.limit;
        for (memory, length_s) in self.memories.iter_mut().zip(MEMORIES_S) {
            let kept = (-seconds / length_s).exp();
            let fresh = length_s * (1.0 - kept);
            memory.promoted = memory.promoted * kept + promoted;
            memory.seconds = memory.seconds * kept + fresh;
            memory.left = memory.left * kept + left;
            memory.waited *= kept;
        }
    }

    /// For looking as far ahead as that many entries take; `None` while nothing was measured.
    fn rate(&self, ahead: u64) -> Option<Measured> {
        let (most, step_s) = self.limit.unwrap_or((f64::INFINITY, 0.0));
        let last = self.memories.last().filter(|memory| memory.promoted > 0.0)?;
        let about_s = (ahead as f64 + 1.0) / last.rate().min(most);
        let fits = |(memory, length_s): &(&Memory, f64)| {
            *length_s >= (about_s / 2.0).min(MEMORIES_S[4]).max(step_s * INTERVALS_MIN) && memory.promoted >= PROMOTIONS_MIN
        };
        let memory = self.memories.iter().zip(MEMORIES_S).find(fits).map_or(last, |(memory, _)| memory);
        Some(Measured { rate: memory.rate().min(most), promoted: memory.promoted, seen_s: memory.seconds })
    }

    /// At which rate waiting entries leave, per second.
    fn leaving(&self) -> f64 {
        let Memory { left, waited, .. } = self.memories[LEAVING];
        if waited > 0.0 { left / waited } else { 0.0 }
    }

    fn point(&self, ahead: u64, ends: Option<&Ends<'_>>) -> Option<Point> {
        Some(self.reached(ahead, ends)?.point)
    }

    fn reached(&self, ahead: u64, ends: Option<&Ends<'_>>) -> Option<Reached> {
        ends.map(|ends| self.reached_by_ends(ahead, ends)).or_else(|| self.reached_by_rate(ahead))
    }

    fn reached_by_rate(&self, ahead: u64) -> Option<Reached> {
        let (turns, Measured { rate, promoted, seen_s }, leaving) = (ahead as f64 + 1.0, self.rate(ahead)?, self.leaving());
        let rate = rate.max(f64::MIN_POSITIVE);
        // For small x ln(1 + x) is x, and the division by a rate of zero is avoided.
        let share = leaving * turns / rate;
        let seconds = if share < 1e-6 { turns / rate } else { share.ln_1p() / leaving };
        let step_s = self.limit.map_or(0.0, |(_, step_s)| step_s).max(STEP_S);
        let stepped = STEPPED * step_s / (seconds + OFFSET_S);
        let drift = DRIFT * seconds / (seconds + seen_s);
        let deviation = (1.0 / turns + 1.0 / promoted.max(1.0) + stepped * stepped + drift * drift).sqrt();
        Some(Reached { point: Point { seconds, deviation }, turns: rate * seconds })
    }

    /// As turns end, and as entries leave. At most as many sums as the curve has steps.
    fn reached_by_ends(&self, ahead: u64, ends: &Ends<'_>) -> Reached {
        let goal = ahead as f64 + 1.0;
        let (leaving, leaving_error) = self.leaving_believed();
        let (most, _) = self.limit.unwrap_or((f64::INFINITY, 0.0));
        let step_s = ends.curve.step_s;
        let growth = (leaving * step_s).exp();
        let rates = ends.curve.ended.windows(2).map(|pair| (pair[1] - pair[0]) / step_s);
        let rates = rates.map(|rate| (rate * ends.share).min(most));
        // An entry that is promoted then stands for so many that wait now: the others among them have left.
        let (mut gone, mut turns, mut worth, mut seconds) = (0.0, 0.0, growth.sqrt(), 0.0);
        let mut rate = (ends.curve.rate * ends.share).min(most);
        for at_step in rates {
            if gone + at_step * step_s * worth >= goal {
                rate = at_step;
                break;
            }
            gone += at_step * step_s * worth;
            turns += at_step * step_s;
            worth *= growth;
            seconds += step_s;
        }
        // From there on the rate stays.
        let rate = rate.max(RATE_MIN);
        let rest_s = (leaving * (goal - gone) / (leaving * seconds).exp() / rate).ln_1p() / leaving;
        (turns, seconds) = (turns + rate * rest_s, seconds + rest_s);
        // See the module's opening; 1 + x is e to the power of this.
        let about = leaving * seconds;
        let by_rate = -(-about).exp_m1() / about;
        let mean = (turns / seconds).max(RATE_MIN);
        let at_random = goal / (mean * (mean + leaving * goal)) / (seconds * seconds);
        let stepped = STEPPED * STEP_S / (seconds + OFFSET_S);
        let (of_rate, of_leaving) = (by_rate * ends.curve.deviation, (1.0 - by_rate) * leaving_error);
        let deviation = (at_random + stepped * stepped + of_rate * of_rate + of_leaving * of_leaving).sqrt();
        Reached { point: Point { seconds, deviation }, turns }
    }

    /// The same, never zero, and how well it is known: of its logarithm.
    fn leaving_believed(&self) -> (f64, f64) {
        let Memory { left, waited, .. } = self.memories[LEAVING];
        ((left + LEFT_BEFORE) / (waited + LEFT_BEFORE * PATIENCE_S), (left + LEFT_BEFORE).sqrt().recip())
    }

    /// How many of those ahead will have a turn: the others leave before.
    pub(super) fn turns_before(&self, ahead: u64, ends: Option<&Ends<'_>>) -> f64 {
        self.reached(ahead, ends).map_or(ahead as f64, |reached| (reached.turns - 1.0).clamp(0.0, ahead as f64))
    }

    /// How many of this lane will have a turn within `seconds`, in which `ahead` entries of another lane go.
    pub(super) fn turns_beside(&self, ends: Option<&Ends<'_>>, seconds: Option<f64>, ahead: u64) -> f64 {
        self.speed(ahead, ends).unwrap_or(0.0) * seconds.unwrap_or(0.0)
    }

    pub(super) fn seconds(&self, ahead: u64, ends: Option<&Ends<'_>>) -> Option<f64> {
        self.point(ahead, ends).map(|point| point.seconds)
    }

    /// Promotions per second in the long run.
    fn speed(&self, ahead: u64, ends: Option<&Ends<'_>>) -> Option<f64> {
        let most = self.limit.map_or(f64::INFINITY, |(rate, _)| rate);
        ends.map(|ends| (ends.curve.rate * ends.share).min(most)).or_else(|| self.rate(ahead).map(|measured| measured.rate))
    }

    /// Behind so many entries.
    pub(super) fn estimate(&self, ahead: u64, ends: Option<&Ends<'_>>) -> Option<Eta> {
        self.point(ahead, ends).map(|point| self.around(point))
    }

    /// Where a horizon's percentiles are: its own, or those of the next nearer one that has learnt anything.
    fn learnt(&self, at: usize) -> Horizon {
        let own = self.horizons[at];
        let nearer = self.horizons[1..at.max(1)].iter().rfind(|horizon| horizon.judged > 0);
        nearer.filter(|_| own.judged == 0).map_or(own, |Horizon { low, mid, high, .. }| Horizon {
            low: own.low + INHERITED * (low - own.low),
            mid: own.mid + INHERITED * (mid - own.mid),
            high: own.high + INHERITED * (high - own.high),
            ..own
        })
    }

    fn around(&self, point: Point) -> Eta {
        let at = horizon(point.seconds);
        let Horizon { low, mid, high, .. } = self.learnt(at);
        let seconds = |error: f64| ((point.seconds + OFFSET_S) * (error * point.deviation).exp() - OFFSET_S).max(0.0);
        let low = if at == 0 { 0.0 } else { seconds(low) };
        Eta::of_seconds(low, seconds(mid), seconds(high))
    }

    /// Which place in the line is to be sampled for each horizon now.
    pub(super) fn wanted(&mut self, waiting: u64, ends: Option<&Ends<'_>>) -> Vec<u64> {
        let due = self.ran_us >= self.sampled_us + SAMPLED_EVERY_US;
        let Some(rate) = self.speed(waiting, ends).filter(|_| due && waiting > 0) else { return Vec::new() };
        self.sampled_us = self.ran_us;
        self.give_up_the_late();
        // Spread evenly over each horizon, by the fractional parts of the golden ratio's multiples.
        let within = (self.ran_us / SAMPLED_EVERY_US) as f64 * 0.618_033_988_75 % 1.0;
        let leaving = self.leaving();
        let depth = |at: usize| {
            let from_s = if at == 0 { 0.0 } else { HORIZONS_S[at - 1] };
            let seconds = from_s + within * (HORIZONS_S.get(at).copied().unwrap_or(4.0 * from_s) - from_s);
            // The inverse of `point`.
            let turns = if leaving > 0.0 { (leaving * seconds).exp_m1() / leaving } else { seconds };
            (turns * rate) as u64
        };
        let open = |at: &usize| self.takes(*at);
        (0..HORIZONS).filter(open).map(depth).filter(|depth| *depth < waiting).collect()
    }

    fn takes(&self, at: usize) -> bool {
        self.horizons[at].under_way < SAMPLES_MAX && self.horizons[at].next_us <= self.ran_us
    }

    /// A range was shown, or could have been: it may be compared with what comes.
    pub(super) fn shown(&mut self, entry: QueueEntryId, ahead: u64, ends: Option<&Ends<'_>>) {
        let Some(point) = self.point(ahead, ends) else { return };
        let at = horizon(point.seconds);
        if !self.takes(at) || self.samples.contains_key(&entry) {
            return;
        }
        let apart_s = (2.0 * point.seconds / f64::from(SAMPLES_MAX)).max(SAMPLES_APART_S);
        self.horizons[at].under_way += 1;
        self.horizons[at].next_us = self.ran_us + (apart_s * 1e6) as u64;
        self.samples.insert(entry, Sample { shown_us: self.ran_us, point, eta: self.around(point) });
    }

    /// Its turn came.
    pub(super) fn promoted(&mut self, entry: QueueEntryId) {
        self.promoted += 1;
        if let Some(sample) = self.taken_out(entry) {
            self.judge(sample);
        }
    }

    /// It left: its range can be neither right nor wrong.
    pub(super) fn left(&mut self, entry: QueueEntryId) {
        self.left += 1;
        self.taken_out(entry);
    }

    fn taken_out(&mut self, entry: QueueEntryId) -> Option<Sample> {
        let sample = self.samples.remove(&entry)?;
        let horizon = &mut self.horizons[horizon(sample.point.seconds)];
        horizon.under_way = horizon.under_way.saturating_sub(1);
        Some(sample)
    }

    fn give_up_the_late(&mut self) {
        let waited_s = |sample: &Sample| (self.ran_us - sample.shown_us) as f64 / 1e6;
        let is_late = |sample: &Sample| waited_s(sample) > LATE * f64::from(sample.eta.high_s) + HORIZONS_S[0];
        let late: Vec<_> = self.samples.iter().filter(|(_, sample)| is_late(sample)).map(|(entry, _)| *entry).collect();
        for entry in late {
            if let Some(sample) = self.taken_out(entry) {
                self.judge(sample);
            }
        }
    }

    fn judge(&mut self, sample: Sample) {
        let true_s = (self.ran_us - sample.shown_us) as f64 / 1e6;
        self.judged += 1;
        self.right += u64::from(sample.eta.contains(true_s));
        let Point { seconds, deviation } = sample.point;
        let at = horizon(seconds);
        let error = ((true_s + OFFSET_S) / (seconds + OFFSET_S)).ln() / deviation;
        self.horizons[at] = self.learnt(at);
        self.horizons[at].learn(error, at == 0);
    }

    /// The share of ranges that were right, and how many were judged.
    pub fn calibration(&self) -> Option<(f64, u64)> {
        (self.judged > 0).then(|| (self.right as f64 / self.judged as f64, self.judged))
    }
}

impl Horizon {
    fn learn(&mut self, error: f64, from_zero: bool) {
        self.judged = self.judged.saturating_add(1);
        let speed = LEARNING.max(LEARNING_AT_FIRST / f64::from(self.judged).powf(SETTLING));
        let step = speed * (self.high - self.low).max(SPREAD_MIN);
        // Moves so that in balance a share of `below` lies below it.
        let towards = |at: f64, below: f64| at + step * if error > at { below } else { below - 1.0 };
        let high = towards(self.high, if from_zero { 0.8 } else { 0.9 });
        let low = towards(self.low, 0.1);
        self.mid = towards(self.mid, 0.5).clamp(-ERROR_MAX, ERROR_MAX);
        self.low = low.clamp(-ERROR_MAX, self.mid);
        self.high = high.clamp(self.mid, ERROR_MAX);
    }
}

fn horizon(point_s: f64) -> usize {
    HORIZONS_S.iter().take_while(|end_s| point_s >= **end_s).count()
}

/// How likely a seat is still to be had when an entry's turn comes, in thousandths: whether the sales of the turns that
/// begin and end before leave something. `turns` of them will have ended.
pub(super) fn chance(ended_before: f64, obtainable: u64, turns: &Turns) -> u16 {
    /// What is not known of how the next ones will buy, as a share of how many do.
    const UNSURE: f64 = 0.04;
    if obtainable == 0 {
        return 0;
    }
    // The last sale takes what is left; half a sale makes the curve fit the steps.
    let enough = (obtainable as f64 / turns.seats_per_sale()).ceil() - 0.5;
    let sales = ended_before * turns.conversion;
    let unsure = sales * UNSURE.hypot(turns.conversion_error());
    let deviation = (sales * (1.0 - turns.conversion) + unsure * unsure).sqrt().max(0.1);
    // The logistic curve is near enough to the normal one.
    let likely = 1.0 / (1.0 + (-1.702 * (enough - sales) / deviation).exp());
    (likely * 1_000.0).round().clamp(0.0, 1_000.0) as u16
}

/// How many may be active when that is to be found: enough buyers for the seats there are and as many more as do not
/// come, but no more than the servers can sustain.
pub(super) fn auto_max_active(obtainable: u64, bearable: f64, turns: &Turns) -> u32 {
    /// However few buy, and come: the first turns are no measure.
    const SHARE_MIN: f64 = 0.05;
    let buyers = obtainable as f64 / (turns.seats_per_sale() * turns.conversion.max(SHARE_MIN));
    let come = (1.0 - turns.no_shows).max(SHARE_MIN);
    // A no-show does not load the servers; and some of the turns without a sale are no-shows.
    buyers.min(bearable / come).ceil().clamp(1.0, f64::from(crate::admission::MAX_ACTIVE_MAX)) as u32
}

#[cfg(test)]
mod tests;
