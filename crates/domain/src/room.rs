//! The waiting room of one concert as a state machine: everything is told it, the time included, and what changed is
//! handed out as records for whoever makes it durable.
//!
//! Invariant (I4): at no instant are more than `max_active` entries able to start a hold, and no window of the rate's
//! length sees more promotions than its count. Expiry takes effect at its instant: an active entry past its
//! `active_until` reads as expired before [`Room::tick`] has written it.
//!
//! Order is arrival. A place is a fixed ordinal from 1; joining again while one's entry lives returns it unmoved.

use crate::admission::{Admission, AdmissionMode, INTERVAL_S_MAX, Pace};
use crate::line::Line;
use crate::{Eta, QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The most promotions of one tick, so that a step stays short.
pub const PROMOTIONS_PER_TICK_MAX: u32 = 2_000;
/// The window over which the admission rate is measured, seconds.
pub const RATE_WINDOW_S: i64 = 60;
/// How long an ended entry can still be asked for, seconds; afterwards it reads as expired.
pub const ENDED_KEPT_S: i64 = 24 * 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueStatus {
    PreSale,
    Waiting,
    /// Waiting while nothing can be had.
    SoldOut,
    Active,
    Done,
    Expired,
    Left,
}

impl QueueStatus {
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Expired | Self::Left)
    }

    fn is_waiting(self) -> bool {
        matches!(self, Self::PreSale | Self::Waiting | Self::SoldOut)
    }
}

/// One stay as it is stored. A stored status is `Waiting`, `Active`, `Done`, `Expired` or `Left`; the other two are
/// how `Waiting` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomChange {
    pub entry: QueueEntryId,
    pub user: UserId,
    pub place: u64,
    pub status: QueueStatus,
    pub joined_at: Timestamp,
    pub promoted_at: Option<Timestamp>,
    pub active_until: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// What an entry reads as at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub entry: QueueEntryId,
    pub user: UserId,
    pub status: QueueStatus,
    /// The fixed ordinal, from 1; for tokens it is known even while the public answer hides it.
    pub arrival: u64,
    /// How many wait before it; 0 is next. `None` unless it waits or is active.
    pub ahead: Option<u64>,
    pub active_until: Option<Timestamp>,
    pub eta: Option<Eta>,
    pub sale_starts_at: Option<Timestamp>,
}

/// What came of joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    pub place: Place,
    /// False: the user was there already.
    pub new: bool,
}

/// Seats that could still be had: available or in a live hold, on dates whose booking has not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    pub obtainable: u64,
    /// Whether active places are limited by it.
    pub linked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoomCounts {
    pub waiting: u64,
    pub active: u64,
    pub served: u64,
    pub left: u64,
    pub expired: u64,
    pub admitted_per_s: f64,
}

#[derive(Clone, Debug)]
pub struct Room {
    admission: Admission,
    sale_starts_at: Option<Timestamp>,
    active_ttl: TimeDelta,
    sold_out: bool,
    entries: HashMap<QueueEntryId, RoomChange>,
    /// Each user's latest entry.
    by_user: HashMap<UserId, QueueEntryId>,
    line: Line,
    /// Waiting entries by place.
    waiting: HashMap<u64, QueueEntryId>,
    active: BTreeSet<(Timestamp, QueueEntryId)>,
    ended: VecDeque<(Timestamp, QueueEntryId)>,
    pace: Pace,
    served: u64,
    left: u64,
    expired: u64,
}

impl Room {
    pub fn new(admission: Admission, sale_starts_at: Option<Timestamp>, active_ttl_s: u32) -> Self {
        Self {
            admission,
            sale_starts_at,
            active_ttl: TimeDelta::seconds(i64::from(active_ttl_s)),
            sold_out: false,
            entries: HashMap::new(),
            by_user: HashMap::new(),
            line: Line::default(),
            waiting: HashMap::new(),
            active: BTreeSet::new(),
            ended: VecDeque::new(),
            pace: Pace::default(),
            served: 0,
            left: 0,
            expired: 0,
        }
    }

    pub fn admission(&self) -> Admission {
        self.admission
    }

    pub fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
    }

    pub fn set_sale_starts_at(&mut self, at: Option<Timestamp>) {
        self.sale_starts_at = at;
    }

    /// Puts a stored record back, in ascending order of place: for loading.
    pub fn restore(&mut self, record: RoomChange) {
        self.line.skip_to(record.place);
        match record.status {
            QueueStatus::Active => {
                if let Some(until) = record.active_until {
                    self.active.insert((until, record.entry));
                }
            }
            QueueStatus::Done | QueueStatus::Expired | QueueStatus::Left => {
                self.count_ended(record.status);
                self.ended.push_back((record.ended_at.unwrap_or(record.joined_at), record.entry));
            }
            QueueStatus::PreSale | QueueStatus::Waiting | QueueStatus::SoldOut => {
                let place = self.line.append();
                self.waiting.insert(place, record.entry);
            }
        }
        self.line.skip_to(record.place + 1);
        self.by_user.insert(record.user, record.entry);
        self.entries.insert(record.entry, record);
    }

    /// Ends loading: instants of earlier promotions in ascending order, so that the rate holds over a restart, and
    /// the order in which ended entries are forgotten.
    pub fn restored(&mut self) {
        let mut promotions: Vec<_> = self.entries.values().filter_map(|entry| entry.promoted_at).collect();
        promotions.sort_unstable();
        for at in promotions {
            self.pace.record(at, 1);
        }
        self.ended.make_contiguous().sort_unstable();
    }

    /// Adds ended entries that are no longer kept one by one.
    pub fn restore_counts(&mut self, served: u64, expired: u64, left: u64) {
        self.served += served;
        self.expired += expired;
        self.left += left;
    }

    /// The places up to `place` were given out before.
    pub fn restore_last_place(&mut self, place: u64) {
        self.line.skip_to(place + 1);
    }

    /// Joins, or finds the user's place. `None` while draining, for whoever is not there yet.
    pub fn join(&mut self, user: UserId, fresh: QueueEntryId, now: Timestamp, changes: &mut Vec<RoomChange>) -> Option<Entered> {
        if let Some(place) = self.by_user.get(&user).and_then(|entry| self.place(*entry, now))
            && !place.status.is_ended()
        {
            return Some(Entered { place, new: false });
        }
        if self.admission.mode == AdmissionMode::Draining {
            return None;
        }
        // A turn that is over by the clock ends before the new entry begins.
        if let Some(previous) = self.by_user.get(&user).copied() {
            self.end_if_over(previous, now, changes);
        }
        let place = self.line.append();
        self.waiting.insert(place, fresh);
        let record = RoomChange {
            entry: fresh,
            user,
            place,
            status: QueueStatus::Waiting,
            joined_at: now,
            promoted_at: None,
            active_until: None,
            ended_at: None,
        };
        changes.push(record.clone());
        self.by_user.insert(user, fresh);
        self.entries.insert(fresh, record);
        self.place(fresh, now).map(|place| Entered { place, new: true })
    }

    /// What an entry reads as at `now`; `None` for one that is not known (any more).
    pub fn place(&self, entry: QueueEntryId, now: Timestamp) -> Option<Place> {
        let record = self.entries.get(&entry)?;
        let status = match record.status {
            QueueStatus::Active if record.active_until.is_none_or(|until| until <= now) => QueueStatus::Expired,
            status if status.is_waiting() && !self.is_open(now) => QueueStatus::PreSale,
            status if status.is_waiting() && self.sold_out => QueueStatus::SoldOut,
            status => status,
        };
        let ahead = match status {
            QueueStatus::Active => Some(0),
            QueueStatus::Waiting | QueueStatus::SoldOut => Some(self.line.before(record.place)),
            _ => None,
        };
        let eta = ahead.filter(|_| status == QueueStatus::Waiting).and_then(|ahead| {
            let window_s = RATE_WINDOW_S as f64;
            Eta::estimate(ahead, self.pace.within(now, TimeDelta::seconds(RATE_WINDOW_S)), window_s)
        });
        let active_until = record.active_until.filter(|_| status == QueueStatus::Active);
        Some(Place {
            entry,
            user: record.user,
            status,
            arrival: record.place,
            ahead,
            active_until,
            eta,
            sale_starts_at: self.sale_starts_at,
        })
    }

    /// The user's latest entry.
    pub fn entry_of(&self, user: UserId) -> Option<QueueEntryId> {
        self.by_user.get(&user).copied()
    }

    /// Ends an entry because its user wants to go. One that has ended stays as it ended.
    pub fn leave(&mut self, entry: QueueEntryId, now: Timestamp, changes: &mut Vec<RoomChange>) {
        self.end_if_over(entry, now, changes);
        self.end(entry, QueueStatus::Left, now, changes);
    }

    /// Ends the user's turn because of what was paid at `paid_at`. Somebody who waits, whose turn is over, or who came
    /// back for another turn since, keeps what there is.
    pub fn finish(&mut self, user: UserId, paid_at: Timestamp, now: Timestamp, changes: &mut Vec<RoomChange>) {
        if let Some(entry) = self.entry_of(user)
            && self.place(entry, now).is_some_and(|place| place.status == QueueStatus::Active)
            && self.entries.get(&entry).is_some_and(|record| record.promoted_at.is_none_or(|promoted_at| promoted_at <= paid_at))
        {
            self.end(entry, QueueStatus::Done, now, changes);
        }
    }

    /// Writes the turns that are over and promotes whoever may go now, in capped steps.
    pub fn tick(&mut self, now: Timestamp, stock: Stock, changes: &mut Vec<RoomChange>) {
        self.sold_out = stock.obtainable == 0;
        while let Some(&(until, entry)) = self.active.first()
            && until <= now
        {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
        let promoted = self.promotable(now, stock);
        for _ in 0..promoted {
            let Some(place) = self.line.first() else { break };
            self.promote(place, now, changes);
        }
        self.pace.record(now, promoted);
        self.pace.forget_before(now - TimeDelta::seconds(i64::from(INTERVAL_S_MAX).max(RATE_WINDOW_S)));
        while let Some(&(at, entry)) = self.ended.front()
            && at < now - TimeDelta::seconds(ENDED_KEPT_S)
        {
            self.ended.pop_front();
            if let Some(record) = self.entries.remove(&entry)
                && self.by_user.get(&record.user) == Some(&entry)
            {
                self.by_user.remove(&record.user);
            }
        }
    }

    /// How many may be promoted at `now`: the smallest of what every policy allows.
    fn promotable(&self, now: Timestamp, stock: Stock) -> u32 {
        if !self.is_open(now) || self.admission.mode == AdmissionMode::Paused || self.sold_out {
            return 0;
        }
        let active = self.active.len() as u64;
        let mut free = u64::from(self.admission.max_active).saturating_sub(active);
        if stock.linked {
            free = free.min(stock.obtainable.saturating_sub(active));
        }
        let paced = self.pace.allowance(now, self.admission.per_interval).min(PROMOTIONS_PER_TICK_MAX);
        free.min(u64::from(paced)).min(self.line.waiting()) as u32
    }

    fn promote(&mut self, place: u64, now: Timestamp, changes: &mut Vec<RoomChange>) {
        self.line.remove(place);
        let Some(record) = self.waiting.remove(&place).and_then(|entry| self.entries.get_mut(&entry)) else { return };
        let until = now + self.active_ttl;
        record.status = QueueStatus::Active;
        record.promoted_at = Some(now);
        record.active_until = Some(until);
        self.active.insert((until, record.entry));
        changes.push(record.clone());
    }

    fn end_if_over(&mut self, entry: QueueEntryId, now: Timestamp, changes: &mut Vec<RoomChange>) {
        let over = self
            .entries
            .get(&entry)
            .is_some_and(|record| record.status == QueueStatus::Active && record.active_until.is_none_or(|until| until <= now));
        if over {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
    }

    fn end(&mut self, entry: QueueEntryId, status: QueueStatus, now: Timestamp, changes: &mut Vec<RoomChange>) {
        let Some(record) = self.entries.get_mut(&entry).filter(|record| !record.status.is_ended()) else { return };
        if record.status == QueueStatus::Active {
            if let Some(until) = record.active_until {
                self.active.remove(&(until, entry));
            }
        } else {
            self.line.remove(record.place);
            self.waiting.remove(&record.place);
        }
        record.status = status;
        record.ended_at = Some(now);
        changes.push(record.clone());
        self.ended.push_back((now, entry));
        self.count_ended(status);
    }

    fn count_ended(&mut self, status: QueueStatus) {
        match status {
            QueueStatus::Done => self.served += 1,
            QueueStatus::Left => self.left += 1,
            _ => self.expired += 1,
        }
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.sale_starts_at.is_none_or(|start| start <= now)
    }

    pub fn counts(&self, now: Timestamp) -> RoomCounts {
        let over = self.active.range(..=(now, QueueEntryId(uuid::Uuid::max()))).count() as u64;
        RoomCounts {
            waiting: self.line.waiting(),
            active: self.active.len() as u64 - over,
            served: self.served,
            left: self.left,
            expired: self.expired + over,
            admitted_per_s: f64::from(self.pace.within(now, TimeDelta::seconds(RATE_WINDOW_S))) / RATE_WINDOW_S as f64,
        }
    }
}

/// When to ask again, milliseconds: soon for whoever is about to go, seldom for whoever is far behind or only has to
/// wait for the sale to start.
pub fn poll_after_ms(place: &Place, now: Timestamp) -> Option<u32> {
    const SLOWEST_MS: u64 = 10_000;
    let ms = match place.status {
        QueueStatus::PreSale => {
            let left = place.sale_starts_at.map_or(0, |start| (start - now).num_milliseconds().max(0));
            (left.unsigned_abs() / 2).clamp(1_000, SLOWEST_MS)
        }
        QueueStatus::Waiting => (1_000 + place.ahead.unwrap_or(0)).min(SLOWEST_MS),
        QueueStatus::SoldOut | QueueStatus::Active => SLOWEST_MS,
        QueueStatus::Done | QueueStatus::Expired | QueueStatus::Left => return None,
    };
    Some(ms as u32)
}

#[cfg(test)]
mod tests;
