//! What the ledger's database keeps of a room whose log may be lost: how far it has come, and who is in their turn.
//!
//! Whoever told the log of a change tells the mirror, with its next step: a change that a crash kept from it is found
//! again in the replicas of the others, or in tokens. Places are reserved there before they are given out, so that none
//! is given out twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use boxoffice_domain::QueueEntryId;
use boxoffice_domain::waiting::{ActivePlace, QueueStatus, RoomChange, RoomInput, RoomMark};
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

    /// A log was begun again: all of it is told.
    pub(super) fn anew(&mut self, turns: Vec<ActivePlace>) {
        self.mark = None;
        self.began.extend(turns.into_iter().map(|turn| (turn.entry, turn)));
    }
}

impl Hall {
    /// Tells the mirror what this instance has to. What fails is told with the next step.
    pub(super) async fn save(&self) -> Result<(), RoomError> {
        let Some(mark) = self.replica().look(&*self.shared.clock, |room, now| room.mark(now)) else { return Ok(()) };
        let (began, ended) = {
            let mut mirrored = lock(&self.mirrored);
            if mirrored.began.is_empty() && mirrored.ended.is_empty() && mirrored.mark == Some(mark) {
                return Ok(());
            }
            (std::mem::take(&mut mirrored.began), std::mem::take(&mut mirrored.ended))
        };
        let mut turns: Vec<_> = began.values().copied().collect();
        // In one order for all instances, so that two batches never wait for each other.
        turns.sort_unstable_by_key(|turn| turn.entry);
        let mut over: Vec<_> = ended.iter().copied().collect();
        over.sort_unstable();
        let saved = self.shared.mirror.save(self.concert, mark, turns, over).await;
        let mut mirrored = lock(&self.mirrored);
        match saved {
            Ok(()) => mirrored.mark = Some(mark),
            Err(error) => {
                // What has happened since is the newer word.
                for (entry, turn) in began {
                    if !mirrored.ended.contains(&entry) {
                        mirrored.began.entry(entry).or_insert(turn);
                    }
                }
                for entry in ended {
                    if !mirrored.began.contains_key(&entry) {
                        mirrored.ended.insert(entry);
                    }
                }
                return Err(RoomError::Unavailable(error.into()));
            }
        }
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
        let found = self.replica().room.as_ref().and_then(|room| room.reserved().map(|reserved| (room.last_place(), reserved)));
        let Some((last, reserved)) = found else { return Ok(()) };
        let ahead = (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        if reserved.saturating_sub(last) < ahead / 2 { self.reserve(reserved).await } else { Ok(()) }
    }
}
