//! Entries that come before the sale: they have no place until the list is closed and the draw is revealed.

use crate::QueueEntryId;
use crate::draw::Hash32;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The public view of the draw of one concert.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawView {
    pub commitment: Hash32,
    /// Places that were given out before the list was closed: the first one drawn gets the next.
    pub base: u64,
    /// The closed list, draw keys ascending; `None` before the start.
    pub keys: Option<Vec<Hash32>>,
    pub beacon: Option<String>,
    pub seed: Option<Hash32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PreSale {
    /// In the order of arrival; entries that left may still be named.
    pub(super) joined: Vec<QueueEntryId>,
    /// How many of them left before the list was closed.
    pub(super) left: u64,
    pub(super) closed: Option<Closed>,
    pub(super) drawn: Option<Drawn>,
}

/// The list at the start of the sale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Closed {
    /// Places before theirs.
    pub(super) base: u64,
    /// Ascending.
    pub(super) keys: Vec<Hash32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Drawn {
    pub(super) seed: Hash32,
    pub(super) beacon: Option<String>,
}

/// Where a draw has put an entry, as far as the list is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranked {
    At(u64),
    /// On no list that was drawn.
    Absent,
    /// On the list, whose ranks are not computed yet.
    Unknown,
}

impl PreSale {
    pub(super) fn join(&mut self, entry: QueueEntryId) {
        self.joined.push(entry);
    }

    pub(super) fn left(&mut self, _entry: QueueEntryId) {
        self.left += 1;
    }

    /// How many wait for the draw.
    pub(super) fn undrawn(&self) -> u64 {
        self.joined.len() as u64 - self.left.min(self.joined.len() as u64)
    }

    /// How many will need a place that is not set aside yet.
    pub(super) fn unplaced(&self) -> u64 {
        if self.closed.is_none() { self.undrawn() } else { 0 }
    }

    /// Whether an entry has come that is to be drawn, or could have.
    pub(super) fn has_begun(&self) -> bool {
        self.closed.is_some() || !self.joined.is_empty()
    }

    /// The entries that wait for the draw, in the order of arrival; some may have left.
    pub(super) fn joined(&self) -> &[QueueEntryId] {
        &self.joined
    }

    /// Places before those of the list.
    pub(super) fn base(&self) -> u64 {
        self.closed.as_ref().map_or(0, |closed| closed.base)
    }

    /// The places of the list.
    pub(super) fn places(&self) -> RangeInclusive<u64> {
        let listed = self.closed.as_ref().map_or(0, |closed| closed.keys.len() as u64);
        self.base() + 1..=self.base() + listed
    }

    /// Whether a draw must come before the next promotion.
    pub(super) fn is_to_be_drawn(&self) -> bool {
        self.drawn.is_none() && self.closed.as_ref().map_or(self.undrawn() > 0, |closed| !closed.keys.is_empty())
    }

    /// A closed list has to be drawn as it is: no entry on it may be forgotten.
    pub(super) fn is_closed_undrawn(&self) -> bool {
        self.is_to_be_drawn() && self.closed.is_some()
    }
}
