//! What one class of one lane is told: a count, up to where it has been told, and the frames of the last moments.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::frame::Shared;
use super::listener::QUEUED_MAX;

/// Frames that are kept for whoever resumes: as many as one listener can be given at once.
const KEPT: usize = QUEUED_MAX;

/// Where a count begins. Far enough from the end of what JSON's numbers hold exactly (2^53), and nowhere twice.
pub(super) fn anywhere() -> u64 {
    rand::random::<u64>() >> 13
}

#[derive(Debug)]
pub(super) struct Stream {
    /// The number of its last frame.
    pub(super) seq: u64,
    /// Departures told, of the room's count.
    pub(super) told: u64,
    /// Who gets it: place and id.
    pub(super) members: BTreeSet<(u64, u64)>,
    /// The formula does not hold from its last frame to now: its members get their own frames.
    pub(super) is_broken: bool,
    pub(super) due_at: Instant,
    kept: VecDeque<(u64, Shared)>,
}

impl Stream {
    pub(super) fn new(due_at: Instant) -> Self {
        Self { seq: anywhere(), told: 0, members: BTreeSet::new(), is_broken: true, due_at, kept: VecDeque::new() }
    }

    /// From here on the formula holds: nobody relies on what was told before.
    pub(super) fn begin_anew(&mut self, departures: u64) {
        self.seq += 1;
        self.told = departures;
        self.is_broken = false;
        self.kept.clear();
    }

    pub(super) fn say(&mut self, event: &str, json: impl FnOnce(u64) -> String) -> Shared {
        self.seq += 1;
        let frame = Shared::new(event, self.seq, &json(self.seq));
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((self.seq, frame.clone()));
        frame
    }

    /// Everything after a frame, in order; `None` when that is not known.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &Shared>> {
        let from = self.kept.front().map_or(self.seq, |(first, _)| first - 1);
        (from <= seq && seq <= self.seq && !self.is_broken)
            .then(|| self.kept.iter().filter(move |(kept, _)| *kept > seq).map(|(_, frame)| frame))
    }
}
