//! How long turns last, and so how many of them will have ended after what time: what the places of a full room are worth
//! to those who wait.
//!
//! A full room gives each place on when its turn ends. How many turns have ended so far says little of the rate to come
//! while the first round still goes on: the short ones end first. The ages of the turns that go on say the rest, so both
//! are used (survival analysis; a turn that goes on is censored).
//!
//! * *No-shows.* A turn that its buyer does not come for goes on to its end. Their share is known as soon as buyers have
//!   had time to come, long before the first such turn is over.
//! * *Short turns.* Their share is counted; programs take seconds where people take minutes, and no law covers both.
//! * *The others* have log-normal lengths, cut at the longest turn there may be. The belief about their median and spread
//!   is a posterior over a small grid that follows them. It begins with what an operator expects who chose the longest turn.
//! * A *life table* (a share that goes on beyond each age) follows what was seen where much was seen, and that law elsewhere.
//!
//! The table, the ages of the turns that go on, and the turns that will follow them (renewal theory) give the [`Curve`].
//!
//! What was seen fades: by when a turn began, not by when it ended, which would favour the long ones. It fades quickly when
//! turns end as they should not, as after the last program has had its turn.
//!
//! The state is bounded: [`COHORTS_MAX`] cohorts, [`BINS`] bins and a curve of [`STEPS`]. An input costs O(log n), the look
//! at all of it once a second a few thousand logarithms.

use super::Turn;
use crate::Timestamp;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Lengths are counted in bins of their logarithm. The first begins at nothing and ends with it; the last has no end.
const BINS: usize = 36;
const BIN: f64 = 0.25;
/// Turns shorter than this share of the longest are short.
const SHORT: f64 = 1.0 / 30.0;
/// The grid: so many medians by so many spreads. The first looks narrow it down, each later one follows.
const POINTS: usize = 6;
const LOOKS_AT_FIRST: usize = 4;
/// Before anything was seen: the median as a share of the longest turn, the spread of the logarithm, and how sure the
/// logarithms of both are.
const MEDIAN_SHARE: f64 = 0.2;
const MEDIAN_ERROR: f64 = 0.7;
const SPREAD: f64 = 0.6;
const SPREAD_ERROR: f64 = 0.4;
/// And of so many turns this share is one that nobody comes for.
const NO_SHOWS: f64 = 0.05;
const NO_SHOWS_TURNS: f64 = 20.0;
/// A buyer who has not come for so long does not come, seconds.
const COMES_WITHIN_S: f64 = 20.0;
/// In each bin of the life table the law counts as much as so many turns that were seen.
const LAW_TURNS: f64 = 10.0;
/// How fast turns will end is never known better than this, as a share.
const UNKNOWN: f64 = 0.02;
/// What was seen fades over so many mean lengths.
const FADES_LENGTHS: f64 = 4.0;
/// Or over so many seconds, while the turns that ended lately are more standard deviations than this from what was meant.
const SURPRISE_FADES_S: f64 = 10.0;
const SURPRISE: f64 = 4.0;
/// Of what was meant, this much more is no surprise.
const SURPRISE_SHARE: f64 = 0.1;
/// Lately, seconds.
const LATELY_S: f64 = 30.0;
/// The least time between two looks, microseconds.
const EVERY_US: i64 = 1_000_000;
/// How often what is believed is worked out anew within a mean length.
const BELIEFS_PER_LENGTH: f64 = 32.0;
/// The steps of a curve, and how many of them make up a mean length.
const STEPS: usize = 48;
const STEPS_PER_LENGTH: f64 = 8.0;
const STEP_MIN_S: f64 = 0.25;
/// Turns that began within this share of their age are one cohort.
const COHORT: f64 = 1.0 / 16.0;
/// The most cohorts: beyond it a turn joins the youngest.
const COHORTS_MAX: usize = 512;
/// Stands for a probability of zero.
const LEAST: f64 = 1e-12;

/// Turns that began at about the same time and go on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Cohort {
    from_us: i64,
    /// The sum, over all, of how much later each began.
    later_us: i64,
    /// [`Lengths::faded`] when the first began.
    faded: f64,
    seen: u32,
    unseen: u32,
    /// Whether those unseen are no-shows by now.
    is_late: bool,
}

/// See the module's opening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// In the order of their beginning.
    cohorts: VecDeque<Cohort>,
    /// Turns that were ended before their time, by length.
    ended: Vec<f64>,
    /// Turns that a buyer came for and that went on to their end.
    over: f64,
    came: f64,
    no_shows: f64,
    /// What was seen when this was less by one counts less by 1/e.
    faded: f64,
    /// Ended since the latest look.
    fresh: f64,
    /// Ended, and meant to have ended, lately.
    lately: (f64, f64),
    looked_us: i64,
    /// Middle and half width of the grid, for the logarithms of median and spread.
    grid: Option<[(f64, f64); 2]>,
    belief: Option<Belief>,
    curve: Option<Curve>,
    /// Whether a rate bounds promotion, so that a place that becomes free is not given on at once.
    pub(super) is_paced: bool,
}

/// How many turns will have ended after each step, those included that begin meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Curve {
    pub(super) step_s: f64,
    /// From 0, at the beginning of the first step.
    pub(super) ended: Vec<f64>,
    /// Beyond the last step, per second.
    pub(super) rate: f64,
    /// The standard deviation of the logarithm of how fast turns end.
    pub(super) deviation: f64,
}

/// What is believed of the turns to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Belief {
    at_us: i64,
    no_shows: f64,
    /// The share that goes on where each bin begins, of the turns that a buyer comes for.
    goes_on: Vec<f64>,
    /// The mean of all.
    length_s: f64,
    deviation: f64,
}

/// A log-normal law: logarithms of the median, and the spread.
#[derive(Clone, Copy)]
struct Law {
    median_ln: f64,
    spread: f64,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            cohorts: VecDeque::new(),
            ended: vec![0.0; BINS],
            over: 0.0,
            came: 0.0,
            no_shows: 0.0,
            faded: 0.0,
            fresh: 0.0,
            lately: (0.0, 0.0),
            looked_us: 0,
            grid: None,
            belief: None,
            curve: None,
            is_paced: false,
        }
    }
}

impl Cohort {
    fn count(&self) -> u32 {
        self.seen + self.unseen
    }

    fn age_s(&self, now_us: i64) -> f64 {
        let later_us = self.later_us / i64::from(self.count().max(1));
        (now_us - self.from_us - later_us).max(0) as f64 / 1e6
    }

    /// How many there are that a buyer came for, or may yet come for.
    fn attended(&self) -> u32 {
        if self.is_late { self.seen } else { self.count() }
    }
}

impl Lengths {
    /// `None` while no turn has ended, and where places are not what bounds promotion.
    pub(super) fn curve(&self) -> Option<&Curve> {
        self.curve.as_ref().filter(|_| !self.is_paced)
    }

    /// A turn began, now or earlier.
    pub(super) fn began(&mut self, turn: &Turn) {
        let at_us = turn.promoted_at.timestamp_micros();
        let after = self.cohorts.partition_point(|cohort| cohort.from_us <= at_us);
        let is_full = self.cohorts.len() >= COHORTS_MAX;
        let cohort = match after.checked_sub(1).and_then(|at| self.cohorts.get_mut(at)) {
            Some(cohort) if cohort.from_us == at_us || is_full => cohort,
            _ => {
                let new = Cohort { from_us: at_us, later_us: 0, faded: self.faded, seen: 0, unseen: 0, is_late: false };
                self.cohorts.insert(after, new);
                &mut self.cohorts[after]
            }
        };
        cohort.later_us += at_us - cohort.from_us;
        *(if turn.seen { &mut cohort.seen } else { &mut cohort.unseen }) += 1;
    }

    fn cohort(&mut self, turn: &Turn) -> Option<&mut Cohort> {
        let at_us = turn.promoted_at.timestamp_micros();
        let after = self.cohorts.partition_point(|cohort| cohort.from_us <= at_us);
        self.cohorts.get_mut(after.checked_sub(1)?)
    }

    /// A buyer came for this turn for the first time.
    pub(super) fn seen(&mut self, turn: &Turn) {
        let Some(cohort) = self.cohort(turn) else { return };
        let was_late = cohort.is_late && cohort.unseen > 0;
        cohort.unseen = cohort.unseen.saturating_sub(1);
        cohort.seen += 1;
        self.came += 1.0;
        if was_late {
            self.no_shows = (self.no_shows - 1.0).max(0.0);
        }
    }

    /// A turn ended, of its own accord or, as `is_over` says, because it was over.
    pub(super) fn ended(&mut self, turn: &Turn, length_s: f64, is_over: bool) {
        let faded = self.faded;
        let Some(cohort) = self.cohort(turn) else { return };
        let weight = (cohort.faded - faded).exp();
        cohort.later_us -= turn.promoted_at.timestamp_micros() - cohort.from_us;
        let of = if turn.seen { &mut cohort.seen } else { &mut cohort.unseen };
        *of = of.saturating_sub(1);
        self.fresh += 1.0;
        match (is_over, turn.seen) {
            (false, _) => self.ended[bin(length_s)] += weight,
            (true, true) => self.over += weight,
            // A no-show is counted when it is late, and its length is no news.
            (true, false) => {}
        }
    }

    pub(super) fn move_back(&mut self, by: TimeDelta) {
        let by_us = by.num_microseconds().unwrap_or(0);
        self.cohorts.iter_mut().for_each(|cohort| cohort.from_us -= by_us);
        self.looked_us -= by_us;
        if let Some(belief) = &mut self.belief {
            belief.at_us -= by_us;
        }
    }

    /// A tick is over: the curve is drawn anew when it is time to. `longest_s`: how long a turn may be.
    pub(super) fn look(&mut self, now: Timestamp, longest_s: f64) {
        let now_us = now.timestamp_micros();
        if now_us - self.looked_us < EVERY_US {
            return;
        }
        self.fade((now_us - self.looked_us) as f64 / 1e6);
        self.looked_us = now_us;
        self.gather(now_us);
        let is_any = self.over > 0.0 || self.ended.iter().any(|count| *count > 0.0);
        // Where a rate bounds promotion nobody asks for it.
        self.curve = if is_any && !self.is_paced && !self.cohorts.is_empty() {
            let believed_s = self.belief.as_ref().map(|belief| (now_us - belief.at_us) as f64 / 1e6 * BELIEFS_PER_LENGTH / belief.length_s);
            let belief = match self.belief.take().filter(|_| believed_s < Some(1.0)) {
                Some(belief) => belief,
                None => {
                    let ages = self.ages(now_us, |cohort| (cohort.faded - self.faded).exp());
                    self.believe(&ages, now_us, longest_s)
                }
            };
            let curve = self.draw(&belief, now_us, longest_s);
            self.belief = Some(belief);
            Some(curve)
        } else {
            None
        };
    }

    fn active(&self) -> f64 {
        self.cohorts.iter().map(|cohort| f64::from(cohort.count())).sum()
    }

    fn fade(&mut self, passed_s: f64) {
        let fresh = std::mem::take(&mut self.fresh);
        let Some(curve) = &self.curve else { return };
        let kept = (-passed_s / LATELY_S).exp();
        // After a longer pause there is nothing to compare with.
        let (fresh, meant) = if passed_s < LATELY_S { (fresh, curve.ended_after(passed_s)) } else { (0.0, 0.0) };
        self.lately = (self.lately.0 * kept + fresh, self.lately.1 * kept + meant);
        let (ended, meant) = self.lately;
        let is_surprise = (ended - meant).abs() > SURPRISE * ended.max(meant).max(1.0).sqrt() + SURPRISE_SHARE * meant;
        let length_s = self.active().max(1.0) / curve.rate.max(f64::MIN_POSITIVE);
        let fades = passed_s / (FADES_LENGTHS * length_s) + if is_surprise { passed_s / SURPRISE_FADES_S } else { 0.0 };
        self.faded += fades;
        let kept = (-fades).exp();
        for count in self.ended.iter_mut().chain([&mut self.over, &mut self.came, &mut self.no_shows]) {
            *count *= kept;
        }
    }

    /// Cohorts of about the same age become one, empty ones go, and those unseen become no-shows in time.
    fn gather(&mut self, now_us: i64) {
        let mut gathered: VecDeque<Cohort> = VecDeque::with_capacity(self.cohorts.len());
        for mut cohort in std::mem::take(&mut self.cohorts).into_iter().filter(|cohort| cohort.count() > 0) {
            let age_us = (now_us - cohort.from_us) as f64;
            if !cohort.is_late && age_us > COMES_WITHIN_S * 1e6 {
                cohort.is_late = true;
                self.no_shows += f64::from(cohort.unseen);
            }
            match gathered.back_mut() {
                Some(last) if last.is_late == cohort.is_late && ((cohort.from_us - last.from_us) as f64) < COHORT * age_us => {
                    last.later_us += cohort.later_us + (cohort.from_us - last.from_us) * i64::from(cohort.count());
                    last.seen += cohort.seen;
                    last.unseen += cohort.unseen;
                }
                _ => gathered.push_back(cohort),
            }
        }
        self.cohorts = gathered;
    }

    /// The turns that go on, without no-shows: for each bin that has any, how many and their mean age.
    fn ages(&self, now_us: i64, weight: impl Fn(&Cohort) -> f64) -> Vec<(f64, f64)> {
        let mut ages = vec![(0.0, 0.0); BINS];
        for cohort in self.cohorts.iter().filter(|cohort| cohort.attended() > 0) {
            let (age_s, count) = (cohort.age_s(now_us), f64::from(cohort.attended()) * weight(cohort));
            let (counts, sum_s) = &mut ages[bin(age_s)];
            *counts += count;
            *sum_s += count * age_s;
        }
        ages.into_iter().filter(|(counts, _)| *counts > 0.0).map(|(counts, sum_s)| (counts, sum_s / counts)).collect()
    }

    fn believe(&mut self, ages: &[(f64, f64)], at_us: i64, longest_s: f64) -> Belief {
        let turns = NO_SHOWS_TURNS + self.came + self.no_shows;
        let no_shows = (NO_SHOWS * NO_SHOWS_TURNS + self.no_shows) / turns;
        let mixed_s = |attended_s: f64| (1.0 - no_shows) * attended_s + no_shows * longest_s;
        // Of short turns the law has nothing to say: what was seen of them holds for every law.
        let short_s = edge_s(short(longest_s));
        let (table, at_risk) = self.table(Law::before(longest_s), ages);
        let (until_s, longer) = (mean_s(&table, short_s), table[short(longest_s)]);
        let mut grid = self.grid.unwrap_or_else(|| Law::anywhere(longest_s));
        let (mut law, mut deviation) = (Law::before(longest_s), 0.0);
        for _ in 0..if self.grid.is_some() { 1 } else { LOOKS_AT_FIRST } {
            let at = |of: usize, point: usize| grid[of].0 + grid[of].1 * ((2 * point + 1) as f64 / POINTS as f64 - 1.0);
            let laws = (0..POINTS * POINTS).map(|point| (at(0, point / POINTS), at(1, point % POINTS)));
            let points = laws.map(|(median_ln, spread_ln)| {
                let law = Law { median_ln, spread: spread_ln.exp() };
                let length_ln = mixed_s(until_s + longer * law.longer_s(longest_s)).ln();
                (self.likelihood_ln(law, ages, longest_s) + law.before_ln(longest_s), [median_ln, spread_ln, length_ln])
            });
            let [median_ln, spread_ln, length_ln] = means_and_errors(&points.collect::<Vec<_>>());
            (law, deviation) = (Law { median_ln: median_ln.0, spread: spread_ln.0.exp() }, length_ln.1);
            for (side, (mean, error)) in grid.iter_mut().zip([median_ln, spread_ln]) {
                // No narrower than two points: where the truth lies between them it must be found.
                *side = (mean, (3.0 * error).max(2.0 * side.1 / POINTS as f64));
            }
        }
        self.grid = Some(grid);
        let (goes_on, _) = self.table(law, ages);
        let attended_s = mean_s(&goes_on, longest_s);
        let length_s = mixed_s(attended_s);
        let of_no_shows = (no_shows * (1.0 - no_shows) / turns).sqrt() * (longest_s - attended_s) / length_s;
        let of_short = (longer * (1.0 - longer) / (at_risk[0] + LAW_TURNS)).sqrt() * law.longer_s(longest_s) / length_s;
        let errors = [deviation, of_no_shows, of_short, UNKNOWN];
        Belief { at_us, no_shows, goes_on, length_s, deviation: errors.iter().map(|error| error * error).sum::<f64>().sqrt() }
    }

    /// How likely this law makes what was seen of turns that are not short, as a logarithm.
    fn likelihood_ln(&self, law: Law, ages: &[(f64, f64)], longest_s: f64) -> f64 {
        let short = short(longest_s);
        let (mut sum, mut turns) = (0.0, 0.0);
        for (bin, count) in self.ended.iter().enumerate().skip(short).filter(|(_, count)| **count > 0.0) {
            sum += count * (law.goes_on(bin as f64 * BIN) - law.goes_on((bin + 1) as f64 * BIN)).max(LEAST).ln();
            turns += count;
        }
        let go_on = ages.iter().copied().chain([(self.over, longest_s)]);
        for (count, age_s) in go_on.filter(|(count, age_s)| *count > 0.0 && bin(*age_s) >= short) {
            sum += count * law.goes_on(age_s.ln()).max(LEAST).ln();
            turns += count;
        }
        sum - turns * law.goes_on(short as f64 * BIN).max(LEAST).ln()
    }

    /// The life table, and how many turns reached each bin. One that goes on within a bin is half a turn of it.
    fn table(&self, law: Law, ages: &[(f64, f64)]) -> (Vec<f64>, Vec<f64>) {
        let mut at_risk = vec![0.0; BINS];
        for (count, age_s) in ages {
            at_risk[..bin(*age_s)].iter_mut().for_each(|turns| *turns += count);
            at_risk[bin(*age_s)] += count / 2.0;
        }
        let mut longer = self.over;
        for bin in (0..BINS).rev() {
            longer += self.ended[bin];
            at_risk[bin] += longer;
        }
        let begins = |bin: usize| if bin == 0 { 1.0 } else { law.goes_on(bin as f64 * BIN).max(LEAST) };
        let mut table = vec![1.0; BINS + 1];
        for bin in 0..BINS {
            let by_law = 1.0 - begins(bin + 1) / begins(bin);
            table[bin + 1] = table[bin] * (1.0 - (self.ended[bin] + LAW_TURNS * by_law) / (at_risk[bin] + LAW_TURNS));
        }
        (table, at_risk)
    }

    fn draw(&self, belief: &Belief, now_us: i64, longest_s: f64) -> Curve {
        let step_s = (belief.length_s / STEPS_PER_LENGTH).max(STEP_MIN_S);
        let over = |s: f64| if s >= longest_s { 1.0 } else { 1.0 - goes_on_at(&belief.goes_on, s) };
        let mut ends = vec![0.0; STEPS + 1];
        for (count, age_s) in self.ages(now_us, |_| 1.0) {
            let go_on = (1.0 - over(age_s)).max(LEAST.sqrt());
            for (step, ends) in ends.iter_mut().enumerate().skip(1) {
                let until_s = age_s + step as f64 * step_s;
                *ends += count * (over(until_s) - over(until_s - step_s)) / go_on;
            }
        }
        for cohort in self.cohorts.iter().filter(|cohort| cohort.is_late) {
            let step = ((longest_s - cohort.age_s(now_us)).max(0.0) / step_s) as usize + 1;
            if let Some(ends) = ends.get_mut(step) {
                *ends += f64::from(cohort.unseen);
            }
        }
        // Turns that begin in the middle of a step: which share of them ends so many steps later.
        let all_over = |s: f64| (1.0 - belief.no_shows) * over(s) + if s >= longest_s { belief.no_shows } else { 0.0 };
        let middle = |step: usize| all_over((step as f64 + 0.5) * step_s);
        let shares: Vec<_> = (0..STEPS).map(|step| middle(step) - if step == 0 { 0.0 } else { middle(step - 1) }).collect();
        for step in 1..=STEPS {
            let follow: f64 = (1..step).map(|began| ends[began] * shares[step - began]).sum();
            ends[step] = (ends[step] + follow) / (1.0 - shares[0]);
        }
        let ended = ends.iter().scan(0.0, |sum, ends| {
            *sum += ends;
            Some(*sum)
        });
        Curve { step_s, ended: ended.collect(), rate: self.active() / belief.length_s, deviation: belief.deviation }
    }
}

impl Curve {
    fn ended_after(&self, seconds: f64) -> f64 {
        let at = seconds / self.step_s;
        let step = (at as usize).min(STEPS - 1);
        self.ended[step] + (at - step as f64) * (self.ended[step + 1] - self.ended[step])
    }
}

impl Law {
    fn before(longest_s: f64) -> Self {
        Self { median_ln: (MEDIAN_SHARE * longest_s).ln(), spread: SPREAD }
    }

    /// The grid to begin with: medians up to the longest turn.
    fn anywhere(longest_s: f64) -> [(f64, f64); 2] {
        let half = longest_s.max(2.0).ln() / 2.0;
        [(half, half), (SPREAD.ln(), 3.0 * SPREAD_ERROR)]
    }

    fn before_ln(self, longest_s: f64) -> f64 {
        let median = (self.median_ln - Self::before(longest_s).median_ln) / MEDIAN_ERROR;
        let spread = (self.spread / SPREAD).ln() / SPREAD_ERROR;
        -(median * median + spread * spread) / 2.0
    }

    /// The share that is longer than what this is the logarithm of.
    fn goes_on(self, ln_s: f64) -> f64 {
        normal((self.median_ln - ln_s) / self.spread)
    }

    /// The mean of lengths that are cut.
    fn mean_s(self, cut_s: f64) -> f64 {
        let Self { median_ln, spread } = self;
        let cut = (cut_s.ln() - median_ln) / spread;
        (median_ln + spread * spread / 2.0).exp() * normal(cut - spread) + cut_s * normal(-cut)
    }

    /// How much longer turns last that are not short, on the average.
    fn longer_s(self, longest_s: f64) -> f64 {
        let short = short(longest_s);
        let longer_s = self.mean_s(longest_s) - self.mean_s(edge_s(short));
        (longer_s / self.goes_on(short as f64 * BIN).max(LEAST.sqrt())).clamp(0.0, longest_s)
    }
}

/// Of three values at each point, with the logarithm of the point's weight: their means and standard deviations.
fn means_and_errors(points: &[(f64, [f64; 3])]) -> [(f64, f64); 3] {
    let most = points.iter().map(|(ln, _)| *ln).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<_> = points.iter().map(|(ln, _)| (ln - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    std::array::from_fn(|of| {
        let mean =
            |value: &dyn Fn(f64) -> f64| points.iter().zip(&weights).map(|((_, all), weight)| weight * value(all[of])).sum::<f64>() / sum;
        let middle = mean(&|value| value);
        (middle, mean(&|value| (value - middle) * (value - middle)).sqrt())
    })
}

fn bin(s: f64) -> usize {
    ((s.max(1.0).ln() / BIN) as usize).min(BINS - 1)
}

/// Where a bin begins.
fn edge_s(bin: usize) -> f64 {
    if bin == 0 { 0.0 } else { (bin as f64 * BIN).exp() }
}

/// The first bin of turns that are not short.
fn short(longest_s: f64) -> usize {
    bin(longest_s * SHORT)
}

/// By a life table; straight between its entries, over the logarithm.
fn goes_on_at(table: &[f64], s: f64) -> f64 {
    let bin = bin(s);
    let part = if bin == 0 { s.max(0.0) / edge_s(1) } else { (s.ln() / BIN - bin as f64).min(1.0) };
    table[bin] + part * (table[bin + 1] - table[bin])
}

/// The mean of lengths that are cut, by a life table.
fn mean_s(table: &[f64], cut_s: f64) -> f64 {
    let bins = (0..BINS).map(|bin| (edge_s(bin), edge_s(bin + 1).min(cut_s))).filter(|(from_s, to_s)| from_s < to_s);
    bins.map(|(from_s, to_s)| (to_s - from_s) * goes_on_at(table, (from_s + to_s) / 2.0)).sum()
}

/// The normal distribution, to about 2 in 10,000.
fn normal(z: f64) -> f64 {
    1.0 / (1.0 + (-z * (1.5976 + 0.070_56 * z * z)).exp())
}

#[cfg(test)]
mod tests;
