//! Restoring what a room has lost: its log may be kept in the memory of another server.
//!
//! A room is rebuilt from what the ledger's database keeps of it (the mirror): how far it had come, and the entries in their
//! turn. Waiting entries come back by their tokens: a place beyond the last one promoted waits where it was; one up to
//! there is among the turns, or has ended. For `FROZEN_S` after a loss the mark of promoted places stands still, however
//! many are promoted, so that a second loss does not end entries that have not come back yet.
//!
//! Never too many: a turn that the mirror does not know goes on only if a place is free; otherwise its entry waits, in front
//! of all others.
//!
//! If the room was lost before the draw, entries that come back are drawn with the others: the list stays open for
//! `RETURN_S` at least. If it was lost after the draw, a token from before is worth the place that was drawn.

use super::entry::{Lane, Place, QueueStatus, RoomChange};
use super::input::{PlaceClaim, RoomTerms};
use super::lost::{ActivePlace, Lost, RoomMark};
use super::presale::{DrawView, Ranked};
use super::room::Room;
use super::stage::{Ends, Entry, Stage, Turn};
use crate::admission::INTERVAL_S_MAX;
use crate::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};
use chrono::TimeDelta;
use std::collections::HashMap;

/// For how long after a loss entries may come back for their places, seconds.
const FROZEN_S: i64 = 30 * 60;
/// The longest pause of promotion after a loss, seconds: a rate over a longer time goes on from the turns that are known.
const PAUSE_MAX_S: i64 = 3;
/// How long a list that was lost before it was drawn stays open at least, seconds: by then every client that polls has
/// polled again.
const RETURN_S: i64 = 15;

impl Room {
    /// A room from what the mirror kept of it: `own` is the admission an operator set, with its version, `draw` what was
    /// drawn, with its list and its seed. Places are reserved in the mirror before they are given out, so a mark without
    /// places means that nothing was lost: the room is new, or its log is durable. Such a room waits for no returns.
    pub fn rebuilt(
        concert: ConcertId,
        terms: RoomTerms,
        own: Option<(Admission, i64)>,
        mark: RoomMark,
        turns: Vec<ActivePlace>,
        draw: Option<DrawView>,
        now: Timestamp,
    ) -> Self {
        let mut room = Self::new(concert, terms);
        room.own = own;
        if let Some(draw) = draw {
            room.restore_draw(draw);
        }
        room.fill_places_to(mark.last_place);
        let mut pause = room.admission().per_interval.map_or(0, |rate| i64::from(rate.seconds).min(PAUSE_MAX_S));
        let is_list_open = room.terms.sale_starts_at.is_some() && (room.waits_for_draw(now) || room.is_list_to_close(now));
        if is_list_open {
            pause = RETURN_S;
        }
        room.lost = (room.last_place() > 0).then(|| Lost {
            to: room.last_place(),
            head: mark.promoted_to,
            frozen_until: now + TimeDelta::seconds(FROZEN_S),
            resume_at: now + TimeDelta::seconds(pause),
        });
        room.ends = Ends { served: mark.served, left: mark.left, expired: mark.expired };
        for turn in latest_of_each(turns) {
            room.take_up(turn, now);
        }
        let began = room.active.iter().filter_map(|(_, entry)| room.entries.get(entry)).filter_map(Entry::turn);
        let mut began: Vec<_> =
            began.map(|turn| turn.promoted_at).filter(|at| *at > now - TimeDelta::seconds(i64::from(INTERVAL_S_MAX))).collect();
        began.sort_unstable();
        // One that began later than now began before the clock was set back: the window begins anew.
        began.into_iter().for_each(|at| room.pace.record(at.min(now), 1));
        room
    }

    /// A room whose log was lost begins again as one instance knew it: other instances may know of more.
    ///
    /// No place is given out that another instance can have given out; its entry comes back for it. A rate begins anew,
    /// because promotions that are not known here count, too.
    pub fn begin_again(&mut self, now: Timestamp) {
        self.follow(now, &mut Vec::new());
        let (head, last) = (self.mark(now).promoted_to, self.last_place());
        if !self.pre_sale.is_to_be_drawn() {
            self.fill_places_to(self.reserved.unwrap_or(last));
        }
        let pause = self.admission().per_interval.map_or(0, |rate| i64::from(rate.seconds).min(PAUSE_MAX_S));
        self.lost = Some(Lost {
            to: self.last_place(),
            head,
            frozen_until: now + TimeDelta::seconds(FROZEN_S),
            resume_at: now + TimeDelta::seconds(pause),
        });
    }

    /// A turn that the mirror knows.
    fn take_up(&mut self, turn: ActivePlace, now: Timestamp) {
        let ActivePlace { entry, user, place, promoted_at, active_until: until } = turn;
        if until <= now {
            return;
        }
        // No turn is longer from now on: it is of a clock that was set back.
        let (promoted_at, until) = (promoted_at.min(now), until.min(now + self.active_ttl()));
        let is_free = self.active.len() < self.admission().max_active as usize;
        let stage = if is_free { Stage::Active(Turn { promoted_at, until, extended: 0, seen: true }) } else { Stage::Waiting };
        self.put_back(entry, Entry { user, place, lane: Lane(0), stage });
    }

    /// Restores an entry from the claim of a genuine token.
    pub(super) fn give_back(&mut self, claim: PlaceClaim, now: Timestamp, changes: &mut Vec<RoomChange>) -> Option<Place> {
        if let Some(place) = self.place(claim.entry, now) {
            return Some(place);
        }
        let PlaceClaim { entry, user, active_until, .. } = claim;
        let lane = self.lanes.known(claim.lane);
        let other = self.entry_of(user);
        if claim.place == 0 && self.waits_for_draw(now) {
            if other.is_none() {
                self.pre_sale.join(entry);
                self.by_user.insert(user, entry);
                self.entries.insert(entry, Entry { user, place: 0, lane, stage: Stage::Waiting });
                self.changed(entry, None, changes);
            }
            return self.place(entry, now);
        }
        let place = if claim.place == 0 { self.drawn_place(user)? } else { claim.place };
        if active_until.is_some_and(|until| until <= now) || !self.was_lost(place, now) || self.is_taken(place) {
            return None;
        }
        if let Some(other) = other.filter(|other| self.entries.contains_key(other)) {
            if self.keeps(other, place, now) {
                return None;
            }
            self.end_if_over(other, now, changes);
            self.end(other, QueueStatus::Left, now, changes);
        }
        let running = self.active.len() - self.overdue(now).count();
        let until = active_until.filter(|_| running < self.admission().max_active as usize).map(|until| until.min(now + self.active_ttl()));
        let turn = |until: Timestamp| Turn { promoted_at: (until - self.active_ttl()).min(now), until, extended: 0, seen: true };
        let stage = until.map_or(Stage::Waiting, |until| Stage::Active(turn(until)));
        self.put_back(entry, Entry { user, place, lane, stage });
        self.changed(entry, None, changes);
        self.place(entry, now)
    }

    /// Whether [`RoomInput::Restore`](super::RoomInput::Restore) could do anything: entries that are forgotten for good are
    /// polled for as well, and need no input in the log. The first claim of a drawn place makes it cheap to judge others.
    pub fn may_restore(&self, claim: &PlaceClaim, now: Timestamp) -> bool {
        let other = self.entry_of(claim.user).filter(|other| self.entries.contains_key(other));
        if self.entries.contains_key(&claim.entry) {
            return true;
        }
        if claim.place == 0 && self.waits_for_draw(now) {
            return other.is_none();
        }
        let place = match (claim.place, self.ranked_place(claim.user)) {
            (0, Ranked::Unknown) => return true,
            (0, Ranked::Absent) => return false,
            (0, Ranked::At(place)) => place,
            (place, _) => place,
        };
        let is_over = claim.active_until.is_some_and(|until| until <= now);
        !is_over && self.is_lost(place) && !self.is_taken(place) && !other.is_some_and(|other| self.keeps(other, place, now))
    }

    /// Whether a user's other stay is kept before one with this place: the later of two is the user's; one that began
    /// after the loss began because the earlier was lost.
    fn keeps(&self, other: QueueEntryId, place: u64, now: Timestamp) -> bool {
        let Some(kept) = self.entries.get(&other) else { return false };
        let is_newcomer = self.lost.is_some_and(|lost| kept.place > lost.to);
        let lives = self.lives(other, now);
        (lives && kept.turn().is_some()) || (kept.place > place && !(lives && is_newcomer))
    }

    /// Whether a place was given out that this room does not know of.
    fn is_lost(&self, place: u64) -> bool {
        place > self.last_place() || self.lost.is_some_and(|lost| place <= lost.to && place > lost.head)
    }

    /// Whether the entry that had this place may come back for it.
    fn was_lost(&mut self, place: u64, now: Timestamp) -> bool {
        let lost = self.lost.unwrap_or(Lost { to: 0, head: 0, frozen_until: now, resume_at: now });
        if place > self.last_place() {
            // Given out, and not by this log: the room knows less than it did.
            self.fill_places_to(place);
            self.lost = Some(Lost { to: place, frozen_until: now + TimeDelta::seconds(FROZEN_S), ..lost });
            return true;
        }
        self.is_lost(place)
    }

    /// Whether an entry is known to have this place: a log that lost its end can have given it out twice.
    fn is_taken(&self, place: u64) -> bool {
        let is_to_be_drawn = self.pre_sale.is_closed_undrawn() && self.pre_sale.places().contains(&place);
        is_to_be_drawn || self.at_place(place).is_some_and(|known| self.entries.contains_key(&known))
    }

    fn put_back(&mut self, entry: QueueEntryId, kept: Entry) {
        self.fill_places_to(kept.place);
        if let Some(at) = kept.place.checked_sub(1).and_then(|at| self.by_place.get_mut(at as usize)) {
            *at = entry;
        }
        match kept.stage {
            Stage::Active(turn) => {
                self.lengths.began(&turn);
                self.active.insert((turn.until, entry));
            }
            Stage::Waiting => {
                self.lanes.occupy(kept.lane, kept.place);
                self.departures.disturbed();
            }
            Stage::Ended { .. } => {}
        }
        self.by_user.insert(kept.user, entry);
        self.entries.insert(entry, kept);
    }

    /// What the mirror keeps, beside the turns. `last_place` is what was reserved, if anything was.
    pub fn mark(&self, now: Timestamp) -> RoomMark {
        let head = self.lost.map_or(0, |lost| lost.head);
        let waiting = self.lanes.all().iter().filter_map(|lane| lane.line.first()).min();
        let mut passed = waiting.map_or(self.last_place(), |first| first - 1);
        if self.pre_sale.is_closed_undrawn() {
            passed = passed.min(self.pre_sale.base());
        }
        if self.lost.is_some_and(|lost| now < lost.frozen_until) {
            passed = head;
        }
        RoomMark {
            last_place: self.reserved.unwrap_or(0).max(self.last_place()),
            promoted_to: passed.max(head),
            served: self.ends.served,
            expired: self.ends.expired,
            left: self.ends.left,
        }
    }

    /// Up to where places are reserved; `None`: they need not be.
    pub fn reserved(&self) -> Option<u64> {
        self.reserved
    }

    /// Every entry in its turn.
    pub fn turns(&self) -> Vec<ActivePlace> {
        let turn = |entry: QueueEntryId| {
            let kept = self.entries.get(&entry)?;
            let Turn { promoted_at, until: active_until, .. } = kept.turn()?;
            Some(ActivePlace { entry, user: kept.user, place: kept.place, promoted_at, active_until })
        };
        self.active.iter().filter_map(|(_, entry)| turn(*entry)).collect()
    }

    /// The live entries at places beyond `place`, and those without a place yet, as tokens would claim them.
    pub fn claims_beyond(&self, place: u64) -> Vec<PlaceClaim> {
        let claim = |entry: &QueueEntryId| {
            let kept = self.entries.get(entry).filter(|kept| !kept.status().is_ended())?;
            let active_until = kept.turn().map(|turn| turn.until);
            Some(PlaceClaim { entry: *entry, user: kept.user, lane: kept.lane, place: kept.place, active_until })
        };
        self.by_place.iter().skip(place as usize).chain(self.pre_sale.joined()).filter_map(claim).collect()
    }
}

/// In the order in which they began; of two turns of one user, which a crash can leave behind, the later one.
fn latest_of_each(mut turns: Vec<ActivePlace>) -> Vec<ActivePlace> {
    let mut latest: HashMap<UserId, u64> = HashMap::new();
    for turn in &turns {
        let place = latest.entry(turn.user).or_default();
        *place = turn.place.max(*place);
    }
    turns.retain(|turn| latest.get(&turn.user) == Some(&turn.place));
    turns.sort_unstable_by_key(|turn| (turn.promoted_at, turn.place));
    turns
}
