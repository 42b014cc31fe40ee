//! Where a room's log begins: nowhere yet, with a snapshot, or anew after it was lost.
//!
//! | the log | this replica | then |
//! | --- | --- | --- |
//! | is not there | has the room | it begins the log with its own state |
//! | is not there | has nothing | it begins with what the mirror kept, or with nobody |
//! | is another than was read | has the room | it takes the snapshot, and gives back whom that does not know |
//! | was compacted, or is new here | is behind | it takes the snapshot |
//!
//! Of several that begin a log at once one does; the others take its snapshot. If that one knew less, they tell the log
//! whom it does not know, by what a token would say, before anything else. The same when a log is found to have lost its
//! latest records: it goes on under another epoch with what there is.

use std::sync::Arc;

use boxoffice_domain::Timestamp;
use boxoffice_domain::draw;
use boxoffice_domain::waiting::{DrawView, Lengths, Room, RoomInput, RoomState, RoomTerms};
use boxoffice_ports::{LogPosition, Opening, OwnAdmission, RoomError, RoomLogError, StoreError};

use super::hall::{Copied, Hall, Untold, unavailable};
use super::lock;

/// The first byte of a snapshot. One of version 1 ends before [`Lengths`], which begin anew.
const VERSION: u8 = 2;
/// Places reserved before they are given out, at first.
pub(super) const RESERVED_MIN: u64 = 1_000;

/// What a big room takes long for is done on a thread of its own, beside the other work of this instance.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Untold> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)
}

pub(super) async fn encode(room: Room) -> Result<Vec<u8>, Untold> {
    beside(move || postcard::to_extend(&room.state(), vec![VERSION])).await?.map_err(unavailable)
}

async fn decode(snapshot: Vec<u8>) -> Result<Room, Untold> {
    let from_bytes = |state: &[u8]| postcard::from_bytes::<RoomState>(state).map(Room::from);
    let decoded = beside(move || match snapshot.split_first() {
        Some((&VERSION, state)) => from_bytes(state).map_err(|error| error.to_string()),
        Some((&1, state)) => {
            let whole = postcard::to_extend(&Lengths::default(), state.to_vec());
            whole.and_then(|state| from_bytes(&state)).map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!("a snapshot of version {version}")),
        None => Err("an empty snapshot".to_owned()),
    });
    decoded.await?.map_err(|error| RoomLogError::Broken(error.into()).into())
}

/// The log begins with this snapshot, or goes on from it. Gives the room that was here before a loss.
pub(super) async fn take_over(hall: &Arc<Hall>, now: Timestamp, position: LogPosition, snapshot: Vec<u8>) -> Result<Option<Room>, Untold> {
    let room = decode(snapshot).await?;
    let was = hall.replica().position;
    let before = hall.replace(now, position, room);
    if was.epoch != position.epoch {
        return Ok(before);
    }
    // Also giving a big room's memory back takes long.
    beside(move || drop(before)).await?;
    Ok(None)
}

/// What the room does not know that was known here before: who had ended, for a slot would wait for nobody, and who was
/// there, as their tokens would say it.
pub(super) async fn unknown(hall: &Arc<Hall>, before: Room) -> Result<Vec<RoomInput>, Untold> {
    let of = hall.clone();
    let unknown = beside(move || {
        // Nothing is applied here meanwhile, so those who read are kept waiting by nobody who writes.
        let replica = of.replica();
        let Some(room) = &replica.room else { return Vec::new() };
        let claims = before.claims_beyond(0).into_iter().filter(|claim| room.entry_of(claim.user) != Some(claim.entry));
        let ended = before.ended().filter(|entry| room.is_there(*entry)).map(|entry| RoomInput::Leave { entry });
        ended.chain(claims.map(RoomInput::Restore)).collect::<Vec<_>>()
    });
    let unknown = unknown.await?;
    if !unknown.is_empty() {
        tracing::warn!(concert.id = %hall.concert, entries = unknown.len(), "a waiting room begins again with less than is known here");
    }
    Ok(unknown)
}

/// There is no log: begins it.
pub(super) async fn begin(hall: &Arc<Hall>, now: Timestamp) -> Result<(), Untold> {
    let opening = *hall.opening();
    let opening = opening.ok_or(Untold::NoRoom)?;
    let is_volatile = hall.shared.log.is_volatile();
    let room = match hall.copied().await? {
        Some(Copied { mut room, .. }) => {
            tracing::warn!(concert.id = %hall.concert, "a waiting room was lost and begins again as it is known here");
            room.begin_again(now);
            room
        }
        None => rebuilt(hall, opening, now, is_volatile).await?,
    };
    let turns = if is_volatile { room.turns() } else { Vec::new() };
    if hall.shared.log.begin(hall.concert, encode(room).await?).await? {
        lock(&hall.mirrored).anew(turns);
    }
    Ok(())
}

/// What the mirror kept of a room, or a new one.
async fn rebuilt(hall: &Arc<Hall>, opening: Opening, now: Timestamp, is_volatile: bool) -> Result<Room, Untold> {
    let terms = terms(hall, opening).await.map_err(unavailable)?;
    let (mirror, concert) = (&hall.shared.mirror, hall.concert);
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
        // Nobody is given a place before the mirror knows how far they go.
        room.apply(now, &RoomInput::Reserve { to: mark.last_place }, &mut Vec::new());
    }
    Ok(room)
}

/// What a room obeys: its concert's, this instance's settings, and the commitment to the seed of its draw.
pub(super) async fn terms(hall: &Hall, opening: Opening) -> Result<RoomTerms, StoreError> {
    let settings = &hall.shared.settings;
    let seed = seed(hall).await?;
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
pub(super) async fn seed(hall: &Hall) -> Result<draw::Hash32, StoreError> {
    let fresh = rand::random::<draw::Hash32>().to_vec();
    let kept = hall.shared.secrets.secret(format!("draw:{}", hall.concert), fresh).await?;
    kept.try_into().map_err(|_| StoreError::Broken("the seed of a draw has another length".into()))
}

impl Hall {
    /// Opens it, or brings it up to date. Only what the room has accepted is not told again.
    pub(super) async fn open(self: &Arc<Self>, opening: Opening) -> Result<(), RoomError> {
        *self.opening() = Some(opening);
        if self.has_accepted(&opening) {
            return Ok(());
        }
        self.catch_up().await?;
        let terms = terms(self, opening).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        let own = self.kept_admission().await?;
        let mut inputs = Vec::new();
        if self.replica().room.as_ref().is_none_or(|room| !obeys(room, &terms)) {
            inputs.push(RoomInput::Open(terms));
        }
        inputs.extend(own.and_then(|own| self.if_newer(own)));
        if !inputs.is_empty() {
            self.tell_all(inputs).await?;
        }
        *lock(&self.accepted) = Some(opening);
        Ok(())
    }

    /// Whether the room is open as this says. `opening` is what the catalogue has now, and with it what an operator set:
    /// a change that never reached the room is found here, whichever instance failed or died on the way.
    pub(super) fn has_accepted(&self, opening: &Opening) -> bool {
        let agrees = |room: &Room| room.terms().sale_starts_at == opening.sale_starts_at && room.admission() == opening.admission;
        lock(&self.accepted).as_ref() == Some(opening) && self.replica().room.as_ref().is_some_and(agrees)
    }

    /// Tells the room what an operator set, unless it knows: `NoRoom` when the mirror has nothing, for the concert is gone.
    pub(super) async fn hear_of_admission(self: &Arc<Self>) -> Result<(), RoomError> {
        self.catch_up().await?;
        let own = self.kept_admission().await?.ok_or(RoomError::NoRoom)?;
        match self.if_newer(own) {
            Some(newer) => self.tell(newer).await.map(drop),
            None => Ok(()),
        }
    }

    async fn kept_admission(&self) -> Result<Option<OwnAdmission>, RoomError> {
        self.shared.mirror.admission(self.concert).await.map_err(|error| RoomError::Unavailable(error.into()))
    }

    fn if_newer(&self, own: OwnAdmission) -> Option<RoomInput> {
        let known = self.replica().room.as_ref().and_then(Room::admission_version);
        known.is_none_or(|known| known < own.version).then_some(RoomInput::Admit { admission: own.admission, version: own.version })
    }
}

/// Whether the room has these terms. Their admission counts only until an operator has set another.
fn obeys(room: &Room, terms: &RoomTerms) -> bool {
    let mut known = room.terms().clone();
    if room.admission_version().is_some() {
        known.admission = terms.admission;
    }
    known == *terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::{Admission, AdmissionMode, ConcertId, Lane, QueueEntryId, UserId};
    use uuid::Uuid;

    fn room() -> Room {
        let admission = Admission { mode: AdmissionMode::Running, max_active: 1, per_interval: None, auto: false, adaptive: false };
        let terms = RoomTerms {
            sale_starts_at: None,
            admission,
            active_ttl_s: 60,
            extensions_max: 0,
            grace_s: 60,
            waiting_grace_s: 60,
            p99_target_ms: 500,
            lanes: Vec::new(),
            commitment: None,
        };
        let mut room = Room::new(ConcertId(Uuid::from_u128(1)), terms);
        for n in 1..=3 {
            let join = RoomInput::Join { user: UserId(Uuid::from_u128(n)), entry: QueueEntryId(Uuid::from_u128(n)), lane: Lane(0) };
            room.apply(Timestamp::UNIX_EPOCH, &join, &mut Vec::new());
        }
        room
    }

    #[tokio::test]
    async fn a_snapshot_of_the_version_before_is_read() {
        let room = room();
        let snapshot = encode(room.clone()).await.unwrap();
        assert_eq!(decode(snapshot.clone()).await.unwrap().state(), room.state());
        // No turn has begun, so that what was added is as it is at first.
        let added = postcard::to_extend(&Lengths::default(), Vec::new()).unwrap();
        let mut earlier = snapshot.strip_suffix(added.as_slice()).unwrap().to_vec();
        earlier[0] = 1;
        assert_eq!(decode(earlier).await.unwrap().state(), room.state());
        assert!(decode(vec![3]).await.is_err() && decode(Vec::new()).await.is_err());
    }
}
