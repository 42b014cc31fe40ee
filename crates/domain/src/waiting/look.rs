//! What a room and its entries read as at one instant: for polls, pushes, operators, and for deciding whether a tick is due.
//! Nothing here changes anything.

use super::departures::Departures;
use super::entry::{Lane, Place, QueueStatus, RoomCounts, Stock};
use super::input::RoomTerms;
use super::lanes::LaneState;
use super::room::Room;
use super::stage::{Entry, Stage};
use super::summary::RoomSummary;
use crate::{Admission, QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;

impl Room {
    pub fn terms(&self) -> &RoomTerms {
        &self.terms
    }

    pub fn admission(&self) -> Admission {
        self.own.map_or(self.terms.admission, |(admission, _)| admission)
    }

    /// Entries that have ended and are still known.
    pub fn ended(&self) -> impl Iterator<Item = QueueEntryId> + '_ {
        self.ended.iter().map(|(_, entry)| *entry)
    }

    /// Whether an entry is known and has not ended.
    pub fn is_there(&self, entry: QueueEntryId) -> bool {
        self.entries.get(&entry).is_some_and(|kept| !matches!(kept.stage, Stage::Ended { .. }))
    }

    /// Since when there was no input although entries may be connected: a live instance reports.
    pub fn silent_since(&self) -> Option<Timestamp> {
        self.presence.has_instances().then_some(self.latest_at)
    }

    /// The version of what an operator set.
    pub fn admission_version(&self) -> Option<i64> {
        self.own.map(|(_, version)| version)
    }

    /// The lane of that name; the general one where there is none.
    pub fn lane(&self, name: &str) -> Lane {
        let is_named = self.terms.lanes.iter().any(|lane| lane.name == name);
        let at = self.lanes.named(name).filter(|_| is_named);
        at.and_then(|at| u8::try_from(at).ok()).map_or(Lane(0), Lane)
    }

    /// The user's latest entry.
    pub fn entry_of(&self, user: UserId) -> Option<QueueEntryId> {
        self.by_user.get(&user).copied()
    }

    /// When this instance last reported; `None`: it counts as gone, and its connections with it.
    pub fn heard_at(&self, instance: crate::InstanceId) -> Option<Timestamp> {
        self.presence.reported_at(instance)
    }

    /// Whether an entry is known to have a connection to any instance.
    pub fn is_connected(&self, entry: QueueEntryId) -> bool {
        self.presence.is_connected(entry)
    }

    /// Whether it matters that a client of the entry was seen: in a turn that was not claimed yet, or if it counts as gone.
    pub fn wants_to_see(&self, entry: QueueEntryId) -> bool {
        self.entries.get(&entry).and_then(Entry::turn).is_some_and(|turn| !turn.seen) || self.presence.is_gone(entry)
    }

    /// What an entry reads as at `now`; `None` for one that is not known (any more).
    pub fn place(&self, entry: QueueEntryId, now: Timestamp) -> Option<Place> {
        let kept = self.entries.get(&entry)?;
        let status = match kept.stage {
            Stage::Active(turn) if turn.until <= now => QueueStatus::Expired,
            Stage::Waiting if kept.place == 0 || !self.is_open(now) => QueueStatus::PreSale,
            Stage::Waiting if self.sold_out => QueueStatus::SoldOut,
            _ => kept.status(),
        };
        let ahead = match status {
            QueueStatus::Active => Some(0),
            QueueStatus::Waiting | QueueStatus::SoldOut => Some(self.lanes.get(kept.lane).line.before(kept.place)),
            _ => None,
        };
        let waits = ahead.filter(|_| matches!(status, QueueStatus::Waiting | QueueStatus::SoldOut));
        Some(Place {
            entry,
            user: kept.user,
            lane: kept.lane,
            status,
            arrival: kept.place,
            ahead,
            active_until: kept.turn().filter(|_| status == QueueStatus::Active).map(|turn| turn.until),
            eta: waits.and_then(|ahead| self.eta(kept.lane, ahead, now)),
            chance: waits.and_then(|ahead| self.chance(kept.lane, ahead)),
            sale_starts_at: self.terms.sale_starts_at,
            draw: self.draw_brief(),
        })
    }

    fn eta(&self, lane: Lane, ahead: u64, now: Timestamp) -> Option<crate::Eta> {
        // Places are free: no measurement is needed.
        if self.goes_next(ahead, now) {
            return Some(crate::Eta::of_seconds(0.0, 0.0, 0.0));
        }
        self.lanes.get(lane).forecast.estimate(ahead, self.lanes.ends(lane, self.lengths.curve()).as_ref())
    }

    /// Whether the next tick promotes an entry with so many before it in its lane. With several lanes it is unknown which
    /// goes first, unless all can go.
    pub(super) fn goes_next(&self, ahead: u64, now: Timestamp) -> bool {
        let promotable = u64::from(self.promotable(now, self.stock));
        ahead < promotable && (self.lanes.all().len() == 1 || self.lanes.waiting() <= promotable)
    }

    /// Whether no entry waits, has a turn, or is to be drawn.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.lanes.waiting() + self.pre_sale.undrawn() == 0
    }

    /// Whether an entry ever joined, or may have: places up to some number may have been given out.
    pub fn was_joined(&self) -> bool {
        self.last_place() + self.pre_sale.undrawn() > 0
    }

    pub fn counts(&self, now: Timestamp) -> RoomCounts {
        let over = self.overdue(now).count() as u64;
        let (right, judged) = self
            .lanes
            .all()
            .iter()
            .filter_map(|lane| lane.forecast.calibration())
            .fold((0.0, 0), |(right, judged), (share, of)| (right + share * of as f64, judged + of));
        RoomCounts {
            waiting: self.lanes.waiting() + self.pre_sale.undrawn(),
            active: self.active.len() as u64 - over,
            served: self.ends.served,
            left: self.ends.left,
            expired: self.ends.expired + over,
            admitted_per_s: self.rate(now),
            eta_calibration: (judged > 0).then(|| right / judged as f64),
            no_shows: self.turns.no_shows,
        }
    }

    pub fn summary(&self, now: Timestamp) -> RoomSummary {
        let lane = |(at, lane): (usize, &LaneState)| (lane.admitted, self.lanes.rate(Lane(at as u8), now));
        RoomSummary {
            mode: self.admission().mode,
            sold_out: self.sold_out,
            open: self.is_open(now),
            waiting: self.lanes.waiting() + self.pre_sale.undrawn(),
            lanes: self.lanes.all().iter().enumerate().map(lane).collect(),
            max_active: self.max_active(self.stock),
            adaptive: self.adaptive.state(now),
        }
    }

    /// Whether nothing could be had at the last tick.
    pub fn is_sold_out(&self) -> bool {
        self.sold_out
    }

    pub fn departures(&self) -> &Departures {
        &self.departures
    }

    /// Promotions from a lane, ever.
    pub fn admitted(&self, lane: Lane) -> u64 {
        self.lanes.get(lane).admitted
    }

    /// The place in a lane that waits behind `before` others.
    pub fn place_behind(&self, lane: Lane, before: u64) -> Option<u64> {
        self.lanes.get(lane).line.nth(before)
    }

    /// Whether a tick would change anything now: what needs none should not be written into a log.
    pub fn is_due(&self, now: Timestamp, stock: Stock) -> bool {
        let is_ahead = self.is_ahead_of(now);
        let now = now.max(self.latest_at);
        let grace = |s: u32| now - TimeDelta::seconds(i64::from(s));
        is_ahead
            || self.overdue(now).next().is_some()
            || self.sold_out != (stock.obtainable == 0)
            || self.stock != stock
            || self.presence.misses(now, now - self.latest_at)
            || self.presence.gone_since(grace(self.terms.grace_s), true).next().is_some()
            || self.presence.gone_since(grace(self.terms.waiting_grace_s), false).next().is_some()
            || self.is_list_to_close(now)
            || self.promotable(now, stock) > 0
            || self.to_forget(now).is_some()
    }
}
