//! The shared frames of one class of one lane: their count, the departures that they cover, and the latest of them.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::frame::SharedFrame;
use super::listener::QUEUED_MAX;

/// Frames that are kept for clients that resume: as many as one listener can be given at once.
const KEPT: usize = QUEUED_MAX;

/// Where a count begins: at random, and far enough below 2^53, up to which JSON's numbers are exact.
pub(super) fn anywhere() -> u64 {
    rand::random::<u64>() >> 13
}

#[derive(Debug)]
pub(super) struct Stream {
    /// The number of its last frame.
    pub(super) seq: u64,
    /// How many of the room's departures its frames cover.
    pub(super) departures_sent: u64,
    /// Its listeners: place and id.
    pub(super) members: BTreeSet<(u64, u64)>,
    /// The formula does not hold from its last frame to now: its members get own frames.
    pub(super) is_broken: bool,
    pub(super) due_at: Instant,
    kept: VecDeque<(u64, SharedFrame)>,
}

impl Stream {
    pub(super) fn new(due_at: Instant) -> Self {
        Self { seq: anywhere(), departures_sent: 0, members: BTreeSet::new(), is_broken: true, due_at, kept: VecDeque::new() }
    }

    /// From here on the formula holds: no member relies on an earlier frame.
    pub(super) fn begin_anew(&mut self, departures: u64) {
        self.seq += 1;
        self.departures_sent = departures;
        self.is_broken = false;
        self.kept.clear();
    }

    pub(super) fn render(&mut self, event: &str, json: impl FnOnce(u64) -> String) -> SharedFrame {
        self.seq += 1;
        let frame = SharedFrame::new(event, self.seq, &json(self.seq));
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((self.seq, frame.clone()));
        frame
    }

    /// Everything after a frame, in order; `None` when that is not known.
    pub(super) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &SharedFrame>> {
        let from = self.kept.front().map_or(self.seq, |(first, _)| first - 1);
        (from <= seq && seq <= self.seq && !self.is_broken)
            .then(|| self.kept.iter().filter(move |(kept, _)| *kept > seq).map(|(_, frame)| frame))
    }
}
