//! The lines of one concert, and whose turn it is to send somebody: each lane gets its share of the promotions while
//! anybody waits in it, and leaves what it does not need to the others (stride scheduling: C. Waldspurger and
//! W. Weihl, 1995).

use super::forecast::Forecast;
use super::input::LaneTerms;
use super::{Lane, RATE_WINDOW_S};
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
    /// The pass of whoever went last.
    passed: u64,
}

impl Lanes {
    pub(super) fn new(terms: &[LaneTerms]) -> Self {
        let mut lanes = Self { all: Vec::new(), passed: 0 };
        lanes.set(terms);
        lanes
    }

    /// Lanes that are new are empty; one that is not named any more keeps whoever waits in it, with the smallest share.
    pub(super) fn set(&mut self, terms: &[LaneTerms]) {
        let terms = &terms[..terms.len().min(LANES_MAX)];
        let named: u16 = terms.iter().fold(0, |sum, lane| sum.saturating_add(lane.share));
        let general = LaneTerms { name: String::new(), share: SHARES.saturating_sub(named) };
        for at in 0..self.all.len().max(terms.len() + 1) {
            let lane = at.checked_sub(1).map_or(Some(&general), |at| terms.get(at));
            if self.all.len() <= at {
                self.all.push(LaneState {
                    name: String::new(),
                    share: 1,
                    line: Line::default(),
                    admitted: 0,
                    pace: Pace::default(),
                    forecast: Forecast::default(),
                    pass: self.passed,
                });
            }
            let kept = &mut self.all[at];
            kept.share = lane.map_or(1, |lane| lane.share.clamp(1, SHARES));
            if let Some(lane) = lane {
                kept.name.clone_from(&lane.name);
            }
        }
    }

    pub(super) fn all(&self) -> &[LaneState] {
        &self.all
    }

    /// The lane that a token or an input names; one that there is not is the general one.
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

    /// Somebody waits at a place of this lane from now on.
    pub(super) fn occupy(&mut self, lane: Lane, place: u64) {
        let passed = self.passed;
        let lane = self.get_mut(lane);
        if lane.line.waiting() == 0 {
            // It saved nothing up while nobody waited in it.
            lane.pass = lane.pass.max(passed);
        }
        lane.line.occupy(place);
    }

    pub(super) fn vacate(&mut self, lane: Lane, place: u64) {
        self.get_mut(lane).line.remove(place);
    }

    /// The lane and the place whose turn it is.
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
        lane.forecast.promoted(entry, now);
    }

    pub(super) fn forget_before(&mut self, instant: Timestamp) {
        self.all.iter_mut().for_each(|lane| lane.pace.forget_before(instant));
    }

    /// The rate at which a lane moves, per second.
    pub(super) fn rate(&self, lane: Lane, now: Timestamp) -> f64 {
        f64::from(self.get(lane).pace.within(now, TimeDelta::seconds(RATE_WINDOW_S))) / RATE_WINDOW_S as f64
    }
}
