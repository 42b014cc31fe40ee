//! A tick: writes what is over, ends the entries of clients that are gone, and promotes.

use super::entry::{Lane, QueueStatus, RoomChange, Stock, Ticked};
use super::forecast;
use super::limits::{ENDED_KEPT_S, PROMOTIONS_PER_TICK_MAX, RATE_WINDOW_S};
use super::room::Room;
use super::stage::is_active;
use crate::admission::INTERVAL_S_MAX;
use crate::{AdmissionMode, QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;

impl Room {
    /// Writes what is over, ends entries whose client is gone, and promotes the next ones, in bounded steps.
    pub(super) fn tick(&mut self, now: Timestamp, stock: Stock, changes: &mut Vec<RoomChange>) -> Ticked {
        let mut ticked = Ticked::default();
        self.turns.sold(self.stock.obtainable.saturating_sub(stock.obtainable));
        self.stock = stock;
        self.sold_out = stock.obtainable == 0;
        let overdue: Vec<_> = self.overdue(now).collect();
        ticked.expired += overdue.len() as u64;
        for entry in overdue {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
        ticked.abandoned = self.give_up_the_gone(now, changes);
        ticked.expired += ticked.abandoned.len() as u64;
        let promotable = self.promotable(now, stock);
        let is_paced = self.allowance(now) <= promotable;
        while ticked.promoted < u64::from(promotable)
            && let Some((lane, place)) = self.lanes.next()
        {
            self.promote(lane, place, now, changes);
            ticked.promoted += 1;
        }
        if ticked.promoted > 0 {
            self.pace.record(now, ticked.promoted as u32);
            self.adaptive.admitted(now, ticked.promoted as u32);
            let kept_since = now - TimeDelta::seconds(i64::from(INTERVAL_S_MAX).max(RATE_WINDOW_S));
            self.pace.forget_before(kept_since);
            self.lanes.forget_before(kept_since);
        }
        if self.moves(now) {
            self.lengths.look(now, f64::from(self.terms.active_ttl_s));
        }
        self.forecast(ticked.promoted, is_paced);
        self.forget_ended(now);
        ticked
    }

    /// Ends entries that were connected and have been without a connection for longer than their grace. Returns the users
    /// whose turn ended so.
    fn give_up_the_gone(&mut self, now: Timestamp, changes: &mut Vec<RoomChange>) -> Vec<UserId> {
        let entries = &self.entries;
        self.presence.lose_instances(now, |entry| is_active(entries, entry));
        let since = |s: u32| now - TimeDelta::seconds(i64::from(s));
        let in_turn: Vec<_> = self.presence.gone_since(since(self.terms.grace_s), true).collect();
        let waiting: Vec<_> = self.presence.gone_since(since(self.terms.waiting_grace_s), false).collect();
        let users = in_turn.iter().filter_map(|entry| self.entries.get(entry)).map(|kept| kept.user).collect();
        for entry in in_turn.into_iter().chain(waiting) {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
        users
    }

    fn forget_ended(&mut self, now: Timestamp) {
        while let Some(entry) = self.to_forget(now) {
            self.ended.pop_front();
            if let Some(kept) = self.entries.remove(&entry)
                && self.by_user.get(&kept.user) == Some(&entry)
            {
                self.by_user.remove(&kept.user);
            }
        }
    }

    /// The entry that ended longest ago, if that is long enough.
    pub(super) fn to_forget(&self, now: Timestamp) -> Option<QueueEntryId> {
        let (at, entry) = self.ended.front().filter(|_| !self.pre_sale.is_closed_undrawn())?;
        (*at < now - TimeDelta::seconds(ENDED_KEPT_S)).then_some(*entry)
    }

    pub(super) fn max_active(&self, stock: Stock) -> u32 {
        let admission = self.admission();
        if !admission.auto {
            return admission.max_active;
        }
        forecast::auto_max_active(stock.obtainable, self.adaptive.bearable(), &self.turns).min(admission.max_active)
    }

    /// How many may be promoted at `now`: the smallest of what every policy allows. Turns that are over count no more.
    pub(super) fn promotable(&self, now: Timestamp, stock: Stock) -> u32 {
        let admission = self.admission();
        let resumes = self.lost.as_ref().is_none_or(|lost| lost.resume_at <= now);
        if !self.is_open(now) || admission.mode == AdmissionMode::Paused || stock.obtainable == 0 || !resumes {
            return 0;
        }
        let active = (self.active.len() - self.overdue(now).count()) as u64;
        let mut free = u64::from(self.max_active(stock)).saturating_sub(active);
        if stock.linked {
            free = free.min(stock.obtainable.saturating_sub(active));
        }
        let paced = self.allowance(now).min(PROMOTIONS_PER_TICK_MAX);
        free.min(u64::from(paced)).min(self.lanes.waiting()) as u32
    }

    /// How many the rates allow now.
    fn allowance(&self, now: Timestamp) -> u32 {
        let admission = self.admission();
        let paced = self.pace.allowance(now, admission.per_interval);
        if admission.adaptive { paced.min(self.adaptive.allowance(now).unwrap_or(u32::MAX)) } else { paced }
    }

    /// Whether promotion may go on, apart from how many wait and how many are active.
    pub(super) fn moves(&self, now: Timestamp) -> bool {
        !self.sold_out && self.admission().mode != AdmissionMode::Paused && self.is_open(now)
    }

    /// Whether the sale has started, and entries from before it have a place.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        self.terms.sale_starts_at.is_none_or(|start| start <= now) && !self.waits_for_draw(now) && !self.pre_sale.is_to_be_drawn()
    }

    pub(super) fn rate(&self, now: Timestamp) -> f64 {
        f64::from(self.pace.within(now, TimeDelta::seconds(RATE_WINDOW_S))) / RATE_WINDOW_S as f64
    }

    /// Notes in the lanes what a tick did, and samples their forecasts. `is_paced`: a rate bounds promotion, not places.
    /// Otherwise, promotions beyond the turns that ended filled free places, which does not last.
    fn forecast(&mut self, promoted: u64, is_paced: bool) {
        let freed = f64::from(self.turns.take_freed());
        let lasting = if is_paced || promoted == 0 { 1.0 } else { (freed / promoted as f64).min(1.0) };
        let rate = self.admission().per_interval;
        let limit = rate.map(|rate| (f64::from(rate.count) / f64::from(rate.seconds), f64::from(rate.seconds)));
        if promoted > 0 {
            self.lengths.is_paced = is_paced;
        }
        for (lane, depth) in self.lanes.moved(lasting, limit, self.lengths.curve()) {
            let place = self.lanes.get(lane).line.nth(depth);
            if let Some(entry) = place.and_then(|place| self.at_place(place)) {
                self.forecast_shown(lane, entry, depth);
            }
        }
    }

    pub(super) fn forecast_shown(&mut self, lane: Lane, entry: QueueEntryId, ahead: u64) {
        let ends = self.lanes.ends(lane, self.lengths.curve());
        self.lanes.get_mut(lane).forecast.shown(entry, ahead, ends.as_ref());
    }

    /// `None` while no turn has ended.
    pub(super) fn chance(&self, lane: Lane, ahead: u64) -> Option<u16> {
        let forecast = &self.lanes.get(lane).forecast;
        let ends = |lane| self.lanes.ends(lane, self.lengths.curve());
        let own = ends(lane);
        // Turns that go on now count as well: what they leave comes back while the entry's own turn lasts.
        let others = (0..self.lanes.all().len() as u8).map(Lane).filter(|other| *other != lane);
        let beside: f64 = others
            .map(|other| self.lanes.get(other).forecast.turns_beside(ends(other).as_ref(), forecast.seconds(ahead, own.as_ref()), ahead))
            .sum();
        let ended_before = forecast.turns_before(ahead, own.as_ref()) + beside + self.active.len() as f64;
        (self.turns.are_measured() || self.sold_out).then(|| forecast::chance(ended_before, self.stock.obtainable, &self.turns))
    }
}
