//! What is known of what a room has lost, and what the mirror keeps so that it can be built again.

use crate::{QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// How far a room had come. Each only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomMark {
    /// The last place that was given out, or may have been: none up to here is given out again.
    pub last_place: u64,
    /// Every entry up to here was promoted, or had left before its turn came.
    pub promoted_to: u64,
    pub served: u64,
    pub expired: u64,
    pub left: u64,
}

/// An entry in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivePlace {
    pub entry: QueueEntryId,
    pub user: UserId,
    pub place: u64,
    pub promoted_at: Timestamp,
    pub active_until: Timestamp,
}

/// What is known of what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// Places up to here were given out before.
    pub(super) to: u64,
    /// No entry comes back for a place up to here.
    pub(super) head: u64,
    pub(super) frozen_until: Timestamp,
    pub(super) resume_at: Timestamp,
}

impl Lost {
    pub(super) fn move_back(&mut self, by: TimeDelta) {
        self.frozen_until -= by;
        self.resume_at -= by;
    }
}
