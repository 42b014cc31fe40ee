//! What this instance has noticed of a room's entries and not appended yet.

use std::collections::{HashMap, HashSet};

use boxoffice_domain::QueueEntryId;

/// Changed connections that one step appends.
const CONNECTIONS_APPENDED_MAX: usize = 5_000;
/// Entries seen in their turn that one step appends. One beyond it is appended when it is seen again.
const SEEN_MAX: usize = 5_000;

#[derive(Default)]
pub(super) struct Presence {
    /// How many connections each entry has here.
    connections: HashMap<QueueEntryId, u32>,
    /// Entries whose first connection began, or whose last one ended, since that was appended.
    changed: HashSet<QueueEntryId>,
    seen: HashSet<QueueEntryId>,
}

impl Presence {
    pub(super) fn connected(&mut self, entry: QueueEntryId) {
        let count = self.connections.entry(entry).or_default();
        *count += 1;
        if *count == 1 {
            self.changed.insert(entry);
        }
    }

    pub(super) fn disconnected(&mut self, entry: QueueEntryId) {
        let Some(count) = self.connections.get_mut(&entry) else { return };
        *count -= 1;
        if *count == 0 {
            self.connections.remove(&entry);
            self.changed.insert(entry);
        }
    }

    pub(super) fn seen(&mut self, entry: QueueEntryId) {
        if self.seen.len() < SEEN_MAX {
            self.seen.insert(entry);
        }
    }

    /// Nothing is to be appended, and there is no connection that could change.
    pub(super) fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.changed.is_empty() && self.seen.is_empty()
    }

    pub(super) fn has_connections(&self) -> bool {
        !self.connections.is_empty()
    }

    /// The room has forgotten this instance: every connected entry has to be appended again.
    pub(super) fn mark_all_changed(&mut self) {
        self.changed.extend(self.connections.keys().copied());
    }

    /// The entries whose connection began, and those whose connection ended, for one step.
    pub(super) fn take_changed(&mut self) -> (Vec<QueueEntryId>, Vec<QueueEntryId>) {
        let some: Vec<_> = self.changed.iter().copied().take(CONNECTIONS_APPENDED_MAX).collect();
        for entry in &some {
            self.changed.remove(entry);
        }
        some.into_iter().partition(|entry| self.connections.contains_key(entry))
    }

    /// These could not be appended.
    pub(super) fn put_back(&mut self, entries: impl IntoIterator<Item = QueueEntryId>) {
        self.changed.extend(entries);
    }

    pub(super) fn take_seen(&mut self) -> Vec<QueueEntryId> {
        self.seen.drain().collect()
    }
}
