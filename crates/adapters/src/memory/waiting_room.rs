//! The waiting rooms, kept nowhere but here: a restart empties them.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, Entered, Place, QueueEntryId, Room, RoomChange, RoomCounts, Stock, Timestamp, UserId};
use boxoffice_ports::{Clock, PlaceClaim, RoomError, RoomTerms, Ticked, WaitingRoom};

use crate::rooms::{Rooms, ticked};

pub struct MemoryWaitingRoom {
    rooms: Rooms,
}

impl MemoryWaitingRoom {
    /// `active_ttl_s`: how long a turn lasts.
    pub fn new(clock: Arc<dyn Clock>, active_ttl_s: u32) -> Self {
        Self { rooms: Rooms::new(clock, active_ttl_s) }
    }

    /// What changed goes nowhere.
    fn mutate<R>(&self, concert: ConcertId, change: impl FnOnce(&mut Room, Timestamp, &mut Vec<RoomChange>) -> R) -> Result<R, RoomError> {
        self.rooms.mutate(concert, change, drop).map(|(result, ())| result)
    }
}

#[async_trait]
impl WaitingRoom for MemoryWaitingRoom {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        self.rooms.open(terms, |_| {})
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        self.mutate(concert, |room, now, changes| room.join(user, fresh, now, changes))?.ok_or(RoomError::Closed)
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.rooms.read(concert, |room, now| room.place(entry, now))
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.place(concert, entry).await
    }

    /// Nothing is ever lost while this process runs.
    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        self.place(concert, claim.entry).await
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.mutate(concert, |room, now, changes| room.leave(entry, now, changes))
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.mutate(concert, |room, now, changes| room.finish(user, paid_at, now, changes))
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.mutate(concert, |room, now, changes| {
            room.tick(now, stock, changes);
            ticked(changes)
        })
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.rooms.read(concert, |room, _| room.admission())
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        self.mutate(concert, |room, _, _| {
            let unchanged = room.admission() == was;
            if unchanged {
                room.set_admission(to);
            }
            unchanged
        })
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        self.rooms.read(concert, |room, now| room.counts(now))
    }
}
