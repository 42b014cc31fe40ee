//! Choosing the best seats: higher price first, then lower number.
//!
//! What is offered to one caller is *claimed*: no other caller is offered it until the claim ends. So callers at the
//! same moment do not all ask for the same seats. A claim belongs to this instance and binds no other; the ledger
//! decides. Each offer has a few more choices behind the claimed one, further back the more callers there are. They
//! serve when another instance, or a caller that named its seats, was quicker.
//!
//! *Cost.* An offer takes a few steps in a hall of any size, and so does finding that there is none.

use std::collections::HashSet;
use std::ops::Range;

use boxoffice_domain::{SeatNumber, Timestamp};
use chrono::TimeDelta;
use tokio::sync::watch;

use super::layout::Starts;
use super::map::SeatMap;
use crate::store_time;

/// The most choices of one offer: each costs the ledger its rows, whether it is needed or not.
pub(super) const CHOICES_MAX: usize = 4;
/// How many holds that are about to end are looked at. If there are more, waiting for one is assumed to be right.
const ENDING_MAX: usize = 256;

/// A caller's preference.
#[derive(Clone, Copy, Debug)]
pub struct SeatPreference<'a> {
    pub count: u32,
    /// Only of this grade.
    pub grade: Option<&'a str>,
    /// Consecutive numbers in the same section, row and grade.
    pub adjacent: bool,
}

/// What there is for a preference.
#[derive(Debug)]
pub(super) enum Availability {
    /// Disjoint choices, the first of them claimed under this number until [`SeatMap::release`].
    Offered {
        claim: u64,
        choices: Vec<Vec<SeatNumber>>,
        done: watch::Sender<()>,
    },
    /// Nothing but what is on offer to other callers. Some of it may come back when this closes.
    Claimed(watch::Receiver<()>),
    /// Nothing, but a hold on fitting seats ends at this instant, and by the store's clock perhaps already.
    Ending(Timestamp),
    Nothing,
}

impl SeatMap {
    pub(super) fn look(&mut self, preference: &SeatPreference<'_>, now: Timestamp) -> Availability {
        self.pass_to(now);
        let (count, places) = (preference.count as usize, self.layout.places(preference.grade));
        if count == 0 || count > places.len() {
            return Availability::Nothing;
        }
        let starts = self.starts_of(if preference.adjacent { count } else { 1 });
        let Some((place, seats)) = self.choice(starts, preference, &places, places.start) else { return self.outlook(preference, now) };
        let (claim, done) = self.claims.add(&seats);
        seats.iter().for_each(|&seat| self.reopen(seat));
        let mut choices = vec![seats];
        self.add_others(&mut choices, starts, preference, &places, place);
        let numbers = |seats: Vec<usize>| seats.into_iter().map(|seat| self.number(seat)).collect();
        Availability::Offered { claim, choices: choices.into_iter().map(numbers).collect(), done }
    }

    /// Ends a claim: its seats are offered again, as far as they are free.
    pub(super) fn release(&mut self, claim: u64) {
        for seat in self.claims.take(claim) {
            self.reopen(seat);
        }
    }

    /// Where rows of `count` seats begin, by position in `starts`.
    fn starts_of(&mut self, count: usize) -> usize {
        if let Some(at) = self.starts.iter().position(|starts| starts.count() == count) {
            return at;
        }
        self.starts.push(Starts::new(&self.layout, &self.open, count));
        self.starts.len() - 1
    }

    /// The best open choice from a place on: where it begins, and its seats.
    fn choice(&self, starts: usize, preference: &SeatPreference<'_>, places: &Range<usize>, from: usize) -> Option<(usize, Vec<usize>)> {
        let (starts, count) = (&self.starts[starts], preference.count as usize);
        let (place, first) = starts.first(&self.layout, preference.grade, places, from)?;
        if preference.adjacent {
            return Some((place, (first..first + count).collect()));
        }
        let (mut seats, mut behind) = (vec![first], place);
        while seats.len() < count {
            let (next, seat) = starts.first(&self.layout, preference.grade, places, behind + 1)?;
            seats.push(seat);
            behind = next;
        }
        Some((place, seats))
    }

    /// More choices behind the first, each so far behind the one before that callers are spread.
    fn add_others(
        &self,
        choices: &mut Vec<Vec<usize>>,
        starts: usize,
        preference: &SeatPreference<'_>,
        places: &Range<usize>,
        first: usize,
    ) {
        let step = self.claims.spread() * preference.count as usize;
        let (mut from, mut wrapped) = (first + step, false);
        // Each iteration finds a choice, moves past one that overlaps, or begins again at the front, once.
        for _ in 0..4 * CHOICES_MAX {
            if choices.len() == CHOICES_MAX {
                return;
            }
            match self.choice(starts, preference, places, from) {
                Some((place, seats)) if seats.iter().any(|seat| choices.iter().flatten().any(|chosen| chosen == seat)) => from = place + 1,
                Some((place, seats)) => {
                    choices.push(seats);
                    from = place + step;
                }
                None if wrapped => return,
                None => (from, wrapped) = (places.start, true),
            }
        }
    }

    /// What a preference may still get when no fitting seat is open.
    fn outlook(&self, preference: &SeatPreference<'_>, now: Timestamp) -> Availability {
        let soon = now + TimeDelta::from_std(store_time::ERROR_MAX).unwrap_or_default();
        let ending: HashSet<usize> = self.ending(soon).take(ENDING_MAX).map(|(_, seat)| seat).collect();
        let counts = |seat: usize| self.layout.is_of(seat, preference.grade) && (self.is_available(seat) || ending.contains(&seat));
        let could_serve = |seat: usize| match preference.adjacent {
            true => {
                let count = preference.count as usize;
                self.layout.rows_around(seat, count).any(|first| (first..first + count).all(counts))
            }
            false => counts(seat),
        };
        // The newest claim usually ends last: a caller that waits for it need not look again after each earlier one.
        let claim = self.claims.newest_first().find(|claim| claim.seats.iter().any(|&seat| could_serve(seat)));
        let end = self.ending(soon).find(|(_, seat)| !ending.contains(seat) || could_serve(*seat));
        if !preference.adjacent {
            // The open seats are too few: together with those that may come back they must be enough.
            let claimed = self.claims.seats().filter(|&seat| counts(seat) && !ending.contains(&seat));
            let open = self.open_singles(preference);
            let enough = preference.count as usize;
            if open + claimed.take(enough).count() + ending.iter().filter(|&&seat| counts(seat)).take(enough).count() < enough {
                return Availability::Nothing;
            }
        }
        match (claim, end) {
            (Some(claim), _) => Availability::Claimed(claim.done.clone()),
            (None, Some((until, _))) => Availability::Ending(until),
            (None, None) => Availability::Nothing,
        }
    }

    /// How many open seats fit a preference, counted no further than it needs.
    fn open_singles(&self, preference: &SeatPreference<'_>) -> usize {
        let (places, mut found) = (self.layout.places(preference.grade), 0);
        let Some(starts) = self.starts.iter().find(|starts| starts.count() == 1) else { return 0 };
        let mut from = places.start;
        while found < preference.count as usize
            && let Some((place, _)) = starts.first(&self.layout, preference.grade, &places, from)
        {
            (found, from) = (found + 1, place + 1);
        }
        found
    }
}
