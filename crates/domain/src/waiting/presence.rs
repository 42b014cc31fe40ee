//! Which entry has a connection to which instance, and since when an entry that had one has none.
//!
//! Instances report when an entry's first connection to them begins and when its last one ends. An instance without a report
//! for [`INSTANCE_LOST_S`] is given up, and its connections with it. From then on its reports of connections are ignored
//! until it appears anew: its first reports may be older than its knowledge of having been given up, and would be taken
//! for all its connections.

use crate::ids::InstanceId;
use crate::{QueueEntryId, Timestamp};
use chrono::TimeDelta;
use chrono::serde::ts_microseconds;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How long an instance may be silent, seconds.
pub const INSTANCE_LOST_S: i64 = 15;
/// While any entry is connected, some instance appends an input more often than this, seconds. A longer silence is no
/// instance's fault: the clock was stepped, or the log was away.
const SILENCE_MAX_S: i64 = 10;
/// How often an instance reports at least, seconds.
pub const INSTANCE_REPORTS_S: i64 = 5;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Link {
    To {
        /// Never none.
        instances: Vec<InstanceId>,
        /// Until when the client was certainly there, even if instances end.
        #[serde(with = "ts_microseconds")]
        there: Timestamp,
    },
    /// None any more.
    Gone {
        #[serde(with = "ts_microseconds")]
        since: Timestamp,
        in_turn: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Presence {
    /// Entries that live and have had a connection.
    links: HashMap<QueueEntryId, Link>,
    /// Those that have lost their last connection, waiting and in their turn, by since when.
    gone: Gone,
    alive: BTreeMap<InstanceId, Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Gone {
    waiting: BTreeSet<(Timestamp, QueueEntryId)>,
    in_turn: BTreeSet<(Timestamp, QueueEntryId)>,
}

impl Gone {
    fn of(&mut self, in_turn: bool) -> &mut BTreeSet<(Timestamp, QueueEntryId)> {
        if in_turn { &mut self.in_turn } else { &mut self.waiting }
    }
}

/// As it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PresenceState {
    links: Vec<(QueueEntryId, Link)>,
    alive: Vec<(InstanceId, i64)>,
}

impl Presence {
    pub(super) fn reported_at(&self, instance: InstanceId) -> Option<Timestamp> {
        self.alive.get(&instance).copied()
    }

    /// It begins to report its connections.
    pub(super) fn appeared(&mut self, instance: InstanceId, now: Timestamp) {
        self.alive.insert(instance, now);
    }

    /// Notes a report. Returns whether the instance counts as live.
    pub(super) fn reported(&mut self, instance: InstanceId, now: Timestamp) -> bool {
        self.alive.get_mut(&instance).map(|at| *at = now).is_some()
    }

    pub(super) fn connect(&mut self, instance: InstanceId, entry: QueueEntryId, now: Timestamp) {
        if let Some(Link::To { instances, there }) = self.links.get_mut(&entry) {
            *there = now;
            if !instances.contains(&instance) {
                instances.push(instance);
            }
        } else {
            self.put(entry, Some(Link::To { instances: vec![instance], there: now }));
        }
    }

    /// The entry was connected to the instance until `until`.
    pub(super) fn disconnect(&mut self, instance: InstanceId, entry: QueueEntryId, in_turn: bool, until: Timestamp) {
        if let Some(Link::To { instances, there }) = self.links.get_mut(&entry)
            && let Some(at) = instances.iter().position(|of| *of == instance)
        {
            instances.remove(at);
            *there = until.max(*there);
            if instances.is_empty() {
                let since = *there;
                self.put(entry, Some(Link::Gone { since, in_turn }));
            }
        }
    }

    /// A client was seen without a connection, for instance in a poll. An entry that never had a connection is not missed.
    pub(super) fn seen(&mut self, entry: QueueEntryId, now: Timestamp) {
        match self.links.get_mut(&entry) {
            Some(Link::To { there, .. }) => *there = now,
            Some(Link::Gone { in_turn, .. }) => {
                let in_turn = *in_turn;
                self.put(entry, Some(Link::Gone { since: now, in_turn }));
            }
            None => {}
        }
    }

    /// The entry's turn has come: from now on the grace of a turn applies.
    pub(super) fn turn_began(&mut self, entry: QueueEntryId, now: Timestamp) {
        match self.links.get_mut(&entry) {
            Some(Link::To { there, .. }) => *there = now,
            Some(Link::Gone { .. }) => self.put(entry, Some(Link::Gone { since: now, in_turn: true })),
            None => {}
        }
    }

    pub(super) fn ended(&mut self, entry: QueueEntryId) {
        self.put(entry, None);
    }

    fn put(&mut self, entry: QueueEntryId, link: Option<Link>) {
        if let Some(Link::Gone { since, in_turn }) = &link {
            self.gone.of(*in_turn).insert((*since, entry));
        }
        let before = match link {
            Some(link) => self.links.insert(entry, link),
            None => self.links.remove(&entry),
        };
        if let Some(Link::Gone { since, in_turn }) = before
            && !matches!(self.links.get(&entry), Some(Link::Gone { since: now, in_turn: is }) if (*now, *is) == (since, in_turn))
        {
            self.gone.of(in_turn).remove(&(since, entry));
        }
    }

    pub(super) fn is_connected(&self, entry: QueueEntryId) -> bool {
        matches!(self.links.get(&entry), Some(Link::To { .. }))
    }

    pub(super) fn is_gone(&self, entry: QueueEntryId) -> bool {
        matches!(self.links.get(&entry), Some(Link::Gone { .. }))
    }

    /// There was no input for so long: a silence of all instances does not make one of them lost.
    pub(super) fn after_silence(&mut self, gap: TimeDelta) {
        self.alive.values_mut().for_each(|at| *at += silence(gap));
    }

    pub(super) fn move_back(&mut self, by: TimeDelta) {
        for link in self.links.values_mut() {
            match link {
                Link::To { there: at, .. } | Link::Gone { since: at, .. } => *at -= by,
            }
        }
        for gone in [&mut self.gone.waiting, &mut self.gone.in_turn] {
            *gone = std::mem::take(gone).into_iter().map(|(since, entry)| (since - by, entry)).collect();
        }
        self.alive.values_mut().for_each(|at| *at -= by);
    }

    /// Whether any instance has connections, or may have.
    pub(super) fn has_instances(&self) -> bool {
        !self.alive.is_empty()
    }

    /// Whether an instance has been silent for too long, given that there was no input for `gap`.
    pub(super) fn misses(&self, now: Timestamp, gap: TimeDelta) -> bool {
        self.alive.values().any(|at| is_lost(*at + silence(gap), now))
    }

    /// Gives up instances that are silent for too long, and their connections with them, as of their last report.
    pub(super) fn lose_instances(&mut self, now: Timestamp, in_turn: impl Fn(QueueEntryId) -> bool) {
        let lost: Vec<_> = self.alive.iter().filter(|(_, at)| is_lost(**at, now)).map(|(instance, at)| (*instance, *at)).collect();
        for (instance, at) in lost {
            self.alive.remove(&instance);
            let held = |link: &Link| matches!(link, Link::To { instances, .. } if instances.contains(&instance));
            let entries: Vec<_> = self.links.iter().filter(|(_, link)| held(link)).map(|(entry, _)| *entry).collect();
            for entry in entries {
                self.disconnect(instance, entry, in_turn(entry), at);
            }
        }
    }

    /// Entries in their turn, or waiting ones, without a connection since `instant` or before, the longest first.
    pub(super) fn gone_since(&self, instant: Timestamp, in_turn: bool) -> impl Iterator<Item = QueueEntryId> + '_ {
        let gone = if in_turn { &self.gone.in_turn } else { &self.gone.waiting };
        gone.iter().take_while(move |(since, _)| *since <= instant).map(|(_, entry)| *entry)
    }

    pub(super) fn state(&self) -> PresenceState {
        let mut links: Vec<_> = self.links.iter().map(|(entry, link)| (*entry, link.clone())).collect();
        links.sort_unstable_by_key(|(entry, _)| *entry);
        PresenceState { links, alive: self.alive.iter().map(|(instance, at)| (*instance, at.timestamp_micros())).collect() }
    }

    pub(super) fn from_state(state: PresenceState) -> Self {
        let at = |us| Timestamp::from_timestamp_micros(us).unwrap_or_default();
        let alive = state.alive.into_iter().map(|(instance, us)| (instance, at(us))).collect();
        let mut presence = Self { alive, ..Self::default() };
        for (entry, link) in state.links {
            presence.put(entry, Some(link));
        }
        presence
    }
}

/// The part of a time without inputs that must not count against the instances.
fn silence(gap: TimeDelta) -> TimeDelta {
    if gap > TimeDelta::seconds(SILENCE_MAX_S) { gap } else { TimeDelta::zero() }
}

fn is_lost(heard_at: Timestamp, now: Timestamp) -> bool {
    now - heard_at > TimeDelta::seconds(INSTANCE_LOST_S)
}
