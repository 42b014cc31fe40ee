//! What the logs of waiting rooms have in common, wherever they are kept.

use crate::clock::SystemIds;
use boxoffice_ports::{Ids, LogPosition};

/// Which records a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) epoch: u64,
    /// The record that the snapshot ends with; 0: none.
    pub(crate) base: u64,
    /// The last record.
    pub(crate) last: u64,
}

impl Extent {
    /// Where whoever begins with the snapshot is.
    pub(crate) fn beginning(&self) -> LogPosition {
        LogPosition { epoch: self.epoch, seq: self.base }
    }

    /// How many records follow a position; `None`: it is not in the log.
    pub(crate) fn behind(&self, since: LogPosition) -> Option<u64> {
        let inside = since.epoch == self.epoch && since.seq >= self.base;
        if inside { self.last.checked_sub(since.seq) } else { None }
    }

    /// Whether a snapshot may take the place of everything up to a record: that one is there.
    pub(crate) fn has_record(&self, at: LogPosition) -> bool {
        at.epoch == self.epoch && at.seq > self.base && at.seq <= self.last
    }
}

/// A new log's, from 1 to `i64::MAX`: of the 62 low bits of a UUID, which are its own chance.
pub(crate) fn draw_epoch() -> u64 {
    const CHANCE: u64 = (1 << 62) - 1;
    let (_, low) = SystemIds.fresh().as_u64_pair();
    (low & CHANCE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn epochs_are_drawn_and_fit_a_signed_number() {
        let drawn: HashSet<u64> = (0..1_000).map(|_| draw_epoch()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|epoch| (1..=i64::MAX.unsigned_abs()).contains(epoch)));
    }

    #[test]
    fn positions_are_inside_from_the_snapshot_to_the_end() {
        let extent = Extent { epoch: 7, base: 3, last: 5 };
        let at = |seq| LogPosition { epoch: 7, seq };
        assert_eq!([2, 3, 4, 5, 6].map(|seq| extent.behind(at(seq))), [None, Some(2), Some(1), Some(0), None]);
        assert_eq!([2, 3, 4, 5, 6].map(|seq| extent.has_record(at(seq))), [false, false, true, true, false]);
        let strange = LogPosition { epoch: 8, seq: 4 };
        assert_eq!((extent.behind(strange), extent.has_record(strange)), (None, false));
        assert_eq!(extent.beginning(), at(3));
    }
}
