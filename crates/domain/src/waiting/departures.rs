//! Which entries left the line, and when places were given out in front of entries that wait already. From both, a client
//! that knows how many were ahead a moment ago computes how many are now.
//!
//! This is kept by each replica for itself, from its start: nothing is decided by it, so it is not part of the room's state.

use super::Lane;
use std::collections::VecDeque;

/// How many departures are remembered; a reader that is further behind begins again.
const REMEMBERED: usize = 10_000;

/// See the module's opening.
#[derive(Clone, Debug, Default)]
pub struct Departures {
    latest: VecDeque<(Lane, u64)>,
    count: u64,
    disturbances: u64,
}

impl Departures {
    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How often an entry was put in front of entries that waited already.
    pub fn disturbances(&self) -> u64 {
        self.disturbances
    }

    /// The lanes and places of all that came after the first `count`, in order; `None` when not all of them are
    /// remembered.
    pub fn since(&self, count: u64) -> Option<impl Iterator<Item = (Lane, u64)> + '_> {
        let news = usize::try_from(self.count.checked_sub(count)?).ok()?;
        let known = self.latest.len().checked_sub(news)?;
        Some(self.latest.range(known..).copied())
    }

    pub(super) fn left(&mut self, lane: Lane, place: u64) {
        if self.latest.len() == REMEMBERED {
            self.latest.pop_front();
        }
        self.latest.push_back((lane, place));
        self.count += 1;
    }

    pub(super) fn disturbed(&mut self) {
        self.disturbances += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_not_far_behind_gets_each_departure_once() {
        let mut departures = Departures::default();
        for place in 1..=10 {
            departures.left(Lane(1), place);
        }
        let since = |departures: &Departures, count| departures.since(count).map(|all| all.map(|(_, place)| place).collect::<Vec<_>>());
        assert_eq!(since(&departures, 8), Some(vec![9, 10]));
        assert_eq!(since(&departures, 10), Some(Vec::new()));
        assert_eq!(since(&departures, 11), None, "of another replica");
        for place in 11..=10 + REMEMBERED as u64 {
            departures.left(Lane(1), place);
        }
        assert_eq!(since(&departures, 9), None, "forgotten");
        assert_eq!(since(&departures, 10).map(|all| all.len()), Some(REMEMBERED));
    }
}
