//! Where a room's log begins: nowhere yet, with a snapshot, or anew after it was lost.
//!
//! | the log | this replica | then |
//! | --- | --- | --- |
//! | is not there | has the room | it begins the log with its own state |
//! | is not there | has nothing | it begins the log with what the mirror kept, or with an empty room |
//! | is another one than was read | has the room | it takes the snapshot, and gives back the entries that the snapshot lacks |
//! | was compacted, or is new here | is behind | it takes the snapshot |
//!
//! Of several instances that begin a log at once, one succeeds; the others take its snapshot. If that one knew less,
//! the others append the entries that it lacks, with what a token would claim, before anything else. The same happens
//! when a log has lost its latest records: it goes on under another epoch with what there is.

use std::sync::Arc;

use boxoffice_domain::Timestamp;
use boxoffice_domain::draw;
use boxoffice_domain::waiting::{DrawView, Room, RoomInput, RoomTerms};
use boxoffice_ports::{LogPosition, Opening, OwnAdmission, RoomError, StoreError};

use super::error::{ExchangeError, room_unavailable, unavailable};
use super::handle::RoomHandle;
use super::snapshot::{RoomCopy, decode, encode, on_own_thread};
use crate::sync::lock;

/// A copy of the room, for the exchange task alone. It must not write meanwhile: a writer that waited for a big room's
/// copy would keep readers waiting.
pub(super) async fn copied(handle: &Arc<RoomHandle>) -> Result<Option<RoomCopy>, ExchangeError> {
    let handle = handle.clone();
    on_own_thread(move || {
        let replica = handle.replica();
        let copied = |room: &Room| RoomCopy { position: replica.position, since_snapshot: replica.since_snapshot, room: room.clone() };
        replica.room.as_ref().map(copied)
    })
    .await
}

/// The log begins with this snapshot, or goes on from it. Returns the room that was here before, if a log was lost.
pub(super) async fn take_over(
    handle: &Arc<RoomHandle>,
    now: Timestamp,
    position: LogPosition,
    snapshot: Vec<u8>,
) -> Result<Option<Room>, ExchangeError> {
    let room = decode(snapshot).await?;
    let was = handle.replica().position;
    let before = handle.replace(now, position, room);
    if was.epoch != position.epoch {
        return Ok(before);
    }
    // Freeing a big room's memory takes long, too.
    on_own_thread(move || drop(before)).await?;
    Ok(None)
}

/// Inputs that give the room what it lacks and was known here before. Entries that had ended: else their slots would
/// stay taken in vain. Entries that were there: with what their tokens would claim.
pub(super) async fn unknown(handle: &Arc<RoomHandle>, before: Room) -> Result<Vec<RoomInput>, ExchangeError> {
    let of = handle.clone();
    let unknown = on_own_thread(move || {
        // The exchange task applies nothing meanwhile, so no writer keeps readers waiting.
        let replica = of.replica();
        let Some(room) = &replica.room else { return Vec::new() };
        let claims = before.claims_beyond(0).into_iter().filter(|claim| room.entry_of(claim.user) != Some(claim.entry));
        let ended = before.ended().filter(|entry| room.is_there(*entry)).map(|entry| RoomInput::Leave { entry });
        ended.chain(claims.map(RoomInput::Restore)).collect::<Vec<_>>()
    });
    let unknown = unknown.await?;
    if !unknown.is_empty() {
        tracing::warn!(concert.id = %handle.concert, entries = unknown.len(), "a waiting room begins again with less than is known here");
    }
    Ok(unknown)
}

/// Begins a log, because there is none.
pub(super) async fn begin(handle: &Arc<RoomHandle>, now: Timestamp) -> Result<(), ExchangeError> {
    let opening = *lock(&handle.opening);
    let opening = opening.ok_or(ExchangeError::NoRoom)?;
    let is_volatile = handle.context.parts.log.is_volatile();
    let room = match copied(handle).await? {
        Some(RoomCopy { mut room, .. }) => {
            tracing::warn!(concert.id = %handle.concert, "a waiting room was lost and begins again as it is known here");
            room.begin_again(now);
            room
        }
        None => rebuilt(handle, opening, now, is_volatile).await?,
    };
    let turns = if is_volatile { room.turns() } else { Vec::new() };
    if handle.context.parts.log.begin(handle.concert, encode(room).await?).await? {
        lock(&handle.unmirrored).anew(turns);
    }
    Ok(())
}

/// The room as the mirror kept it, or a new one.
async fn rebuilt(handle: &Arc<RoomHandle>, opening: Opening, now: Timestamp, is_volatile: bool) -> Result<Room, ExchangeError> {
    let terms = terms(handle, opening).await.map_err(unavailable)?;
    let (mirror, concert) = (&handle.context.parts.mirror, handle.concert);
    let own = mirror.admission(concert).await.map_err(unavailable)?.map(|own| (own.admission, own.version));
    let kept = if is_volatile { mirror.load(concert).await.map_err(unavailable)? } else { None };
    let draw = if is_volatile { mirror.draw(concert).await.map_err(unavailable)? } else { None };
    let (mark, turns) = kept.unwrap_or_default();
    if mark.last_place > 0 {
        tracing::warn!(concert.id = %concert, turns = turns.len(), "a waiting room was lost and is rebuilt");
    }
    let draw = draw.map(|draw| DrawView {
        commitment: draw::commitment(&draw.seed),
        base: draw.base,
        keys: Some(draw.keys),
        beacon: draw.beacon,
        seed: Some(draw.seed),
    });
    let mut room = Room::rebuilt(concert, terms, own, mark, turns, draw, now);
    if is_volatile {
        // No place is given out before the mirror has reserved it.
        room.apply(now, &RoomInput::Reserve { to: mark.last_place }, &mut Vec::new());
    }
    Ok(room)
}

/// What a room obeys: its concert's opening, this instance's settings, and the commitment to the seed of its draw.
pub(super) async fn terms(handle: &RoomHandle, opening: Opening) -> Result<RoomTerms, StoreError> {
    let settings = &handle.context.parts.settings;
    let seed = seed(handle).await?;
    Ok(RoomTerms {
        sale_starts_at: opening.sale_starts_at,
        admission: opening.admission,
        active_ttl_s: settings.active_ttl_s,
        extensions_max: settings.extensions_max,
        grace_s: settings.grace_s,
        waiting_grace_s: settings.waiting_grace_s,
        p99_target_ms: settings.p99_target_ms,
        lanes: settings.lanes.clone(),
        commitment: Some(draw::commitment(&seed)),
    })
}

/// The seed of the concert's draw: drawn once, kept in the store.
pub(super) async fn seed(handle: &RoomHandle) -> Result<draw::Hash32, StoreError> {
    let fresh = rand::random::<draw::Hash32>().to_vec();
    let kept = handle.context.parts.secrets.secret(format!("draw:{}", handle.concert), fresh).await?;
    kept.try_into().map_err(|_| StoreError::Broken("the stored seed of a draw has the wrong length".into()))
}

impl RoomHandle {
    /// Opens the room, or brings it up to date. An opening that the room has accepted is not appended again.
    pub(super) async fn open(self: &Arc<Self>, opening: Opening) -> Result<(), RoomError> {
        *lock(&self.opening) = Some(opening);
        if self.has_accepted(&opening) {
            return Ok(());
        }
        self.catch_up().await?;
        let terms = terms(self, opening).await.map_err(room_unavailable)?;
        let own = self.kept_admission().await?;
        let mut inputs = Vec::new();
        if self.replica().room.as_ref().is_none_or(|room| !obeys(room, &terms)) {
            inputs.push(RoomInput::Open(terms));
        }
        inputs.extend(own.and_then(|own| self.if_newer(own)));
        if !inputs.is_empty() {
            self.append_all(inputs).await?;
        }
        *lock(&self.accepted) = Some(opening);
        Ok(())
    }

    /// Whether the room is open as `opening` says. That is what the catalogue has now, including what an operator set.
    /// So a change that never reached the room is found here, whichever instance failed or crashed on the way.
    pub(super) fn has_accepted(&self, opening: &Opening) -> bool {
        let agrees = |room: &Room| room.terms().sale_starts_at == opening.sale_starts_at && room.admission() == opening.admission;
        lock(&self.accepted).as_ref() == Some(opening) && self.replica().room.as_ref().is_some_and(agrees)
    }

    /// Appends the admission that an operator set, unless the room has it. `NoRoom` when the mirror has none, because
    /// the concert is gone.
    pub(super) async fn sync_admission(self: &Arc<Self>) -> Result<(), RoomError> {
        self.catch_up().await?;
        let own = self.kept_admission().await?.ok_or(RoomError::NoRoom)?;
        match self.if_newer(own) {
            Some(newer) => self.append(newer).await.map(drop),
            None => Ok(()),
        }
    }

    async fn kept_admission(&self) -> Result<Option<OwnAdmission>, RoomError> {
        self.context.parts.mirror.admission(self.concert).await.map_err(room_unavailable)
    }

    fn if_newer(&self, own: OwnAdmission) -> Option<RoomInput> {
        let known = self.replica().room.as_ref().and_then(Room::admission_version);
        known.is_none_or(|known| known < own.version).then_some(RoomInput::Admit { admission: own.admission, version: own.version })
    }
}

/// Whether the room has these terms. Their admission counts only until an operator has set another one.
fn obeys(room: &Room, terms: &RoomTerms) -> bool {
    let mut known = room.terms().clone();
    if room.admission_version().is_some() {
        known.admission = terms.admission;
    }
    known == *terms
}
