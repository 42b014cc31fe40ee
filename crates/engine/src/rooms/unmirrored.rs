//! What the mirror has not been given yet.

use std::collections::{HashMap, HashSet};

use boxoffice_domain::QueueEntryId;
use boxoffice_domain::waiting::{ActivePlace, QueueStatus, RoomChange, RoomMark};

#[derive(Default)]
pub(super) struct Unmirrored {
    pub(super) began: HashMap<QueueEntryId, ActivePlace>,
    pub(super) ended: HashSet<QueueEntryId>,
    /// The mark that was saved last.
    pub(super) mark: Option<RoomMark>,
}

impl Unmirrored {
    pub(super) fn changed(&mut self, changes: &[RoomChange]) {
        for change in changes {
            match (change.status, change.promoted_at, change.active_until) {
                (QueueStatus::Active, Some(promoted_at), Some(active_until)) => {
                    let RoomChange { entry, user, place, .. } = *change;
                    self.ended.remove(&entry);
                    self.began.insert(entry, ActivePlace { entry, user, place, promoted_at, active_until });
                }
                _ if change.was == Some(QueueStatus::Active) => {
                    self.began.remove(&change.entry);
                    self.ended.insert(change.entry);
                }
                _ => {}
            }
        }
    }

    /// The mirror has every turn.
    pub(super) fn is_empty(&self) -> bool {
        self.began.is_empty() && self.ended.is_empty()
    }

    /// A log was begun again: the mark and all turns are to be saved.
    pub(super) fn anew(&mut self, turns: Vec<ActivePlace>) {
        self.mark = None;
        self.began.extend(turns.into_iter().map(|turn| (turn.entry, turn)));
    }
}
