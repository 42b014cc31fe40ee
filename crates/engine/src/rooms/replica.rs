//! One room as this instance has it: what the log has said up to a position, and what time it is there.

use boxoffice_domain::waiting::{Room, RoomChange, RoomOutput, Stock, is_set_back};
use boxoffice_domain::{Timestamp, UserId};
use boxoffice_ports::{Clock, LogPosition, RoomRecord};

use crate::store_time::HeardTime;

pub(super) struct Replica {
    /// `None`: nothing was heard yet.
    pub(super) room: Option<Room>,
    pub(super) position: LogPosition,
    /// How many rooms there have been here, one in the place of the other.
    generation: u64,
    /// The log's time.
    pub(super) heard: HeardTime,
    /// The latest instant that the log has told, or that it was here when it told another.
    latest: Timestamp,
    /// Inputs applied since the snapshot that the log begins with, as far as is known.
    pub(super) since_snapshot: usize,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self {
            room: None,
            position: LogPosition::default(),
            generation: 0,
            heard: HeardTime::unheard(),
            latest: Timestamp::UNIX_EPOCH,
            since_snapshot: 0,
        }
    }

    /// The log said what time it is. When its clock was set back, time stands still here until the room has gone back
    /// with it: what is over in the room must not read as if it were not.
    pub(super) fn heard(&mut self, now: Timestamp, clock: &dyn Clock) {
        let known = self.now(clock);
        let goes_back = is_set_back(now, known) && self.room.as_ref().is_some_and(|room| !room.is_ahead_of(now));
        self.latest = if goes_back { now } else { known.max(now) };
        self.heard = HeardTime::new(now, clock);
    }

    /// The room's time: it goes back only when the room has.
    pub(super) fn now(&self, clock: &dyn Clock) -> Timestamp {
        self.heard.now(clock).max(self.latest)
    }

    /// Whether a tick would change anything, by the log's time itself.
    pub(super) fn is_due(&self, clock: &dyn Clock, stock: Stock) -> Option<bool> {
        self.room.as_ref().map(|room| room.is_due(self.heard.now(clock), stock))
    }

    pub(super) fn look<R>(&self, clock: &dyn Clock, look: impl FnOnce(&Room, Timestamp) -> R) -> Option<R> {
        self.room.as_ref().map(|room| look(room, self.now(clock)))
    }

    /// The same with the room's number among those that have been here.
    pub(super) fn watch<R>(&self, clock: &dyn Clock, watch: impl FnOnce(u64, &Room, Timestamp) -> R) -> Option<R> {
        self.look(clock, |room, now| watch(self.generation, room, now))
    }

    /// Begins again with a room that stands for everything up to `position`. Gives the one there was.
    pub(super) fn begin(&mut self, room: Room, position: LogPosition) -> Option<Room> {
        self.position = position;
        self.generation += 1;
        self.since_snapshot = 0;
        self.room.replace(room)
    }

    /// Applies what follows, in order. What the last record's inputs came to; whose turn ended because they were gone is
    /// added to `abandoned`.
    pub(super) fn apply(
        &mut self,
        records: Vec<RoomRecord>,
        changes: &mut Vec<RoomChange>,
        abandoned: &mut Vec<UserId>,
    ) -> Vec<RoomOutput> {
        let mut outputs = Vec::new();
        let Some(room) = &mut self.room else { return outputs };
        for record in records {
            debug_assert_eq!(record.seq, self.position.seq + 1, "a log without a gap");
            outputs.clear();
            outputs.extend(record.inputs.iter().map(|input| room.apply(record.at, input, changes)));
            for output in &mut outputs {
                if let RoomOutput::Ticked(ticked) = output {
                    abandoned.append(&mut ticked.abandoned);
                }
            }
            self.since_snapshot += record.inputs.len();
            self.position.seq = record.seq;
            self.latest = self.latest.max(record.at);
        }
        outputs
    }
}
