//! Rendering frames for one listener, and queueing them for it.

use boxoffice_domain::waiting::Place;
use boxoffice_domain::{ConcertId, Timestamp};

use super::listener::Listener;
use crate::Stats;

/// Renders an entry as its owner sees it: one JSON object of type `queue`.
pub trait OwnFrames: Send + Sync {
    fn queue(&self, concert: ConcertId, place: &Place, seq: u64, admitted: u64, now: Timestamp) -> String;
}

pub(super) struct FrameSender<'a> {
    pub(super) frames: &'a dyn OwnFrames,
    pub(super) stats: &'a Stats,
}

impl FrameSender<'_> {
    pub(super) fn send(&self, listener: &Listener, event: &str, seq: u64, json: &str) {
        let taken = listener.push(listener.form().encode(event, seq, json));
        let count = if taken { &self.stats.frames_sent } else { &self.stats.slow_listeners };
        count.add(1);
    }
}
