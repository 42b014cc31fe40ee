//! One room as this instance has it: the log's records applied up to a position, and the log's time.

use boxoffice_domain::waiting::{Room, RoomChange, RoomOutput, Stock, is_set_back};
use boxoffice_domain::{Timestamp, UserId};
use boxoffice_ports::{Clock, LogPosition, RoomRecord};
use chrono::TimeDelta;

use crate::store_time::RemoteTime;

pub(super) struct Replica {
    /// `None` until a log was read.
    pub(super) room: Option<Room>,
    pub(super) position: LogPosition,
    /// How many rooms there have been here, each in the place of the one before.
    generation: u64,
    /// The log's time.
    pub(super) log_time: RemoteTime,
    /// The latest instant in a record, or that it was here when the log's time was read.
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
            log_time: RemoteTime::unknown(),
            latest: Timestamp::UNIX_EPOCH,
            since_snapshot: 0,
        }
    }

    /// Takes over the log's time. If the log's clock was set back, time stands still here until the room has gone back
    /// with it. Otherwise what is over in the room would read as if it were not.
    ///
    /// `offset` is how far tests had moved the clocks before the log was asked. If one moved them meanwhile, it is unknown
    /// whether that was before or after the log's answer, and the time known here goes on.
    pub(super) fn observe_time(&mut self, now: Timestamp, offset: TimeDelta, clock: &dyn Clock) {
        if clock.offset() != offset {
            return;
        }
        let known = self.now(clock);
        let goes_back = is_set_back(now, known) && self.room.as_ref().is_some_and(|room| !room.is_ahead_of(now));
        self.latest = if goes_back { now } else { known.max(now) };
        self.log_time = RemoteTime::new(now, clock);
    }

    /// The room's time: it goes back only when the room has.
    pub(super) fn now(&self, clock: &dyn Clock) -> Timestamp {
        self.log_time.now(clock).max(self.latest)
    }

    /// Whether a tick would change anything, by the log's own time.
    pub(super) fn is_due(&self, clock: &dyn Clock, stock: Stock) -> Option<bool> {
        self.room.as_ref().map(|room| room.is_due(self.log_time.now(clock), stock))
    }

    pub(super) fn look<R>(&self, clock: &dyn Clock, look: impl FnOnce(&Room, Timestamp) -> R) -> Option<R> {
        self.room.as_ref().map(|room| look(room, self.now(clock)))
    }

    /// The same with the room's number among those that have been here.
    pub(super) fn watch<R>(&self, clock: &dyn Clock, watch: impl FnOnce(u64, &Room, Timestamp) -> R) -> Option<R> {
        self.look(clock, |room, now| watch(self.generation, room, now))
    }

    /// Begins again with a room that stands for everything up to `position`. Returns the one there was.
    pub(super) fn begin(&mut self, room: Room, position: LogPosition) -> Option<Room> {
        self.position = position;
        self.generation += 1;
        self.since_snapshot = 0;
        self.room.replace(room)
    }

    /// Applies the records that follow, in order. Returns the outputs of the last record. Users whose turn ended
    /// because they were gone are added to `abandoned`.
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
