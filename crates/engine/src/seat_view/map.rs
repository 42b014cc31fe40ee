//! The seats of one date, as this instance knows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use boxoffice_domain::{DateId, SeatChange, SeatKey, SeatNumber, SeatState, Timestamp};
use boxoffice_ports::SeatRow;

use super::claims::Claims;
use super::layout::{Layout, Starts};
use super::seats::{SeatCounts, SeatInfo, SeatSnapshot, SeatStatus};

/// Most callers want one seat, or two adjacent ones. Other counts are built when they are first asked for.
const USUAL_COUNTS: [usize; 2] = [1, 2];

/// What a map knew of each seat, to be carried over into one that was read later.
pub(super) struct Known {
    layout: Arc<Layout>,
    rows: Vec<(i64, SeatState)>,
}

pub(super) struct SeatMap {
    version: u64,
    pub(super) layout: Arc<Layout>,
    rows: Vec<(i64, SeatState)>,
    /// A hold reads as held for as long as its end stands in `ends`.
    statuses: Vec<SeatStatus>,
    /// The ends of holds that read as held, by instant.
    ends: BTreeSet<(Timestamp, usize)>,
    counts: SeatCounts,
    /// Available, and not on offer to a caller.
    pub(super) open: Vec<bool>,
    /// Where so many open seats in a row begin: one for each number of seats that was ever asked for.
    pub(super) starts: Vec<Starts>,
    pub(super) claims: Claims,
}

impl SeatMap {
    /// Takes a moment for a big hall: build it beside the lock, and off the threads that serve.
    pub(super) fn new(rows: Vec<SeatRow>, now: Timestamp) -> Self {
        let info = |SeatRow { seat, .. }: &SeatRow| SeatInfo {
            number: seat.key.number,
            section: seat.section.clone(),
            row: seat.row.clone(),
            grade: seat.grade.clone(),
            price: seat.price,
        };
        let layout = Arc::new(Layout::new(rows.iter().map(info).collect()));
        let total = rows.len() as u64;
        let mut map = Self {
            version: 0,
            layout,
            rows: vec![(i64::MIN, SeatState::Available); rows.len()],
            statuses: vec![SeatStatus::Available; rows.len()],
            ends: BTreeSet::new(),
            counts: SeatCounts { total, available: total, ..SeatCounts::default() },
            open: vec![true; rows.len()],
            starts: Vec::new(),
            claims: Claims::default(),
        };
        for row in &rows {
            map.apply(&SeatChange { key: row.seat.key, version: row.version, state: row.seat.state });
        }
        map.pass_to(now);
        // Only now: updating them with each change above would cost more than building them once.
        map.starts = USUAL_COUNTS.map(|count| Starts::new(&map.layout, &map.open, count)).into();
        // A version that no earlier process of this machine has used, so that its ETags do not match by chance.
        map.version = now.timestamp_micros().unsigned_abs();
        map
    }

    pub(super) fn known(&self) -> Known {
        Known { layout: self.layout.clone(), rows: self.rows.clone() }
    }

    /// Applies what `known` has and this map has not.
    pub(super) fn carry_over(&mut self, date: DateId, known: &Known) {
        for (info, &(version, state)) in known.layout.infos.iter().zip(&known.rows) {
            self.apply(&SeatChange { key: SeatKey { date, number: info.number }, version, state });
        }
    }

    /// Takes the place of `old`: a later version, and the same claims.
    pub(super) fn follow(&mut self, old: &mut Self) {
        self.version = self.version.max(old.version + 1);
        let claims = std::mem::take(&mut old.claims);
        let number = |seat: usize| old.layout.infos[seat].number;
        let layout = self.layout.clone();
        self.claims = claims.moved(|seat| layout.seat(number(seat)));
        for seat in self.claims.seats().collect::<Vec<_>>() {
            self.reopen(seat);
        }
    }

    pub(super) fn is_available(&self, seat: usize) -> bool {
        self.statuses[seat] == SeatStatus::Available
    }

    /// Holds that end by `until`, the first to end first.
    pub(super) fn ending(&self, until: Timestamp) -> impl Iterator<Item = (Timestamp, usize)> + '_ {
        self.ends.range(..=(until, usize::MAX)).copied()
    }

    pub(super) fn number(&self, seat: usize) -> SeatNumber {
        self.layout.infos[seat].number
    }

    /// A seat that is not known came with an import that is not loaded yet; the load will bring its state.
    pub(super) fn apply(&mut self, change: &SeatChange) {
        let Some(seat) = self.layout.seat(change.key.number) else { return };
        let (version, was) = self.rows[seat];
        if change.version <= version {
            return;
        }
        if let SeatState::Held { until, .. } = was {
            self.ends.remove(&(until, seat));
        }
        self.rows[seat] = (change.version, change.state);
        let status = match change.state {
            SeatState::Available => SeatStatus::Available,
            SeatState::Sold { .. } => SeatStatus::Sold,
            SeatState::Held { until, .. } => {
                self.ends.insert((until, seat));
                SeatStatus::Held
            }
        };
        self.put(seat, status);
        self.version += 1;
    }

    fn put(&mut self, seat: usize, status: SeatStatus) {
        *self.count_of(self.statuses[seat]) -= 1;
        self.statuses[seat] = status;
        *self.count_of(status) += 1;
        self.reopen(seat);
    }

    fn count_of(&mut self, status: SeatStatus) -> &mut u64 {
        match status {
            SeatStatus::Available => &mut self.counts.available,
            SeatStatus::Held => &mut self.counts.held,
            SeatStatus::Sold => &mut self.counts.sold,
        }
    }

    /// After its status or a claim on it has changed.
    pub(super) fn reopen(&mut self, seat: usize) {
        let open = self.is_available(seat) && !self.claims.has(seat);
        if self.open[seat] != open {
            self.open[seat] = open;
            for starts in &mut self.starts {
                starts.update(&self.layout, &self.open, seat);
            }
        }
    }

    /// Lets holds end that are over at `now`.
    pub(super) fn pass_to(&mut self, now: Timestamp) {
        while let Some(&(until, seat)) = self.ends.first()
            && until <= now
        {
            self.ends.remove(&(until, seat));
            self.put(seat, SeatStatus::Available);
            self.version += 1;
        }
    }

    pub(super) fn version_at(&mut self, now: Timestamp) -> u64 {
        self.pass_to(now);
        self.version
    }

    pub(super) fn counts_at(&mut self, now: Timestamp) -> SeatCounts {
        self.pass_to(now);
        self.counts
    }

    pub(super) fn snapshot(&mut self, now: Timestamp) -> SeatSnapshot {
        self.pass_to(now);
        SeatSnapshot { version: self.version, infos: self.layout.infos.clone(), statuses: self.statuses.clone() }
    }
}
