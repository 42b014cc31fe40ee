//! The mirror of a waiting room, and the admission that an operator set: columns, and the values read from them.

use super::catalog::{AdmissionRow, admission};
use super::columns::Id;
use super::rows::{Contradiction, stored};
use boxoffice_domain::{QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark};

/// An admission and its version.
pub(crate) fn own_admission((columns, version): (AdmissionRow, i64)) -> Result<OwnAdmission, Contradiction> {
    Ok(OwnAdmission { admission: admission(columns)?, version })
}

/// The columns of a mark: `last_place`, `promoted_to`, `served`, `expired`, `left`.
pub(crate) type MarkRow = (i64, i64, i64, i64, i64);

pub(crate) fn mark((last_place, promoted_to, served, expired, left): MarkRow) -> RoomMark {
    RoomMark {
        last_place: last_place.unsigned_abs(),
        promoted_to: promoted_to.unsigned_abs(),
        served: served.unsigned_abs(),
        expired: expired.unsigned_abs(),
        left: left.unsigned_abs(),
    }
}

pub(crate) fn stored_mark(mark: RoomMark) -> Result<MarkRow, Contradiction> {
    Ok((stored(mark.last_place)?, stored(mark.promoted_to)?, stored(mark.served)?, stored(mark.expired)?, stored(mark.left)?))
}

/// The columns of a place in its turn: `entry_id`, `user_id`, `place`, `promoted_at`, `active_until`.
pub(crate) type PlaceRow<T> = (Id<QueueEntryId>, Id<UserId>, i64, T, T);

pub(crate) fn active_place<T: Into<Timestamp>>((entry, user, place, promoted_at, active_until): PlaceRow<T>) -> ActivePlace {
    let (promoted_at, active_until) = (promoted_at.into(), active_until.into());
    ActivePlace { entry: entry.0, user: user.0, place: place.unsigned_abs(), promoted_at, active_until }
}

/// The columns of a draw: `closed_at`, `base`, `keys`, `seed`, `beacon`. Its keys lie one after the other.
pub(crate) type DrawRow<T> = (T, i64, Vec<u8>, Vec<u8>, Option<String>);

pub(crate) fn draw<T: Into<Timestamp>>((closed_at, base, keys, seed, beacon): DrawRow<T>) -> Result<DrawRecord, Contradiction> {
    let (keys, []) = keys.as_chunks() else { return Err(Contradiction("a draw's last key is cut off".to_owned())) };
    let seed = seed.try_into().map_err(|_| Contradiction("a draw's seed is not 32 bytes".to_owned()))?;
    Ok(DrawRecord { closed_at: closed_at.into(), base: base.unsigned_abs(), keys: keys.to_vec(), seed, beacon })
}
