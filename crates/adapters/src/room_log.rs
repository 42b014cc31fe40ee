//! What the logs of waiting rooms have in common, in every store.

use crate::clock::SystemIds;
use boxoffice_ports::{Ids, LogPosition};

/// The range of records that a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) epoch: u64,
    /// The record that the snapshot ends with; 0: none.
    pub(crate) base: u64,
    /// The last record.
    pub(crate) last: u64,
}

impl Extent {
    /// The position of a reader that begins with the snapshot.
    pub(crate) fn beginning(&self) -> LogPosition {
        LogPosition { epoch: self.epoch, seq: self.base }
    }

    /// How many records follow a position; `None` if it is not in the log.
    pub(crate) fn behind(&self, since: LogPosition) -> Option<u64> {
        let inside = since.epoch == self.epoch && since.seq >= self.base;
        if inside { self.last.checked_sub(since.seq) } else { None }
    }

    /// Whether the log has a record, so that a snapshot may replace everything up to it.
    pub(crate) fn has_record(&self, at: LogPosition) -> bool {
        at.epoch == self.epoch && at.seq > self.base && at.seq <= self.last
    }
}

/// A new log's epoch, from 1 to `i64::MAX`: the 62 low bits of a UUID, which are random.
pub(crate) fn draw_epoch() -> u64 {
    const RANDOM_BITS: u64 = (1 << 62) - 1;
    let (_, low) = SystemIds.fresh().as_u64_pair();
    (low & RANDOM_BITS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn epochs_are_random_and_fit_a_signed_number() {
        let drawn: HashSet<u64> = (0..1_000).map(|_| draw_epoch()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|epoch| (1..=i64::MAX.unsigned_abs()).contains(epoch)));
    }

    #[test]
    fn a_log_has_the_positions_from_its_snapshot_to_its_last_record() {
        let extent = Extent { epoch: 7, base: 3, last: 5 };
        let at = |seq| LogPosition { epoch: 7, seq };
        assert_eq!([2, 3, 4, 5, 6].map(|seq| extent.behind(at(seq))), [None, Some(2), Some(1), Some(0), None]);
        assert_eq!([2, 3, 4, 5, 6].map(|seq| extent.has_record(at(seq))), [false, false, true, true, false]);
        let other_epoch = LogPosition { epoch: 8, seq: 4 };
        assert_eq!((extent.behind(other_epoch), extent.has_record(other_epoch)), (None, false));
        assert_eq!(extent.beginning(), at(3));
    }
}
