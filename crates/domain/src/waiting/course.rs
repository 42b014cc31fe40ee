//! How one entry goes from stage to stage, and what else learns of it.

use super::entry::{Lane, QueueStatus, RoomChange};
use super::room::Room;
use super::stage::{Entry, Stage, Turn};
use crate::{QueueEntryId, Timestamp};

impl Room {
    pub(super) fn promote(&mut self, lane: Lane, place: u64, now: Timestamp, changes: &mut Vec<RoomChange>) {
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

    pub(super) fn end_if_over(&mut self, entry: QueueEntryId, now: Timestamp, changes: &mut Vec<RoomChange>) {
        if self.entries.get(&entry).and_then(Entry::turn).is_some_and(|turn| turn.until <= now) {
            self.end(entry, QueueStatus::Expired, now, changes);
        }
    }

    pub(super) fn end(&mut self, entry: QueueEntryId, how: QueueStatus, now: Timestamp, changes: &mut Vec<RoomChange>) {
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

    pub(super) fn seen(&mut self, entries: &[QueueEntryId], now: Timestamp) {
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
}
