//! The waiting rooms of this process: a mutex for each concert around the domain's [`Room`], whatever keeps them.
//!
//! *Invariant.* What a mutation changed is handed to its sink while the room's mutex is still held, so a journal
//! sees a room's changes in the order in which they took effect, and its last word on an entry is the truth.
//!
//! *Time* is taken inside the mutex and never runs backwards for one room, even when the machine's clock does.
//!
//! *Failure.* A panic inside a room poisons it: from then on it is [`RoomError::Unavailable`], the others go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use boxoffice_domain::{ConcertId, QueueStatus, Room, RoomChange, Timestamp};
use boxoffice_ports::{Clock, RoomError, RoomTerms, Ticked};

struct Kept {
    room: Room,
    /// The latest instant that the room was told.
    latest: Timestamp,
}

pub(crate) struct Rooms {
    rooms: RwLock<HashMap<ConcertId, Arc<Mutex<Kept>>>>,
    clock: Arc<dyn Clock>,
    active_ttl_s: u32,
}

impl Rooms {
    pub(crate) fn new(clock: Arc<dyn Clock>, active_ttl_s: u32) -> Self {
        Self { rooms: RwLock::default(), clock, active_ttl_s }
    }

    /// Whether the room was opened: then there is nothing to load for it.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_open(&self, concert: ConcertId) -> bool {
        self.find(concert).is_ok()
    }

    /// Opens a room, put back to what was stored by `restore`; one that is open only learns its start of sale.
    ///
    /// Of two callers at once one opens; what the other loaded is dropped, since the room may have moved on.
    pub(crate) fn open(&self, terms: RoomTerms, restore: impl FnOnce(&mut Room)) -> Result<(), RoomError> {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = rooms.get(&terms.concert).map(Arc::clone) {
            drop(rooms);
            enter(&kept)?.room.set_sale_starts_at(terms.sale_starts_at);
            return Ok(());
        }
        let mut room = Room::new(terms.admission, terms.sale_starts_at, self.active_ttl_s);
        restore(&mut room);
        rooms.insert(terms.concert, Arc::new(Mutex::new(Kept { room, latest: self.clock.now() })));
        Ok(())
    }

    /// Looks at a room.
    pub(crate) fn read<R>(&self, concert: ConcertId, look: impl FnOnce(&Room, Timestamp) -> R) -> Result<R, RoomError> {
        let kept = self.find(concert)?;
        let mut kept = enter(&kept)?;
        let now = self.now(&mut kept);
        Ok(look(&kept.room, now))
    }

    /// Changes a room. `sink` is called once, with what changed (perhaps nothing), before anybody else sees the room:
    /// it must be quick, and what it returns is what the caller waits for.
    pub(crate) fn mutate<R, S>(
        &self,
        concert: ConcertId,
        change: impl FnOnce(&mut Room, Timestamp, &mut Vec<RoomChange>) -> R,
        sink: impl FnOnce(Vec<RoomChange>) -> S,
    ) -> Result<(R, S), RoomError> {
        let kept = self.find(concert)?;
        let mut kept = enter(&kept)?;
        let now = self.now(&mut kept);
        let mut changes = Vec::new();
        let result = change(&mut kept.room, now, &mut changes);
        let sunk = sink(changes);
        Ok((result, sunk))
    }

    fn now(&self, kept: &mut Kept) -> Timestamp {
        kept.latest = kept.latest.max(self.clock.now());
        kept.latest
    }

    fn find(&self, concert: ConcertId) -> Result<Arc<Mutex<Kept>>, RoomError> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.get(&concert).map(Arc::clone).ok_or(RoomError::NoRoom)
    }
}

fn enter(kept: &Mutex<Kept>) -> Result<MutexGuard<'_, Kept>, RoomError> {
    kept.lock().map_err(|_| RoomError::Unavailable("an earlier change of this room failed half way".into()))
}

/// What a tick that made these changes did.
pub(crate) fn ticked(changes: &[RoomChange]) -> Ticked {
    let count = |status| changes.iter().filter(|change| change.status == status).count() as u64;
    Ticked { promoted: count(QueueStatus::Active), expired: count(QueueStatus::Expired) }
}
