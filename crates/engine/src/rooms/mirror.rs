//! What the ledger's database keeps of a room whose log may be lost: how many places were given out, and which entries
//! are in their turn.
//!
//! The instance that appended a change saves it to the mirror, with its next step. After an exchange that was not
//! answered it saves every change for a while: its inputs may have been appended, and come back like any record. A
//! change that a crash kept from the mirror is found again in the replicas of the other instances, or in tokens. Places
//! are reserved in the mirror before they are given out, so none is given out twice.

use std::sync::Arc;

use boxoffice_domain::waiting::{Room, RoomInput, RoomMark};
use boxoffice_ports::RoomError;

use super::error::room_unavailable;
use super::handle::RoomHandle;
use crate::sync::lock;

/// Places reserved at a time: a quarter of those given out, within these bounds.
const RESERVED_MIN: u64 = 1_000;
const RESERVED_MAX: u64 = 100_000;

impl RoomHandle {
    /// Saves what this instance has to. A save that fails, or is given up half way, is done with the next step.
    pub(super) async fn save(&self) -> Result<(), RoomError> {
        let Some(mark) = self.replica().look(&*self.context.parts.clock, |room, now| room.mark(now)) else { return Ok(()) };
        let (began, ended) = {
            let unmirrored = lock(&self.unmirrored);
            // A room that gave out no place has nothing that could be lost.
            let is_new = mark.last_place > 0 && unmirrored.mark != Some(mark);
            if unmirrored.is_empty() && !is_new {
                return Ok(());
            }
            (unmirrored.began.clone(), unmirrored.ended.clone())
        };
        let mut turns: Vec<_> = began.values().copied().collect();
        // In the same order on all instances, so that two saves never wait for each other.
        turns.sort_unstable_by_key(|turn| turn.entry);
        let mut over: Vec<_> = ended.iter().copied().collect();
        over.sort_unstable();
        self.context.parts.mirror.save(self.concert, mark, turns, over).await.map_err(room_unavailable)?;
        let mut unmirrored = lock(&self.unmirrored);
        unmirrored.mark = Some(mark);
        // What has changed since is newer, and not saved yet.
        unmirrored.began.retain(|entry, turn| began.get(entry) != Some(turn));
        unmirrored.ended.retain(|entry| !ended.contains(entry));
        Ok(())
    }

    /// Reserves places beyond `last`, unless another call has just done it.
    pub(super) async fn reserve(self: &Arc<Self>, last: u64) -> Result<(), RoomError> {
        let _guard = self.reserving.lock().await;
        let reserved = || self.replica().room.as_ref().and_then(|room| room.reserved());
        if reserved().is_none_or(|reserved| reserved > last) {
            return Ok(());
        }
        let to = last + (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        let mark = RoomMark { last_place: to, ..RoomMark::default() };
        self.context.parts.mirror.save(self.concert, mark, Vec::new(), Vec::new()).await.map_err(room_unavailable)?;
        self.append(RoomInput::Reserve { to }).await.map(drop)
    }

    /// Reserves more places before the reserved ones run out.
    pub(super) async fn reserve_ahead(self: &Arc<Self>) -> Result<(), RoomError> {
        // Without a join there is nothing that could be lost: the first join reserves for all.
        let ahead_of = |room: &Room| room.reserved().filter(|_| room.was_joined()).map(|reserved| (room.last_place(), reserved));
        let found = self.replica().room.as_ref().and_then(ahead_of);
        let Some((last, reserved)) = found else { return Ok(()) };
        let ahead = (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        if reserved.saturating_sub(last) < ahead / 2 { self.reserve(reserved).await } else { Ok(()) }
    }
}
