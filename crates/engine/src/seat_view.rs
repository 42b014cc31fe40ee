//! The seat maps in memory, for reading: the ledger alone decides.
//!
//! A date is loaded when it is first asked for. From then on every commit of this process is applied at once
//! ([`SeatView::apply`]): of two changes of a seat the higher version is newer, so the order in which they arrive does
//! not matter, nor does a change that arrives while the date is being loaded. What other instances commit is brought by
//! `seat_sync`. Expiry needs no write: whoever reads at
//! or after `held_until` sees the seat free, and the view's version has moved.
//!
//! *Cost.* A read takes one short mutex a date and no store; a commit touches its seats alone.

mod best;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use boxoffice_domain::money::Money;
use boxoffice_domain::{DateId, SeatChange, SeatNumber, SeatState, Timestamp};
use boxoffice_ports::{Clock, Queries, SeatRow, StoreError};
use tokio::time::Instant;

/// What never changes while a date is on sale, but by an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatInfo {
    pub number: SeatNumber,
    pub section: Option<Arc<str>>,
    pub row: Option<Arc<str>>,
    pub grade: Arc<str>,
    pub price: Money,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatStatus {
    Available,
    Held,
    Sold,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeatCounts {
    pub total: u64,
    pub available: u64,
    pub held: u64,
    pub sold: u64,
}

/// A date's seats at one instant; `statuses[i]` is that of `infos[i]`.
#[derive(Clone, Debug)]
pub struct SeatSnapshot {
    /// Opaque, this process's own; another one means that something may have changed.
    pub version: u64,
    pub infos: Arc<[SeatInfo]>,
    pub statuses: Vec<SeatStatus>,
}

/// See the module's opening.
pub struct SeatView {
    queries: Arc<dyn Queries>,
    clock: Arc<dyn Clock>,
    dates: RwLock<HashMap<DateId, Arc<DateCell>>>,
    started: Instant,
}

#[derive(Default)]
struct DateCell {
    /// When somebody last asked for it, in milliseconds since the view was made.
    read_ms: AtomicU64,
    map: Mutex<Option<SeatMap>>,
    /// Changes that were committed while the date was being loaded.
    early: Mutex<Vec<SeatChange>>,
    /// One load at a time.
    loading: tokio::sync::Mutex<()>,
}

impl SeatView {
    pub fn new(queries: Arc<dyn Queries>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { queries, clock, dates: RwLock::default(), started: Instant::now() })
    }

    /// A date's seats now; `None` for one that has none.
    pub async fn date(&self, date: DateId) -> Result<Option<SeatSnapshot>, StoreError> {
        let now = self.clock.now();
        self.read(date, |map| map.snapshot(now)).await
    }

    /// The version of a date that is loaded: cheap, for asking whether something cached still holds.
    pub async fn version(&self, date: DateId) -> Result<Option<u64>, StoreError> {
        let now = self.clock.now();
        self.read(date, |map| map.version_at(now)).await
    }

    pub async fn counts(&self, date: DateId) -> Result<SeatCounts, StoreError> {
        let now = self.clock.now();
        Ok(self.read(date, |map| map.counts_at(now)).await?.unwrap_or_default())
    }

    /// Up to [`best::CHOICES_MAX`] disjoint choices of `count` seats, the best first: higher price, then lower number.
    /// While others are being offered seats of the same version, each call starts one choice further on.
    pub async fn best_choices(
        &self,
        date: DateId,
        count: u32,
        grade: Option<&str>,
        adjacent: bool,
    ) -> Result<Vec<Vec<SeatNumber>>, StoreError> {
        let now = self.clock.now();
        let wish = best::Wish { count: count as usize, grade, adjacent };
        Ok(self.read(date, |map| map.best_choices(&wish, now)).await?.unwrap_or_default())
    }

    /// The dates that are loaded, or being loaded.
    pub(crate) fn dates(&self) -> Vec<DateId> {
        read_lock(&self.dates).keys().copied().collect()
    }

    /// Forgets the dates that nobody has asked for since `unread` ago.
    pub(crate) fn unload_unread(&self, unread: Duration) {
        let before = self.now_ms().saturating_sub(unread.as_millis() as u64);
        let is_read = |cell: &Arc<DateCell>| cell.read_ms.load(Ordering::Relaxed) >= before;
        if !read_lock(&self.dates).values().all(is_read) {
            self.dates.write().unwrap_or_else(PoisonError::into_inner).retain(|_, cell| is_read(cell));
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Applies what a commit changed.
    pub fn apply(&self, changes: &[SeatChange]) {
        for change in changes {
            let cell = read_lock(&self.dates).get(&change.key.date).cloned();
            let Some(cell) = cell else { continue };
            match &mut *lock(&cell.map) {
                Some(map) => map.apply(change),
                None => lock(&cell.early).push(*change),
            }
        }
    }

    /// Reads a date from the store again. Changes that are newer than what was read stay.
    pub async fn reload(&self, date: DateId) -> Result<(), StoreError> {
        let cell = self.cell(date);
        let _one_at_a_time = cell.loading.lock().await;
        self.load(&cell, date).await
    }

    /// Loads `date` unless it is there, then reads from it.
    async fn read<R>(&self, date: DateId, read: impl Fn(&mut SeatMap) -> R) -> Result<Option<R>, StoreError> {
        let cell = self.cell(date);
        cell.read_ms.store(self.now_ms(), Ordering::Relaxed);
        if let Some(map) = &mut *lock(&cell.map) {
            return Ok(Some(read(map)));
        }
        let _one_at_a_time = cell.loading.lock().await;
        if lock(&cell.map).is_none() {
            self.load(&cell, date).await?;
        }
        let answer = lock(&cell.map).as_mut().map(read);
        if answer.is_none() {
            // Nothing is kept of dates that do not exist.
            self.dates.write().unwrap_or_else(PoisonError::into_inner).remove(&date);
        }
        Ok(answer)
    }

    fn cell(&self, date: DateId) -> Arc<DateCell> {
        if let Some(cell) = read_lock(&self.dates).get(&date) {
            return cell.clone();
        }
        let fresh = || Arc::new(DateCell { read_ms: self.now_ms().into(), ..DateCell::default() });
        self.dates.write().unwrap_or_else(PoisonError::into_inner).entry(date).or_insert_with(fresh).clone()
    }

    async fn load(&self, cell: &DateCell, date: DateId) -> Result<(), StoreError> {
        let rows = self.queries.seats(date).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut slot = lock(&cell.map);
        let mut map = SeatMap::new(rows, slot.as_ref().map_or(0, |old| old.version), now);
        if let Some(old) = slot.take() {
            for change in old.changes(date) {
                map.apply(&change);
            }
        }
        for change in lock(&cell.early).drain(..) {
            map.apply(&change);
        }
        *slot = Some(map);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The seats of one date.
struct SeatMap {
    version: u64,
    infos: Arc<[SeatInfo]>,
    index: HashMap<SeatNumber, usize>,
    rows: Vec<(i64, SeatState)>,
    /// When holds end, by instant; those behind the last read have been seen to end.
    ends: BTreeSet<(Timestamp, usize)>,
    counts: SeatCounts,
    /// Seats by price, the highest first, then by number.
    ranked: Arc<[u32]>,
    offered: best::Offered,
}

impl SeatMap {
    fn new(rows: Vec<SeatRow>, after_version: u64, now: Timestamp) -> Self {
        // A version that no earlier process of this machine has used, so that its ETags do not match by chance.
        let version = (now.timestamp_micros().unsigned_abs()).max(after_version + 1);
        let infos: Arc<[SeatInfo]> = rows
            .iter()
            .map(|SeatRow { seat, .. }| SeatInfo {
                number: seat.key.number,
                section: seat.section.clone(),
                row: seat.row.clone(),
                grade: seat.grade.clone(),
                price: seat.price,
            })
            .collect();
        let index = infos.iter().enumerate().map(|(at, info)| (info.number, at)).collect();
        let counts = SeatCounts { total: rows.len() as u64, available: rows.len() as u64, ..SeatCounts::default() };
        let mut map = Self {
            version,
            ranked: best::rank(&infos),
            infos,
            index,
            rows: vec![(i64::MIN, SeatState::Available); rows.len()],
            ends: BTreeSet::new(),
            counts,
            offered: best::Offered::default(),
        };
        for row in &rows {
            map.apply(&SeatChange { key: row.seat.key, version: row.version, state: row.seat.state });
        }
        map.version = version;
        map
    }

    fn changes(&self, date: DateId) -> impl Iterator<Item = SeatChange> + '_ {
        self.infos.iter().zip(&self.rows).map(move |(info, &(version, state))| {
            let key = boxoffice_domain::SeatKey { date, number: info.number };
            SeatChange { key, version, state }
        })
    }

    /// A seat that is not known came with an import that is not loaded yet; the load will bring its state.
    fn apply(&mut self, change: &SeatChange) {
        let Some(&at) = self.index.get(&change.key.number) else { return };
        let (version, state) = self.rows[at];
        if change.version <= version {
            return;
        }
        self.count(at, state, false);
        self.rows[at] = (change.version, change.state);
        self.count(at, change.state, true);
        self.version += 1;
    }

    /// Adds a seat to the counts or takes it out. A hold counts for as long as its end stands in `ends`.
    fn count(&mut self, at: usize, state: SeatState, add: bool) {
        let slot = match state {
            SeatState::Available => &mut self.counts.available,
            SeatState::Sold { .. } => &mut self.counts.sold,
            SeatState::Held { until, .. } if add => {
                self.ends.insert((until, at));
                &mut self.counts.held
            }
            SeatState::Held { until, .. } if self.ends.remove(&(until, at)) => &mut self.counts.held,
            SeatState::Held { .. } => &mut self.counts.available,
        };
        *slot = if add { *slot + 1 } else { *slot - 1 };
    }

    /// Lets holds end that are over at `now`.
    fn pass_to(&mut self, now: Timestamp) {
        while let Some(&(until, at)) = self.ends.first()
            && until <= now
        {
            self.ends.remove(&(until, at));
            self.counts.held -= 1;
            self.counts.available += 1;
            self.version += 1;
        }
    }

    fn version_at(&mut self, now: Timestamp) -> u64 {
        self.pass_to(now);
        self.version
    }

    fn counts_at(&mut self, now: Timestamp) -> SeatCounts {
        self.pass_to(now);
        self.counts
    }

    fn snapshot(&mut self, now: Timestamp) -> SeatSnapshot {
        self.pass_to(now);
        let status = |&(_, state): &(i64, SeatState)| match state {
            SeatState::Sold { .. } => SeatStatus::Sold,
            state if state.is_free(now) => SeatStatus::Available,
            _ => SeatStatus::Held,
        };
        SeatSnapshot { version: self.version, infos: self.infos.clone(), statuses: self.rows.iter().map(status).collect() }
    }
}

#[cfg(test)]
mod tests;
