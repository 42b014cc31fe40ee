//! How long turns last, and so how many of them will have ended after what time: how fast the places of a full room come
//! free for entries that wait.
//!
//! A full room gives each place on when its turn ends. How many turns have ended so far is a poor measure while the first
//! round still goes on: the short ones end first. So the ages of the turns that go on are used as well (survival analysis; a
//! turn that goes on is censored).
//!
//! * *No-shows.* A turn that its buyer does not come for goes on to its end. Their share is known as soon as buyers have
//!   had time to come, long before the first such turn is over.
//! * *Short turns.* Their share is counted; programs take seconds where people take minutes, and no law covers both.
//! * *The others* have log-normal lengths, cut at the longest turn there may be. The belief about their median and spread
//!   is a posterior over a small grid that follows them. It begins with what the configured longest turn suggests.
//! * A *life table* (a share that goes on beyond each age) follows what was seen where much was seen, and that law elsewhere.
//!
//! The table, the ages of the turns that go on, and the turns that will follow them (renewal theory) give the [`Curve`].
//!
//! What was seen fades: by when a turn began, not by when it ended, which would favour the long ones. It fades quickly when
//! turns end as they should not, as after the last program has had its turn.
//!
//! The state is bounded: [`COHORTS_MAX`] cohorts, [`BINS`] bins and a curve of a fixed number of steps. An input costs
//! O(log n), the look at all of it once a second a few thousand logarithms.

mod belief;
mod bins;
mod curve;
mod law;
#[cfg(test)]
mod tests;

pub(super) use curve::Curve;

use super::stage::Turn;
use crate::Timestamp;
use belief::{Belief, Observed};
use bins::{BINS, bin};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A buyer who has not come for so long does not come, seconds.
const COMES_WITHIN_S: f64 = 20.0;
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
/// Turns that began within this share of their age are one cohort.
const COHORT: f64 = 1.0 / 16.0;
/// The most cohorts: beyond it a turn joins the youngest.
const COHORTS_MAX: usize = 512;

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

    /// A turn ended: early, or, if `is_over`, because its time was over.
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
        // Where a rate bounds promotion it is not used.
        self.curve = if is_any && !self.is_paced && !self.cohorts.is_empty() {
            let believed_s = self.belief.as_ref().map(|belief| (now_us - belief.at_us) as f64 / 1e6 * BELIEFS_PER_LENGTH / belief.length_s);
            let belief = match self.belief.take().filter(|_| believed_s < Some(1.0)) {
                Some(belief) => belief,
                None => {
                    let ages = self.ages(now_us, |cohort| (cohort.faded - self.faded).exp());
                    let observed = Observed { ended: &self.ended, over: self.over, came: self.came, no_shows: self.no_shows, ages: &ages };
                    observed.believe(&mut self.grid, now_us, longest_s)
                }
            };
            let no_shows = self.cohorts.iter().filter(|cohort| cohort.is_late);
            let no_shows = no_shows.map(|cohort| (f64::from(cohort.unseen), cohort.age_s(now_us)));
            let curve = Curve::drawn(&belief, &self.ages(now_us, |_| 1.0), no_shows, self.active(), longest_s);
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
}
