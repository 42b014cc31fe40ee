//! A room as bytes: the snapshot that a log begins with, or goes on from.

use boxoffice_domain::waiting::{Lengths, Room, RoomState};
use boxoffice_ports::{LogPosition, RoomLogError};

use super::error::{ExchangeError, unavailable};

/// The first byte of a snapshot. A snapshot of version 1 has no [`Lengths`] at its end: they begin anew.
const VERSION: u8 = 2;

/// A replica's room at one position of its log.
pub(super) struct RoomCopy {
    pub(super) position: LogPosition,
    pub(super) since_snapshot: usize,
    pub(super) room: Room,
}

/// Runs work that takes long for a big room on a thread of its own, beside the other work of this instance.
pub(super) async fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ExchangeError> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)
}

pub(super) async fn encode(room: Room) -> Result<Vec<u8>, ExchangeError> {
    on_own_thread(move || postcard::to_extend(&room.state(), vec![VERSION])).await?.map_err(unavailable)
}

pub(super) async fn decode(snapshot: Vec<u8>) -> Result<Room, ExchangeError> {
    let from_bytes = |state: &[u8]| postcard::from_bytes::<RoomState>(state).map(Room::from);
    let decoded = on_own_thread(move || match snapshot.split_first() {
        Some((&VERSION, state)) => from_bytes(state).map_err(|error| error.to_string()),
        Some((&1, state)) => {
            let whole = postcard::to_extend(&Lengths::default(), state.to_vec());
            whole.and_then(|state| from_bytes(&state)).map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!("unknown version {version} of a room's snapshot")),
        None => Err("a room's snapshot is empty".to_owned()),
    });
    decoded.await?.map_err(|error| RoomLogError::Broken(error.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::waiting::{RoomInput, RoomTerms};
    use boxoffice_domain::{Admission, AdmissionMode, ConcertId, Lane, QueueEntryId, Timestamp, UserId};
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
    async fn a_snapshot_of_the_previous_version_is_read() {
        let room = room();
        let snapshot = encode(room.clone()).await.unwrap();
        assert_eq!(decode(snapshot.clone()).await.unwrap().state(), room.state());
        // No turn has begun, so the lengths that version 2 added are the initial ones.
        let added = postcard::to_extend(&Lengths::default(), Vec::new()).unwrap();
        let mut earlier = snapshot.strip_suffix(added.as_slice()).unwrap().to_vec();
        earlier[0] = 1;
        assert_eq!(decode(earlier).await.unwrap().state(), room.state());
        assert!(decode(vec![3]).await.is_err() && decode(Vec::new()).await.is_err());
    }
}
