//! Where an entry is on its course: it waits, has its turn, or has ended.

use super::entry::{Lane, QueueStatus};
use crate::{QueueEntryId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) promoted_at: Timestamp,
    pub(super) until: Timestamp,
    pub(super) extended: u32,
    /// Whether the buyer came for it.
    pub(super) seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Stage {
    Waiting,
    Active(Turn),
    Ended { how: QueueStatus, at: Timestamp },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) user: UserId,
    /// 0 before the draw.
    pub(super) place: u64,
    pub(super) lane: Lane,
    pub(super) stage: Stage,
}

impl Entry {
    pub(super) fn turn(&self) -> Option<Turn> {
        match self.stage {
            Stage::Active(turn) => Some(turn),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> QueueStatus {
        match self.stage {
            Stage::Waiting => QueueStatus::Waiting,
            Stage::Active(_) => QueueStatus::Active,
            Stage::Ended { how, .. } => how,
        }
    }
}

pub(super) fn is_active(entries: &HashMap<QueueEntryId, Entry>, entry: QueueEntryId) -> bool {
    entries.get(&entry).and_then(Entry::turn).is_some()
}

/// How many entries ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ends {
    pub(super) served: u64,
    pub(super) left: u64,
    pub(super) expired: u64,
}
