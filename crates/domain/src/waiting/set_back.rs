//! A clock that is set back: the room goes on from where it was, by the clock as it is now.
//!
//! Nothing passed while the clock was set, so every instant that the room keeps moves back with it: as much is left of
//! each turn, of each window of a rate, of each grace. Only the start of the sale stays where it is,
//! which is an hour of the calendar.
//!
//! Steps of up to [`SET_BACK_S`] do not count: the clocks of servers that replace each other differ by as much. The room's time then
//! stands still until the clock is where it was.

use super::entry::RoomChange;
use super::room::Room;
use super::stage::Stage;
use crate::{QueueStatus, Timestamp};
use chrono::TimeDelta;

/// A clock that is behind by more than this was set back, seconds.
pub const SET_BACK_S: i64 = 1;

/// Whether the clock is so far behind `latest` that it was set back.
pub fn is_set_back(now: Timestamp, latest: Timestamp) -> bool {
    latest - now > TimeDelta::seconds(SET_BACK_S)
}

/// The time of a log whose last record is of `latest`: it goes back only when the clock was set back.
pub fn log_time(clock: Timestamp, latest: Timestamp) -> Timestamp {
    if is_set_back(clock, latest) { clock } else { clock.max(latest) }
}

impl Room {
    /// Whether the room has to go back before it is read by this clock.
    pub fn is_ahead_of(&self, now: Timestamp) -> bool {
        is_set_back(now, self.latest_at)
    }

    /// Goes back with the clock, if that was set back. Turns that end at another instant now are among the changes.
    pub(super) fn follow(&mut self, now: Timestamp, changes: &mut Vec<RoomChange>) {
        if self.is_ahead_of(now) {
            self.move_back(self.latest_at - now);
            for (_, entry) in &self.active {
                self.changed(*entry, Some(QueueStatus::Active), changes);
            }
        }
    }

    fn move_back(&mut self, by: TimeDelta) {
        for kept in self.entries.values_mut() {
            match &mut kept.stage {
                Stage::Waiting => {}
                Stage::Active(turn) => {
                    turn.promoted_at -= by;
                    turn.until -= by;
                }
                Stage::Ended { at, .. } => *at -= by,
            }
        }
        self.active = std::mem::take(&mut self.active).into_iter().map(|(until, entry)| (until - by, entry)).collect();
        self.ended.iter_mut().for_each(|(at, _)| *at -= by);
        self.pace.move_back(by);
        self.lanes.move_back(by);
        self.lengths.move_back(by);
        self.presence.move_back(by);
        self.adaptive.move_back(by);
        if let Some(lost) = &mut self.lost {
            lost.move_back(by);
        }
        self.latest_at -= by;
    }
}
