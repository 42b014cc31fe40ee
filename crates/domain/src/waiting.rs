//! The waiting room of one concert as a state machine: everything is told it as a [`RoomInput`], the time included, so
//! that all who apply the same inputs in the same order come to the same room. Nothing here reads a clock or draws.
//!
//! Invariant (I4): at no instant are more than `max_active` entries able to start a hold, and no window of the rate's
//! length sees more promotions than its count. Expiry takes effect at its instant: an active entry past its end reads as
//! expired before a tick has written it.
//!
//! Order is arrival within each lane; who comes before the sale is drawn when it starts ([`crate::draw`]), if there is a
//! commitment. A place is a fixed ordinal from 1 over all lanes; joining again while one's entry lives returns it unmoved.
//!
//! * `lanes`: whose turn it is, among several lines.
//! * `presence`: who is connected, and since when whoever was is gone.
//! * `forecast`, `lengths`, `turns`: how long one will wait, how long turns last, what else they have shown.
//! * [`adaptive`]: the rate that the servers bear.
//! * `look`: what a room and its entries read as at an instant; it changes nothing.
//! * `loss`: giving back what a room has lost.
//! * `set_back`: a clock that runs backwards.
//! * `state`: the whole room as one value, to begin with.

pub mod adaptive;
mod departures;
mod entry;
pub mod forecast;
mod input;
mod lanes;
mod lengths;
mod look;
mod loss;
mod presale;
mod presence;
mod set_back;
mod state;
mod turns;

pub use adaptive::{AdaptiveState, Health};
pub use departures::Departures;
pub use entry::*;
pub use input::*;
pub use lanes::{LANES_MAX, SHARES};
pub use lengths::Lengths;
pub use loss::{ActivePlace, RoomMark};
pub use presale::DrawView;
pub use presence::{INSTANCE_LOST_S, INSTANCE_REPORTS_S};
pub use set_back::{SET_BACK_S, is_set_back, log_time};
pub use state::RoomState;
pub use turns::Turns;

use crate::admission::{INTERVAL_S_MAX, Pace};
use crate::draw::Hash32;
use crate::{Admission, AdmissionMode, ConcertId, QueueEntryId, Timestamp, UserId};
use adaptive::Adaptive;
use chrono::TimeDelta;
use lanes::Lanes;
use loss::Lost;
use presale::PreSale;
use presence::Presence;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The most promotions of one tick, so that a step stays short.
pub const PROMOTIONS_PER_TICK_MAX: u32 = 2_000;
/// The window over which the admission rate is measured, seconds.
pub const RATE_WINDOW_S: i64 = 60;
/// How long an ended entry can still be asked for, seconds; afterwards it reads as expired.
pub const ENDED_KEPT_S: i64 = 24 * 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Turn {
    promoted_at: Timestamp,
    until: Timestamp,
    extended: u32,
    /// Whether anybody came for it.
    seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Stage {
    Waiting,
    Active(Turn),
    Ended { how: QueueStatus, at: Timestamp },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    user: UserId,
    /// 0 before the draw.
    place: u64,
    lane: Lane,
    stage: Stage,
}

impl Entry {
    fn turn(&self) -> Option<Turn> {
        match self.stage {
            Stage::Active(turn) => Some(turn),
            _ => None,
        }
    }

    fn status(&self) -> QueueStatus {
        match self.stage {
            Stage::Waiting => QueueStatus::Waiting,
            Stage::Active(_) => QueueStatus::Active,
            Stage::Ended { how, .. } => how,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ends {
    served: u64,
    left: u64,
    expired: u64,
}

/// What everybody in a room may know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomSummary {
    pub mode: AdmissionMode,
    pub sold_out: bool,
    /// Whether promotion may go on: the sale has started, and who came before it is drawn.
    pub open: bool,
    pub waiting: u64,
    /// Of each lane: promotions ever, and per second lately.
    pub lanes: Vec<(u64, f64)>,
    /// The most that may be active now.
    pub max_active: u32,
    pub adaptive: AdaptiveState,
}

/// See the module's opening.
#[derive(Clone, Debug)]
pub struct Room {
    concert: ConcertId,
    terms: RoomTerms,
    /// What an operator set, with its version.
    own: Option<(Admission, i64)>,
    stock: Stock,
    sold_out: bool,
    entries: HashMap<QueueEntryId, Entry>,
    /// Each user's latest entry.
    by_user: HashMap<UserId, QueueEntryId>,
    /// Who got which place, from 1; whoever is not waiting there any more may still be named.
    by_place: Vec<QueueEntryId>,
    lanes: Lanes,
    active: BTreeSet<(Timestamp, QueueEntryId)>,
    ended: VecDeque<(Timestamp, QueueEntryId)>,
    pace: Pace,
    presence: Presence,
    adaptive: Adaptive,
    turns: Turns,
    lengths: Lengths,
    ends: Ends,
    pre_sale: PreSale,
    /// Places up to here may be given out.
    reserved: Option<u64>,
    lost: Option<Lost>,
    /// The latest instant that it was told.
    latest_at: Timestamp,
    departures: Departures,
    /// By what those on the list were ordered, ascending; empty until somebody has to be found there.
    drawn_ranks: Vec<Hash32>,
}

impl Room {
    pub fn new(concert: ConcertId, terms: RoomTerms) -> Self {
        Self {
            concert,
            lanes: Lanes::new(&terms.lanes),
            terms,
            own: None,
            stock: Stock::default(),
            sold_out: false,
            entries: HashMap::new(),
            by_user: HashMap::new(),
            by_place: Vec::new(),
            active: BTreeSet::new(),
            ended: VecDeque::new(),
            pace: Pace::default(),
            presence: Presence::default(),
            adaptive: Adaptive::default(),
            turns: Turns::default(),
            lengths: Lengths::default(),
            ends: Ends::default(),
            pre_sale: PreSale::default(),
            reserved: None,
            lost: None,
            latest_at: Timestamp::UNIX_EPOCH,
            departures: Departures::default(),
            drawn_ranks: Vec::new(),
        }
    }

    /// What changed for whom is added to `changes`.
    pub fn apply(&mut self, now: Timestamp, input: &RoomInput, changes: &mut Vec<RoomChange>) -> RoomOutput {
        self.follow(now, changes);
        let now = now.max(self.latest_at);
        self.presence.after_silence(now - self.latest_at);
        self.latest_at = now;
        let ran = self.lanes.passed_at().is_some_and(|at| self.moves(at));
        self.lanes.pass(now, ran);
        self.close_pre_sale(now);
        match input {
            RoomInput::Open(terms) => {
                self.lanes.set(&terms.lanes);
                // What was published before somebody came is what they are drawn by.
                let published = self.terms.commitment.filter(|_| self.pre_sale.has_begun());
                self.terms = RoomTerms { commitment: published.or(terms.commitment), ..terms.clone() };
                self.close_pre_sale(now);
            }
            RoomInput::Join { user, entry, lane } => return self.join(*user, *entry, *lane, now, changes),
            RoomInput::Leave { entry } => {
                self.end_if_over(*entry, now, changes);
                self.end(*entry, QueueStatus::Left, now, changes);
            }
            RoomInput::Finish { user, paid_at } => self.finish(*user, *paid_at, now, changes),
            RoomInput::Extend { entry } => return RoomOutput::Extended(self.extend(*entry, None, now, changes)),
            RoomInput::Lengthen { entry, until } => return RoomOutput::Extended(self.extend(*entry, Some(*until), now, changes)),
            RoomInput::Tick(stock) => return RoomOutput::Ticked(self.tick(now, *stock, changes)),
            RoomInput::Admit { admission, version } => {
                if self.own.is_none_or(|(_, known)| known < *version) {
                    self.own = Some((*admission, *version));
                }
            }
            RoomInput::Appear { instance } => self.presence.appeared(*instance, now),
            RoomInput::Connect { instance, entries } => {
                let counts = self.presence.heard(*instance, now);
                for entry in entries {
                    if counts && self.lives(*entry, now) {
                        self.presence.connect(*instance, *entry, now);
                    }
                }
                self.seen(entries, now);
            }
            RoomInput::Disconnect { instance, entries } => {
                for entry in entries {
                    self.presence.disconnect(*instance, *entry, is_active(&self.entries, *entry), now);
                }
            }
            RoomInput::Seen { entries } => {
                for entry in entries {
                    self.presence.seen(*entry, now);
                }
                self.seen(entries, now);
            }
            RoomInput::Report { instance, health } => {
                self.presence.heard(*instance, now);
                if let Some(health) = health.filter(|_| self.admission().heeds_health()) {
                    let (rate, active) = (self.rate(now), self.active.len() as u64);
                    self.adaptive.observe(*instance, health, self.terms.p99_target_ms, rate, active, now);
                }
            }
            RoomInput::Restore(claim) => return RoomOutput::Place(self.give_back(*claim, now, changes)),
            RoomInput::Reserve { to } => self.reserved = Some(self.reserved.unwrap_or(0).max(*to)),
            RoomInput::Reveal { seed, beacon } => self.reveal(seed, beacon.as_deref()),
        }
        RoomOutput::Nothing
    }

    fn join(&mut self, user: UserId, entry: QueueEntryId, lane: Lane, now: Timestamp, changes: &mut Vec<RoomChange>) -> RoomOutput {
        if let Some(place) = self.entry_of(user).and_then(|known| self.place(known, now))
            && !place.status.is_ended()
        {
            // Told again after a lost answer, it is still new.
            return RoomOutput::Entered(Entered { new: place.entry == entry, place });
        }
        if let Some(known) = self.place(entry, now) {
            // Told again so late that it is over by now; or of somebody else, which is nobody's stay.
            return if known.user == user { RoomOutput::Entered(Entered { place: known, new: true }) } else { RoomOutput::Nothing };
        }
        if self.admission().mode == AdmissionMode::Draining {
            return RoomOutput::Closed;
        }
        if let Some(reserved) = self.reserved
            && self.last_place() + self.pre_sale.unplaced() >= reserved
        {
            return RoomOutput::Unreserved(reserved);
        }
        // A turn that is over by the clock ends before the new entry begins.
        if let Some(previous) = self.entry_of(user) {
            self.end_if_over(previous, now, changes);
        }
        let lane = self.lanes.known(lane);
        let place = if self.waits_for_draw(now) {
            self.pre_sale.join(entry);
            0
        } else {
            self.by_place.push(entry);
            self.lanes.occupy(lane, self.by_place.len() as u64);
            self.by_place.len() as u64
        };
        self.by_user.insert(user, entry);
        self.entries.insert(entry, Entry { user, place, lane, stage: Stage::Waiting });
        self.changed(entry, None, changes);
        match self.place(entry, now) {
            Some(place) => {
                if let Some(ahead) = place.ahead.filter(|ahead| !self.goes_next(*ahead, now)) {
                    self.told(lane, entry, ahead);
                }
                RoomOutput::Entered(Entered { place, new: true })
            }
            None => RoomOutput::Nothing,
        }
    }

    /// Ends the user's turn because of what was paid at `paid_at`. Somebody who waits, whose turn is over, or who came
    /// back for another turn since, keeps what there is.
    fn finish(&mut self, user: UserId, paid_at: Timestamp, now: Timestamp, changes: &mut Vec<RoomChange>) {
        let Some(entry) = self.entry_of(user) else { return };
        let turn = self.entries.get(&entry).and_then(Entry::turn);
        if turn.is_some_and(|turn| turn.until > now && turn.promoted_at <= paid_at) {
            self.seen(&[entry], now);
            self.end(entry, QueueStatus::Done, now, changes);
        }
    }

    /// `from`: when the turn ended that the caller knows of. A caller who asks again because no
    /// answer came has it longer already.
    fn extend(&mut self, entry: QueueEntryId, from: Option<Timestamp>, now: Timestamp, changes: &mut Vec<RoomChange>) -> Extended {
        let (ttl, most) = (self.active_ttl(), self.terms.extensions_max);
        let Some(kept) = self.entries.get_mut(&entry) else { return Extended::NotActive };
        let Stage::Active(turn) = &mut kept.stage else { return Extended::NotActive };
        if turn.until <= now {
            return Extended::NotActive;
        }
        if from.is_none_or(|from| from == turn.until) {
            if turn.extended >= most {
                return Extended::LimitReached;
            }
            self.active.remove(&(turn.until, entry));
            turn.until = turn.until.max(now + ttl);
            turn.extended += 1;
            if !turn.seen {
                self.lengths.seen(turn);
            }
            turn.seen = true;
            self.active.insert((turn.until, entry));
            self.presence.seen(entry, now);
            self.changed(entry, Some(QueueStatus::Active), changes);
        }
        self.place(entry, now).map_or(Extended::NotActive, Extended::To)
    }

    /// Writes what is over, gives back what the gone have left, and promotes whoever may go now, in capped steps.
    fn tick(&mut self, now: Timestamp, stock: Stock, changes: &mut Vec<RoomChange>) -> Ticked {
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

    /// Whoever was connected and is gone for longer than they may. Whose turn ended so is named.
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
    fn to_forget(&self, now: Timestamp) -> Option<QueueEntryId> {
        let (at, entry) = self.ended.front().filter(|_| !self.pre_sale.is_closed_undrawn())?;
        (*at < now - TimeDelta::seconds(ENDED_KEPT_S)).then_some(*entry)
    }

    fn max_active(&self, stock: Stock) -> u32 {
        let admission = self.admission();
        if !admission.auto {
            return admission.max_active;
        }
        forecast::auto_max_active(stock.obtainable, self.adaptive.bearable(), &self.turns).min(admission.max_active)
    }

    /// How many may be promoted at `now`: the smallest of what every policy allows. Turns that are over count no more.
    fn promotable(&self, now: Timestamp, stock: Stock) -> u32 {
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

    /// Whether promotion may go on, as far as that is not a matter of who waits and who is active.
    fn moves(&self, now: Timestamp) -> bool {
        !self.sold_out && self.admission().mode != AdmissionMode::Paused && self.is_open(now)
    }

    /// Tells the lanes what a tick did, and samples what is told in them. `is_paced`: a rate bounds promotion, not
    /// places; otherwise those promoted beyond the turns that ended filled places that were free, which does not last.
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
                self.told(lane, entry, depth);
            }
        }
    }

    fn told(&mut self, lane: Lane, entry: QueueEntryId, ahead: u64) {
        let ends = self.lanes.ends(lane, self.lengths.curve());
        self.lanes.get_mut(lane).forecast.told(entry, ahead, ends.as_ref());
    }

    fn promote(&mut self, lane: Lane, place: u64, now: Timestamp, changes: &mut Vec<RoomChange>) {
        self.lanes.vacate(lane, place);
        let (entry, until) = (self.at_place(place), now + self.active_ttl());
        let Some(kept) = entry.and_then(|entry| self.entries.get_mut(&entry)) else { return };
        let turn = Turn { promoted_at: now, until, extended: 0, seen: false };
        kept.stage = Stage::Active(turn);
        let Some(entry) = entry else { return };
        self.active.insert((until, entry));
        self.lanes.admitted(lane, entry, now);
        self.lengths.began(&turn);
        self.presence.turn_began(entry, now);
        self.changed(entry, Some(QueueStatus::Waiting), changes);
    }

    fn end_if_over(&mut self, entry: QueueEntryId, now: Timestamp, changes: &mut Vec<RoomChange>) {
        if self.entries.get(&entry).and_then(Entry::turn).is_some_and(|turn| turn.until <= now) {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
    }

    fn end(&mut self, entry: QueueEntryId, how: QueueStatus, now: Timestamp, changes: &mut Vec<RoomChange>) {
        let Some(kept) = self.entries.get_mut(&entry) else { return };
        let was = kept.status();
        match kept.stage {
            Stage::Ended { .. } => return,
            Stage::Active(turn) => {
                self.active.remove(&(turn.until, entry));
                let length = now.min(turn.until) - turn.promoted_at;
                self.turns.ended(length.as_seconds_f64(), how == QueueStatus::Done, turn.seen);
                self.lengths.ended(&turn, length.as_seconds_f64(), turn.until <= now);
            }
            Stage::Waiting => {
                if kept.place == 0 {
                    self.pre_sale.left(entry);
                } else {
                    self.lanes.vacate(kept.lane, kept.place);
                    self.departures.left(kept.lane, kept.place);
                }
                self.lanes.get_mut(kept.lane).forecast.left(entry);
            }
        }
        kept.stage = Stage::Ended { how, at: now };
        self.presence.ended(entry);
        self.ended.push_back((now, entry));
        match how {
            QueueStatus::Done => self.ends.served += 1,
            QueueStatus::Left => self.ends.left += 1,
            _ => self.ends.expired += 1,
        }
        self.changed(entry, Some(was), changes);
    }

    fn changed(&self, entry: QueueEntryId, was: Option<QueueStatus>, changes: &mut Vec<RoomChange>) {
        if let Some(kept) = self.entries.get(&entry) {
            let turn = kept.turn();
            changes.push(RoomChange {
                entry,
                user: kept.user,
                place: kept.place,
                lane: kept.lane,
                was,
                status: kept.status(),
                promoted_at: turn.map(|turn| turn.promoted_at),
                active_until: turn.map(|turn| turn.until),
            });
        }
    }

    fn seen(&mut self, entries: &[QueueEntryId], now: Timestamp) {
        for entry in entries {
            if let Some(Entry { stage: Stage::Active(turn), .. }) = self.entries.get_mut(entry)
                && turn.until > now
                && !turn.seen
            {
                self.lengths.seen(turn);
                turn.seen = true;
            }
        }
    }

    fn lives(&self, entry: QueueEntryId, now: Timestamp) -> bool {
        match self.entries.get(&entry).map(|kept| kept.stage) {
            Some(Stage::Waiting) => true,
            Some(Stage::Active(turn)) => turn.until > now,
            _ => false,
        }
    }

    /// Turns that are over by the clock and not written yet.
    fn overdue(&self, now: Timestamp) -> impl Iterator<Item = QueueEntryId> + '_ {
        self.active.range(..=(now, QueueEntryId(uuid::Uuid::max()))).map(|(_, entry)| *entry)
    }

    fn at_place(&self, place: u64) -> Option<QueueEntryId> {
        place.checked_sub(1).and_then(|at| self.by_place.get(at as usize)).copied()
    }

    /// The last place that was given out.
    pub fn last_place(&self) -> u64 {
        self.by_place.len() as u64
    }

    fn active_ttl(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.terms.active_ttl_s))
    }

    /// Whether the sale has started, and who came before it has a place.
    fn is_open(&self, now: Timestamp) -> bool {
        self.terms.sale_starts_at.is_none_or(|start| start <= now) && !self.waits_for_draw(now) && !self.pre_sale.is_to_be_drawn()
    }

    fn rate(&self, now: Timestamp) -> f64 {
        f64::from(self.pace.within(now, TimeDelta::seconds(RATE_WINDOW_S))) / RATE_WINDOW_S as f64
    }

    /// `None` while no turn has ended.
    fn chance(&self, lane: Lane, ahead: u64) -> Option<u16> {
        let forecast = &self.lanes.get(lane).forecast;
        let ends = |lane| self.lanes.ends(lane, self.lengths.curve());
        let own = ends(lane);
        // Also of those in their turn now: what they leave comes back while one's own turn lasts.
        let others = (0..self.lanes.all().len() as u8).map(Lane).filter(|other| *other != lane);
        let beside: f64 = others
            .map(|other| self.lanes.get(other).forecast.turns_beside(ends(other).as_ref(), forecast.seconds(ahead, own.as_ref()), ahead))
            .sum();
        let ended_before = forecast.turns_before(ahead, own.as_ref()) + beside + self.active.len() as f64;
        (self.turns.are_measured() || self.sold_out).then(|| forecast::chance(ended_before, self.stock.obtainable, &self.turns))
    }
}

fn is_active(entries: &HashMap<QueueEntryId, Entry>, entry: QueueEntryId) -> bool {
    entries.get(&entry).and_then(Entry::turn).is_some()
}

#[cfg(test)]
mod tests;
