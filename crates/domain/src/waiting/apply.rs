//! One input after the other: what each does to the room.

use super::entry::{Entered, Extended, Lane, QueueStatus, RoomChange};
use super::input::{RoomInput, RoomOutput, RoomTerms};
use super::room::Room;
use super::stage::{Entry, Stage, is_active};
use crate::{AdmissionMode, QueueEntryId, Timestamp, UserId};

impl Room {
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
                // The commitment that was published before the first user joined is the one that counts.
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
                let counts = self.presence.reported(*instance, now);
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
                self.presence.reported(*instance, now);
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
            // Applied again after a lost answer, it is still new.
            return RoomOutput::Entered(Entered { new: place.entry == entry, place });
        }
        if let Some(known) = self.place(entry, now) {
            // Applied again so late that the entry has ended; or the id is another user's, and nothing is joined.
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
                    self.forecast_shown(lane, entry, ahead);
                }
                RoomOutput::Entered(Entered { place, new: true })
            }
            None => RoomOutput::Nothing,
        }
    }

    /// Ends the user's turn because of a payment at `paid_at`. An entry that waits, whose turn is over, or whose turn began
    /// later stays as it is.
    fn finish(&mut self, user: UserId, paid_at: Timestamp, now: Timestamp, changes: &mut Vec<RoomChange>) {
        let Some(entry) = self.entry_of(user) else { return };
        let turn = self.entries.get(&entry).and_then(Entry::turn);
        if turn.is_some_and(|turn| turn.until > now && turn.promoted_at <= paid_at) {
            self.seen(&[entry], now);
            self.end(entry, QueueStatus::Done, now, changes);
        }
    }

    /// `from`: the end of the turn that the caller knows. A caller that retries because its answer was lost has the longer
    /// turn already.
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
}
