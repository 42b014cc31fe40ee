//! The view itself: which dates are loaded, how they are read, and how they are kept up to date.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use boxoffice_domain::{DateId, SeatChange, SeatNumber, Timestamp};
use boxoffice_ports::{ChangedSeats, Clock, Queries, SeatMark, SeatRow, StoreError};
use tokio::time::Instant;

use super::best::{Availability, SeatPreference};
use super::map::{Known, SeatMap};
use super::seats::{SeatCounts, SeatSnapshot};
use crate::coalesced::Coalesced;
use crate::sync::{lock, read, write};

/// Maps of fewer seats are built where they are asked for: a change of threads would take longer.
const SMALL_HALL: usize = 2_000;

/// See the opening of `seat_view`.
pub struct SeatView {
    queries: Arc<dyn Queries>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dates: RwLock<HashMap<DateId, Arc<DateCell>>>,
    started: Instant,
    /// Up to where the changes of other instances were read.
    mark: Mutex<Option<SeatMark>>,
    /// Only this process writes to the store: there are no other changes to read.
    is_sole: AtomicBool,
    pub(super) rounds: Coalesced<bool>,
}

#[derive(Default)]
pub(super) struct DateCell {
    /// When it was last asked for, in milliseconds since the view was made.
    read_ms: AtomicU64,
    pub(super) map: Mutex<Option<SeatMap>>,
    /// While the date is being loaded: the changes committed meanwhile, the newest of each seat.
    meanwhile: Mutex<Option<HashMap<SeatNumber, SeatChange>>>,
    loads: Coalesced<()>,
}

/// A load that is under way: changes are noted for it until it ends.
struct Loading<'a>(&'a DateCell);

impl<'a> Loading<'a> {
    fn begin(cell: &'a DateCell) -> Self {
        *lock(&cell.meanwhile) = Some(HashMap::new());
        Self(cell)
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        lock(&self.0.meanwhile).take();
    }
}

impl SeatView {
    pub fn new(queries: Arc<dyn Queries>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            queries,
            clock,
            dates: RwLock::default(),
            started: Instant::now(),
            mark: Mutex::default(),
            is_sole: AtomicBool::new(false),
            rounds: Coalesced::default(),
        })
    }

    /// A date's seats now; `None` for one that has none.
    pub async fn date(&self, date: DateId) -> Result<Option<SeatSnapshot>, StoreError> {
        self.read(date, |map| map.snapshot(self.clock.now())).await
    }

    /// The version of a date, without copying its seats: for asking whether something cached still holds.
    pub async fn version(&self, date: DateId) -> Result<Option<u64>, StoreError> {
        self.read(date, |map| map.version_at(self.clock.now())).await
    }

    pub async fn counts(&self, date: DateId) -> Result<SeatCounts, StoreError> {
        Ok(self.read(date, |map| map.counts_at(self.clock.now())).await?.unwrap_or_default())
    }

    /// What there is for a preference now, with the date's cell, through which the offer is given back.
    pub(super) async fn look(
        &self,
        date: DateId,
        preference: &SeatPreference<'_>,
    ) -> Result<Option<(Availability, Arc<DateCell>)>, StoreError> {
        let cell = self.cell(date);
        let look = self.read_in(&cell, date, |map| map.look(preference, self.clock.now())).await?;
        Ok(look.map(|look| (look, cell)))
    }

    /// The dates that are loaded, or being loaded.
    pub(crate) fn dates(&self) -> Vec<DateId> {
        read(&self.dates).keys().copied().collect()
    }

    /// Forgets the dates that were not asked for since `unread` ago.
    pub(crate) fn unload_unread(&self, unread: Duration) {
        let before = self.now_ms().saturating_sub(unread.as_millis() as u64);
        let is_read = |cell: &Arc<DateCell>| cell.read_ms.load(Ordering::Relaxed) >= before;
        if !read(&self.dates).values().all(is_read) {
            write(&self.dates).retain(|_, cell| is_read(cell));
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Applies what a commit changed.
    pub fn apply(&self, changes: &[SeatChange]) {
        for change in changes {
            let cell = read(&self.dates).get(&change.key.date).cloned();
            let Some(cell) = cell else { continue };
            // The map's lock first, as at the end of a load: a change is in the old map and noted, or it is in the new
            // map.
            let mut map = lock(&cell.map);
            if let Some(map) = &mut *map {
                map.apply(change);
            }
            if let Some(noted) = &mut *lock(&cell.meanwhile) {
                let newest = noted.entry(change.key.number).or_insert(*change);
                if newest.version < change.version {
                    *newest = *change;
                }
            }
        }
    }

    /// Applies what other instances committed before this call, for all loaded dates. False for a store that only this
    /// process writes: there the view is exact without it.
    pub async fn catch_up(&self) -> Result<bool, StoreError> {
        if self.is_sole.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.rounds.run(|| self.round()).await
    }

    async fn round(&self) -> Result<bool, StoreError> {
        let since = *lock(&self.mark);
        let dates = self.dates();
        let Some(ChangedSeats { changes, mark }) = self.queries.changed_seats(dates.clone(), since).await? else {
            self.is_sole.store(true, Ordering::Relaxed);
            return Ok(false);
        };
        self.apply(&changes);
        if since.is_none() {
            for date in self.dates() {
                self.reload(date).await?;
            }
        } else if self.dates().iter().any(|date| !dates.contains(date)) {
            // A date that was loaded meanwhile may have been read before what the answer covers.
            return Ok(true);
        }
        *lock(&self.mark) = Some(mark);
        Ok(true)
    }

    /// Reads a date from the store again. Changes that are newer than what was read stay.
    pub async fn reload(&self, date: DateId) -> Result<(), StoreError> {
        let cell = self.cell(date);
        cell.loads.run(|| self.load(&cell, date)).await
    }

    /// Loads `date` unless it is there, then reads from it.
    async fn read<R>(&self, date: DateId, read: impl Fn(&mut SeatMap) -> R) -> Result<Option<R>, StoreError> {
        let cell = self.cell(date);
        self.read_in(&cell, date, read).await
    }

    async fn read_in<R>(&self, cell: &DateCell, date: DateId, read: impl Fn(&mut SeatMap) -> R) -> Result<Option<R>, StoreError> {
        cell.read_ms.store(self.now_ms(), Ordering::Relaxed);
        if let Some(map) = &mut *lock(&cell.map) {
            return Ok(Some(read(map)));
        }
        let load = async || if lock(&cell.map).is_some() { Ok(()) } else { self.load(cell, date).await };
        cell.loads.run(load).await?;
        let answer = lock(&cell.map).as_mut().map(read);
        if answer.is_none() {
            // Nothing is kept of dates that do not exist.
            write(&self.dates).remove(&date);
        }
        Ok(answer)
    }

    fn cell(&self, date: DateId) -> Arc<DateCell> {
        if let Some(cell) = read(&self.dates).get(&date) {
            return cell.clone();
        }
        let fresh = || Arc::new(DateCell { read_ms: self.now_ms().into(), ..DateCell::default() });
        write(&self.dates).entry(date).or_insert_with(fresh).clone()
    }

    /// Reads a date and replaces its map. The lock is held only while versions are copied, and for the replacement.
    async fn load(&self, cell: &DateCell, date: DateId) -> Result<(), StoreError> {
        let loading = Loading::begin(cell);
        let rows = self.queries.seats(date).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let (now, known, is_small) = (self.clock.now(), lock(&cell.map).as_ref().map(SeatMap::known), rows.len() < SMALL_HALL);
        let build = move || new_map(rows, date, known.as_ref(), now);
        let mut map = match is_small {
            true => build(),
            false => tokio::task::spawn_blocking(build).await.map_err(|error| StoreError::Broken(error.into()))?,
        };
        let replaced = {
            let mut slot = lock(&cell.map);
            for change in lock(&cell.meanwhile).iter_mut().flat_map(HashMap::drain) {
                map.apply(&change.1);
            }
            if let Some(old) = &mut *slot {
                map.follow(old);
            }
            slot.replace(map)
        };
        drop(loading);
        if !is_small {
            // Freeing a big map takes long, too.
            tokio::task::spawn_blocking(move || drop(replaced));
        }
        Ok(())
    }
}

fn new_map(rows: Vec<SeatRow>, date: DateId, known: Option<&Known>, now: Timestamp) -> SeatMap {
    let mut map = SeatMap::new(rows, now);
    if let Some(known) = known {
        map.carry_over(date, known);
    }
    map
}
