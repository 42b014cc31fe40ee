//! What the ledger's database keeps of a room whose log may be lost: how far it has come, and who is in their turn.
//!
//! The instance that told the log of a change tells the mirror, with its next step. After an exchange that was not
//! answered it tells the mirror of every change for a while: what it told may have arrived, and comes back as any record.
//! A change that a crash kept from the mirror is found again in the replicas of the others, or in tokens. Places are reserved there before they are given out, so that none
//! is given out twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use boxoffice_domain::QueueEntryId;
use boxoffice_domain::waiting::{ActivePlace, QueueStatus, Room, RoomChange, RoomInput, RoomMark};
use boxoffice_ports::RoomError;

use super::begin::RESERVED_MIN;
use super::hall::Hall;
use super::lock;

/// The most places reserved at a time: a quarter of those given out, within these bounds.
const RESERVED_MAX: u64 = 100_000;

/// What is to be told.
#[derive(Default)]
pub(super) struct Mirrored {
    began: HashMap<QueueEntryId, ActivePlace>,
    ended: HashSet<QueueEntryId>,
    mark: Option<RoomMark>,
}

impl Mirrored {
    pub(super) fn changed(&mut self, changes: &[RoomChange]) {
        for change in changes {
            match (change.status, change.promoted_at, change.active_until) {
                (QueueStatus::Active, Some(promoted_at), Some(active_until)) => {
                    let RoomChange { entry, user, place, .. } = *change;
                    self.ended.remove(&entry);
                    self.began.insert(entry, ActivePlace { entry, user, place, promoted_at, active_until });
                }
                _ if change.was == Some(QueueStatus::Active) => {
                    self.began.remove(&change.entry);
                    self.ended.insert(change.entry);
                }
                _ => {}
            }
        }
    }

    /// Whether no turn is left that the mirror was not told of.
    pub(super) fn is_told(&self) -> bool {
        self.began.is_empty() && self.ended.is_empty()
    }

    /// A log was begun again: all of it is told.
    pub(super) fn anew(&mut self, turns: Vec<ActivePlace>) {
        self.mark = None;
        self.began.extend(turns.into_iter().map(|turn| (turn.entry, turn)));
    }
}

impl Hall {
    /// Tells the mirror what this instance has to. What fails, or is given up half way, is told with the next step.
    pub(super) async fn save(&self) -> Result<(), RoomError> {
        let Some(mark) = self.replica().look(&*self.shared.clock, |room, now| room.mark(now)) else { return Ok(()) };
        let (began, ended) = {
            let mirrored = lock(&self.mirrored);
            // A room without a place has nothing that could be lost.
            let is_new = mark.last_place > 0 && mirrored.mark != Some(mark);
            if mirrored.began.is_empty() && mirrored.ended.is_empty() && !is_new {
                return Ok(());
            }
            (mirrored.began.clone(), mirrored.ended.clone())
        };
        let mut turns: Vec<_> = began.values().copied().collect();
        // In one order for all instances, so that two batches never wait for each other.
        turns.sort_unstable_by_key(|turn| turn.entry);
        let mut over: Vec<_> = ended.iter().copied().collect();
        over.sort_unstable();
        self.shared.mirror.save(self.concert, mark, turns, over).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        let mut mirrored = lock(&self.mirrored);
        mirrored.mark = Some(mark);
        // What has happened since is the newer word, and not told yet.
        mirrored.began.retain(|entry, turn| began.get(entry) != Some(turn));
        mirrored.ended.retain(|entry| !ended.contains(entry));
        Ok(())
    }

    /// Reserves places beyond `last`, unless somebody has just done it.
    pub(super) async fn reserve(self: &Arc<Self>, last: u64) -> Result<(), RoomError> {
        let _turn = self.reserving.lock().await;
        let reserved = || self.replica().room.as_ref().and_then(|room| room.reserved());
        if reserved().is_none_or(|reserved| reserved > last) {
            return Ok(());
        }
        let to = last + (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        let mark = RoomMark { last_place: to, ..RoomMark::default() };
        self.shared.mirror.save(self.concert, mark, Vec::new(), Vec::new()).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        self.tell(RoomInput::Reserve { to }).await.map(drop)
    }

    /// Reserves more before what is reserved runs out.
    pub(super) async fn reserve_ahead(self: &Arc<Self>) -> Result<(), RoomError> {
        // Nobody has come yet: the first reserves for all. Until then the mirror has nothing that could be lost.
        let ahead_of = |room: &Room| room.reserved().filter(|_| room.was_joined()).map(|reserved| (room.last_place(), reserved));
        let found = self.replica().room.as_ref().and_then(ahead_of);
        let Some((last, reserved)) = found else { return Ok(()) };
        let ahead = (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        if reserved.saturating_sub(last) < ahead / 2 { self.reserve(reserved).await } else { Ok(()) }
    }
}
