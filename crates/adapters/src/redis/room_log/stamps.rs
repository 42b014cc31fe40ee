//! The stamps of the records that were read: they reveal a log that lost its latest records and went on without them.
//!
//! Epoch and number alone do not. A node that comes back with the first 89 of 100 records and is given eleven others
//! has a hundredth record again. An instance that read the lost one would go on behind the new one, and its room would
//! differ from all others. So each record carries a random stamp. An instance remembers the stamps of the latest records
//! that it read, and sends with each position the stamp of the record that it read there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxoffice_domain::ConcertId;
use boxoffice_ports::LogPosition;

pub(super) const STAMP_BYTES: usize = 8;
pub(super) type Stamp = [u8; STAMP_BYTES];

/// How many positions of one log are remembered with their stamps, the latest ones. A position from before them is not
/// verified: a snapshot was taken a moment ago, and a reader goes on from where it is.
const STAMPS_MAX: usize = 256;

/// By concert: one small map for each log that this instance reads.
#[derive(Default)]
pub(super) struct Stamps(Mutex<HashMap<ConcertId, OfLog>>);

#[derive(Default)]
struct OfLog {
    epoch: u64,
    by_seq: BTreeMap<u64, Stamp>,
}

impl Stamps {
    pub(super) fn get(&self, concert: ConcertId, position: LogPosition) -> Option<Stamp> {
        let all = self.all();
        all.get(&concert).filter(|log| log.epoch == position.epoch)?.by_seq.get(&position.seq).copied()
    }

    /// The first stamp that was read at a position stays, so that another one there is found out.
    pub(super) fn remember(&self, concert: ConcertId, position: LogPosition, stamps: impl IntoIterator<Item = Stamp>) {
        let mut all = self.all();
        let log = all.entry(concert).or_default();
        if log.epoch != position.epoch {
            *log = OfLog { epoch: position.epoch, by_seq: BTreeMap::new() };
        }
        for (seq, stamp) in (position.seq..).zip(stamps) {
            log.by_seq.entry(seq).or_insert(stamp);
            if log.by_seq.len() > STAMPS_MAX {
                log.by_seq.pop_first();
            }
        }
    }

    pub(super) fn forget(&self, concert: ConcertId) {
        self.all().remove(&concert);
    }

    /// Never left half changed: no code that could panic runs while it is locked.
    fn all(&self) -> MutexGuard<'_, HashMap<ConcertId, OfLog>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_latest_stamps_of_one_epoch_are_remembered_the_first_at_each_position() {
        let (stamps, concert) = (Stamps::default(), ConcertId(Uuid::from_u128(1)));
        let at = |epoch, seq| LogPosition { epoch, seq };
        stamps.remember(concert, at(7, 1), (1..=STAMPS_MAX as u64 + 1).map(u64::to_be_bytes));
        stamps.remember(concert, at(7, 2), [[9; 8]]);
        assert_eq!(stamps.get(concert, at(7, 1)), None, "too long ago");
        assert_eq!(stamps.get(concert, at(7, 2)), Some(2u64.to_be_bytes()));
        assert_eq!(stamps.get(concert, at(8, 2)), None);
        stamps.remember(concert, at(8, 0), [[3; 8]]);
        assert_eq!((stamps.get(concert, at(7, 2)), stamps.get(concert, at(8, 0))), (None, Some([3; 8])));
        stamps.forget(concert);
        assert_eq!(stamps.get(concert, at(8, 0)), None);
    }
}
