//! Whose record was read where: what tells a log from one that lost its latest records and went on without them.
//!
//! Epoch and number alone do not. A node that comes back with the first 89 of 100 records and is given eleven others
//! has a hundredth record again; whoever read the lost one would go on behind the new one and come to another room than
//! everybody else. So each record carries a random stamp, an instance remembers those of the latest records that it
//! read, and says with each position which record it read there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxoffice_domain::ConcertId;
use boxoffice_ports::LogPosition;

pub(super) const STAMP_BYTES: usize = 8;
pub(super) type Stamp = [u8; STAMP_BYTES];

/// Positions of one log whose stamps are remembered, the latest ones. A position from before them is taken at its word:
/// a snapshot is that of a moment ago, and a reader goes on from where it is.
const STAMPS_MAX: usize = 256;

/// By concert: one small map for each whose log this instance reads.
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

    /// The first that was read at a position stays: who read another one there learns of it.
    pub(super) fn see(&self, concert: ConcertId, position: LogPosition, stamps: impl IntoIterator<Item = Stamp>) {
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

    /// Always whole: no code that could panic runs while it is locked.
    fn all(&self) -> MutexGuard<'_, HashMap<ConcertId, OfLog>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_latest_are_remembered_the_first_of_each_and_those_of_one_epoch() {
        let (stamps, concert) = (Stamps::default(), ConcertId(Uuid::from_u128(1)));
        let at = |epoch, seq| LogPosition { epoch, seq };
        stamps.see(concert, at(7, 1), (1..=STAMPS_MAX as u64 + 1).map(u64::to_be_bytes));
        stamps.see(concert, at(7, 2), [[9; 8]]);
        assert_eq!(stamps.get(concert, at(7, 1)), None, "too long ago");
        assert_eq!(stamps.get(concert, at(7, 2)), Some(2u64.to_be_bytes()));
        assert_eq!(stamps.get(concert, at(8, 2)), None);
        stamps.see(concert, at(8, 0), [[3; 8]]);
        assert_eq!((stamps.get(concert, at(7, 2)), stamps.get(concert, at(8, 0))), (None, Some([3; 8])));
        stamps.forget(concert);
        assert_eq!(stamps.get(concert, at(8, 0)), None);
    }
}
