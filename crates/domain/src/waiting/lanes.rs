//! The lines of one concert, and which of them sends the next entry. Each lane gets its share of the promotions while entries
//! wait in it, and leaves what it does not need to the others (stride scheduling: C. Waldspurger and W. Weihl, 1995).

use super::entry::Lane;
use super::forecast::{Ends, Forecast, Moved};
use super::input::LaneTerms;
use super::lengths::Curve;
use super::limits::RATE_WINDOW_S;
use crate::admission::Pace;
use crate::line::Line;
use crate::{QueueEntryId, Timestamp};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// Shares are of so many promotions.
pub const SHARES: u16 = 1_000;
/// The most lanes beside the general one.
pub const LANES_MAX: usize = 15;
/// A lane's pass grows by this, divided by its share, with each promotion.
const STRIDE: u64 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LaneState {
    pub(super) name: String,
    pub(super) share: u16,
    #[serde(skip)]
    pub(super) line: Line,
    /// Promotions, ever.
    pub(super) admitted: u64,
    pub(super) pace: Pace,
    pub(super) forecast: Forecast,
    pass: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lanes {
    all: Vec<LaneState>,
    /// The pass of the lane that was served last.
    passed: u64,
}

impl LaneState {
    fn new(name: String, pass: u64) -> Self {
        Self { name, share: 1, line: Line::default(), admitted: 0, pace: Pace::default(), forecast: Forecast::default(), pass }
    }
}

impl Lanes {
    pub(super) fn new(terms: &[LaneTerms]) -> Self {
        let mut lanes = Self { all: Vec::new(), passed: 0 };
        lanes.set(terms);
        lanes
    }

    /// Lanes are identified by their names, and never change their number, which entries and tokens name. A new lane is
    /// empty. A lane that is no longer named keeps its entries, with the smallest share, until it is empty and a new lane
    /// needs its number. Beyond [`LANES_MAX`] a new lane is not opened: its users go to the general one.
    pub(super) fn set(&mut self, terms: &[LaneTerms]) {
        let terms = &terms[..terms.len().min(LANES_MAX)];
        let named: u16 = terms.iter().fold(0, |sum, lane| sum.saturating_add(lane.share));
        if self.all.is_empty() {
            self.all.push(LaneState::new(String::new(), 0));
        }
        self.share(0, SHARES.saturating_sub(named));
        for at in 1..self.all.len() {
            if !terms.iter().any(|lane| lane.name == self.all[at].name) {
                self.share(at, 0);
            }
        }
        for lane in terms {
            if let Some(at) = self.named(&lane.name).or_else(|| self.open(&lane.name, terms)) {
                self.share(at, lane.share);
            }
        }
    }

    /// The number of the lane of that name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.all.iter().skip(1).position(|lane| lane.name == name).map(|at| at + 1)
    }

    fn open(&mut self, name: &str, terms: &[LaneTerms]) -> Option<usize> {
        let lane = LaneState::new(name.to_owned(), self.passed);
        if self.all.len() <= LANES_MAX {
            self.all.push(lane);
            return Some(self.all.len() - 1);
        }
        let is_free = |kept: &LaneState| kept.line.waiting() == 0 && !terms.iter().any(|lane| lane.name == kept.name);
        let at = self.all.iter().skip(1).position(is_free)? + 1;
        self.all[at] = lane;
        Some(at)
    }

    /// By how much a lane is ahead of the others counts by its new share.
    fn share(&mut self, at: usize, share: u16) {
        let (passed, lane) = (self.passed, &mut self.all[at]);
        lane.share = share.clamp(1, SHARES);
        lane.pass = lane.pass.min(passed + STRIDE / u64::from(lane.share));
    }

    /// As it is kept: the lines are found again from the entries.
    pub(super) fn without_lines(&self) -> Self {
        let all = self.all.iter().map(|lane| LaneState {
            name: lane.name.clone(),
            share: lane.share,
            line: Line::default(),
            admitted: lane.admitted,
            pace: lane.pace.clone(),
            forecast: lane.forecast.clone(),
            pass: lane.pass,
        });
        Self { all: all.collect(), passed: self.passed }
    }

    pub(super) fn all(&self) -> &[LaneState] {
        &self.all
    }

    /// The lane that a token or an input names; an unknown one is the general one.
    pub(super) fn known(&self, lane: Lane) -> Lane {
        if usize::from(lane.0) < self.all.len() { lane } else { Lane(0) }
    }

    pub(super) fn get(&self, lane: Lane) -> &LaneState {
        &self.all[usize::from(self.known(lane).0)]
    }

    pub(super) fn get_mut(&mut self, lane: Lane) -> &mut LaneState {
        let lane = self.known(lane);
        &mut self.all[usize::from(lane.0)]
    }

    pub(super) fn waiting(&self) -> u64 {
        self.all.iter().map(|lane| lane.line.waiting()).sum()
    }

    /// An entry waits at a place of this lane from now on.
    pub(super) fn occupy(&mut self, lane: Lane, place: u64) {
        let passed = self.passed;
        let lane = self.get_mut(lane);
        if lane.line.waiting() == 0 {
            // It saved nothing up while it was empty.
            lane.pass = lane.pass.max(passed);
        }
        lane.line.occupy(place);
    }

    pub(super) fn vacate(&mut self, lane: Lane, place: u64) {
        self.get_mut(lane).line.remove(place);
    }

    /// The lane and the place that go next.
    pub(super) fn next(&mut self) -> Option<(Lane, u64)> {
        let waiting = self.all.iter_mut().enumerate().filter(|(_, lane)| lane.line.waiting() > 0);
        let (at, lane) = waiting.min_by_key(|(at, lane)| (lane.pass, *at))?;
        self.passed = lane.pass;
        lane.pass += STRIDE / u64::from(lane.share);
        lane.line.first().map(|place| (Lane(at as u8), place))
    }

    pub(super) fn admitted(&mut self, lane: Lane, entry: QueueEntryId, now: Timestamp) {
        let lane = self.get_mut(lane);
        lane.admitted += 1;
        lane.pace.record(now, 1);
        lane.forecast.promoted(entry);
    }

    /// When time last passed.
    pub(super) fn passed_at(&self) -> Option<Timestamp> {
        self.all.first().and_then(|lane| lane.forecast.at())
    }

    pub(super) fn pass(&mut self, now: Timestamp, ran: bool) {
        self.all.iter_mut().for_each(|lane| lane.forecast.pass(now, ran, lane.line.waiting()));
    }

    /// What a lane gets of the places whose turns end.
    pub(super) fn ends<'a>(&self, lane: Lane, curve: Option<&'a Curve>) -> Option<Ends<'a>> {
        let lane = self.get(lane);
        let waits = |other: &&LaneState| other.line.waiting() > 0 || std::ptr::eq(*other, lane);
        let shares: u64 = self.all.iter().filter(waits).map(|lane| u64::from(lane.share)).sum();
        curve.map(|curve| Ends { curve, share: f64::from(lane.share) / shares as f64 })
    }

    /// A tick's promotions are over; `limit` of all lanes together, see [`Moved`]. Which lanes' places, counted from the
    /// first that waits, are to be sampled.
    pub(super) fn moved(&mut self, lasting: f64, limit: Option<(f64, f64)>, curve: Option<&Curve>) -> Vec<(Lane, u64)> {
        let waits = |lane: &&LaneState| lane.line.waiting() > 0;
        let shares: u64 = self.all.iter().filter(waits).map(|lane| u64::from(lane.share)).sum();
        let mut wanted = Vec::new();
        for (at, lane) in self.all.iter_mut().enumerate() {
            let waiting = lane.line.waiting();
            let share = if waiting == 0 { 1.0 } else { f64::from(lane.share) / shares as f64 };
            lane.forecast.moved(Moved { lasting, limit: limit.map(|(rate, step_s)| (rate * share, step_s)) });
            let ends = curve.map(|curve| Ends { curve, share });
            wanted.extend(lane.forecast.wanted(waiting, ends.as_ref()).into_iter().map(|depth| (Lane(at as u8), depth)));
        }
        wanted
    }

    pub(super) fn move_back(&mut self, by: TimeDelta) {
        for lane in &mut self.all {
            lane.pace.move_back(by);
            lane.forecast.move_back(by);
        }
    }

    pub(super) fn forget_before(&mut self, instant: Timestamp) {
        self.all.iter_mut().for_each(|lane| lane.pace.forget_before(instant));
    }

    /// The rate at which a lane moves, per second.
    pub(super) fn rate(&self, lane: Lane, now: Timestamp) -> f64 {
        f64::from(self.get(lane).pace.within(now, TimeDelta::seconds(RATE_WINDOW_S))) / RATE_WINDOW_S as f64
    }
}
