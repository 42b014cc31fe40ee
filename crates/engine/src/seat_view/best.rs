//! Choosing the best seats: higher price first, then lower number.
//!
//! What is offered to one caller is *claimed*: others are not offered it until it is known what became of it, so callers
//! at the same moment do not all ask for the same seats. A claim is this instance's own and binds nobody; the ledger
//! decides. Behind the claimed choice each offer has a few others, further back the more callers there are, for when
//! another instance or a caller with seats of its own was quicker.
//!
//! *Cost.* An offer takes a few steps in a hall of any size, and so does finding that there is none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use boxoffice_domain::{SeatNumber, Timestamp};
use chrono::TimeDelta;
use tokio::sync::watch;

use super::layout::Starts;
use super::map::SeatMap;
use crate::store_time;

/// The most choices of one offer: each costs the ledger its rows, whether it is needed or not.
pub(super) const CHOICES_MAX: usize = 4;
/// How many holds that are about to end are looked at, before it is taken for granted that waiting for one is right.
const ENDING_MAX: usize = 256;

/// What a caller would like to have.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub count: u32,
    /// Only of this grade.
    pub grade: Option<&'a str>,
    /// Consecutive numbers in the same section, row and grade.
    pub adjacent: bool,
}

/// What there is for a wish.
#[derive(Debug)]
pub(super) enum Look {
    /// Disjoint choices, the first of them claimed under this number until [`SeatMap::release`].
    Offered {
        claim: u64,
        choices: Vec<Vec<SeatNumber>>,
        done: watch::Sender<()>,
    },
    /// Nothing but what is offered to others. Some of it may come back when this closes.
    Claimed(watch::Receiver<()>),
    /// Nothing, but a hold that could serve ends at this instant; by the store's clock perhaps already.
    Ending(Timestamp),
    Nothing,
}

/// Seats that are offered to callers.
#[derive(Debug, Default)]
pub(super) struct Claims {
    last: u64,
    open: BTreeMap<u64, Claim>,
    by_seat: HashMap<usize, u64>,
    /// The most at one time since there were none, and the time before that: how far callers should be spread.
    crowd: usize,
    crowd_before: usize,
}

#[derive(Debug)]
struct Claim {
    seats: Vec<usize>,
    done: watch::Receiver<()>,
}

impl Claims {
    pub(super) fn has(&self, seat: usize) -> bool {
        self.by_seat.contains_key(&seat)
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_seat.keys().copied()
    }

    /// The same claims on a map whose seats lie elsewhere.
    pub(super) fn moved(mut self, to: impl Fn(usize) -> Option<usize>) -> Self {
        self.by_seat.clear();
        for (&number, claim) in &mut self.open {
            claim.seats = claim.seats.iter().filter_map(|&seat| to(seat)).collect();
            self.by_seat.extend(claim.seats.iter().map(|&seat| (seat, number)));
        }
        self
    }

    fn add(&mut self, seats: &[usize]) -> (u64, watch::Sender<()>) {
        let (sender, done) = watch::channel(());
        self.last += 1;
        self.by_seat.extend(seats.iter().map(|&seat| (seat, self.last)));
        self.open.insert(self.last, Claim { seats: seats.to_vec(), done });
        self.crowd = self.crowd.max(self.open.len());
        (self.last, sender)
    }

    fn take(&mut self, number: u64) -> Vec<usize> {
        let Some(claim) = self.open.remove(&number) else { return Vec::new() };
        for seat in &claim.seats {
            self.by_seat.remove(seat);
        }
        if self.open.is_empty() {
            (self.crowd_before, self.crowd) = (self.crowd, 0);
        }
        claim.seats
    }
}

impl SeatMap {
    pub(super) fn look(&mut self, wish: &Wish<'_>, now: Timestamp) -> Look {
        self.pass_to(now);
        let (count, places) = (wish.count as usize, self.layout.places(wish.grade));
        if count == 0 || count > places.len() {
            return Look::Nothing;
        }
        let starts = self.starts_of(if wish.adjacent { count } else { 1 });
        let Some((place, seats)) = self.choice(starts, wish, &places, places.start) else { return self.outlook(wish, now) };
        let (claim, done) = self.claims.add(&seats);
        seats.iter().for_each(|&seat| self.reopen(seat));
        let mut choices = vec![seats];
        self.add_others(&mut choices, starts, wish, &places, place);
        let numbers = |seats: Vec<usize>| seats.into_iter().map(|seat| self.number(seat)).collect();
        Look::Offered { claim, choices: choices.into_iter().map(numbers).collect(), done }
    }

    /// What was offered under `claim` is offered to others again, as far as it is free.
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
    fn choice(&self, starts: usize, wish: &Wish<'_>, places: &Range<usize>, from: usize) -> Option<(usize, Vec<usize>)> {
        let (starts, count) = (&self.starts[starts], wish.count as usize);
        let (place, first) = starts.first(&self.layout, wish.grade, places, from)?;
        if wish.adjacent {
            return Some((place, (first..first + count).collect()));
        }
        let (mut seats, mut behind) = (vec![first], place);
        while seats.len() < count {
            let (next, seat) = starts.first(&self.layout, wish.grade, places, behind + 1)?;
            seats.push(seat);
            behind = next;
        }
        Some((place, seats))
    }

    /// Other choices behind the first, each as far behind the one before as there are callers to be spread.
    fn add_others(&self, choices: &mut Vec<Vec<usize>>, starts: usize, wish: &Wish<'_>, places: &Range<usize>, first: usize) {
        let step = self.claims.crowd.max(self.claims.crowd_before).max(1) * wish.count as usize;
        let (mut from, mut wrapped) = (first + step, false);
        // Each turn finds a choice, moves on past one that overlaps, or begins again at the front; that once.
        for _ in 0..4 * CHOICES_MAX {
            if choices.len() == CHOICES_MAX {
                return;
            }
            match self.choice(starts, wish, places, from) {
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

    /// What may become of a wish for which nothing is open.
    fn outlook(&self, wish: &Wish<'_>, now: Timestamp) -> Look {
        let soon = now + TimeDelta::from_std(store_time::ERROR_MAX).unwrap_or_default();
        let ending: HashSet<usize> = self.ending(soon).take(ENDING_MAX).map(|(_, seat)| seat).collect();
        let counts = |seat: usize| self.layout.is_of(seat, wish.grade) && (self.is_available(seat) || ending.contains(&seat));
        let could_serve = |seat: usize| match wish.adjacent {
            true => {
                let count = wish.count as usize;
                self.layout.rows_around(seat, count).any(|first| (first..first + count).all(counts))
            }
            false => counts(seat),
        };
        // The newest is done last, as a rule: who waits for it does not have to look at every one before.
        let claim = self.claims.open.values().rev().find(|claim| claim.seats.iter().any(|&seat| could_serve(seat)));
        let end = self.ending(soon).find(|(_, seat)| !ending.contains(seat) || could_serve(*seat));
        if !wish.adjacent {
            // Free ones were too few: together with those that may come they must be enough.
            let claimed = self.claims.seats().filter(|&seat| counts(seat) && !ending.contains(&seat));
            let open = self.open_singles(wish);
            let enough = wish.count as usize;
            if open + claimed.take(enough).count() + ending.iter().filter(|&&seat| counts(seat)).take(enough).count() < enough {
                return Look::Nothing;
            }
        }
        match (claim, end) {
            (Some(claim), _) => Look::Claimed(claim.done.clone()),
            (None, Some((until, _))) => Look::Ending(until),
            (None, None) => Look::Nothing,
        }
    }

    /// Open seats that a wish could have, as far as it needs to be known.
    fn open_singles(&self, wish: &Wish<'_>) -> usize {
        let (places, mut found) = (self.layout.places(wish.grade), 0);
        let Some(starts) = self.starts.iter().find(|starts| starts.count() == 1) else { return 0 };
        let mut from = places.start;
        while found < wish.count as usize
            && let Some((place, _)) = starts.first(&self.layout, wish.grade, &places, from)
        {
            (found, from) = (found + 1, place + 1);
        }
        found
    }
}
