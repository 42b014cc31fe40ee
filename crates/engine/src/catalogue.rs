//! The catalogue in memory: which concerts and dates there are, for reading and for the loops. The background brings it
//! up to date every [`REFRESH`], so an import by another process shows within a second. The store is asked for its
//! version, and for the whole catalogue only if that has changed. An id that is not known here is looked up in the
//! store before it is refused ([`Catalogue::find_concert`], [`Catalogue::find_date`]).
//!
//! *Bounds.* Ids that are made up cost the store one such read every [`LOOK_UP_EVERY`], however many callers ask: they
//! wait for the next read together.
//!
//! *Failure.* A date whose seats an import changed is remembered until they are read again, however often that fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use boxoffice_domain::{ConcertId, DateId, Timestamp};
use boxoffice_ports::{ConcertRow, DateRow, Opening, Queries, RoomError, StoreError, WaitingRoom};
use tokio::time::{Instant, sleep_until};

use crate::SeatView;
use crate::coalesced::Coalesced;
use crate::sync::{lock, read, write};

/// How often the background asks for the catalogue again.
pub(crate) const REFRESH: Duration = Duration::from_millis(500);
/// The least time between two reads of the catalogue that unknown ids cause.
const LOOK_UP_EVERY: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Index {
    /// The store's version of the catalogue that this was read from, or of the one just before.
    version: Option<i64>,
    concerts: Arc<Vec<Arc<ConcertRow>>>,
    by_id: HashMap<ConcertId, usize>,
    /// The concert's position, and the date's position among its dates.
    dates: HashMap<DateId, (usize, usize)>,
}

impl Index {
    fn of(concerts: Vec<ConcertRow>) -> Self {
        let concerts: Vec<_> = concerts.into_iter().map(Arc::new).collect();
        let mut index = Self::default();
        for (at, concert) in concerts.iter().enumerate() {
            index.by_id.insert(concert.concert.id, at);
            index.dates.extend(concert.dates.iter().enumerate().map(|(n, date)| (date.date.id, (at, n))));
        }
        index.concerts = Arc::new(concerts);
        index
    }

    fn seats_version(&self, date: DateId) -> Option<i64> {
        self.dates.get(&date).map(|&(at, n)| self.concerts[at].dates[n].seats_version)
    }
}

/// See the module's opening.
pub struct Catalogue {
    queries: Arc<dyn Queries>,
    index: RwLock<Arc<Index>>,
    /// One read at a time, or an older answer could replace a newer one.
    reading: Coalesced<()>,
    looking_up: Coalesced<()>,
    /// When an unknown id was last looked up.
    looked_up: Mutex<Option<Instant>>,
    /// Dates whose seats an import has changed since they were read, each with the version to read.
    unread: Mutex<HashMap<DateId, i64>>,
}

impl Catalogue {
    /// Empty until the first [`Catalogue::refresh`].
    pub fn new(queries: Arc<dyn Queries>) -> Arc<Self> {
        let (reading, looking_up) = (Coalesced::default(), Coalesced::default());
        Arc::new(Self { queries, index: RwLock::default(), reading, looking_up, looked_up: Mutex::default(), unread: Mutex::default() })
    }

    /// Reads the catalogue again, and the maps in `seats` of dates whose seats an import has changed. A date that fails
    /// delays no other, and is read again the next time.
    pub async fn refresh(&self, seats: &SeatView) -> Result<(), StoreError> {
        self.read().await?;
        let unread: Vec<_> = self.unread().iter().map(|(&date, &version)| (date, version)).collect();
        let mut failed = Ok(());
        for (date, version) in unread {
            match seats.reload(date).await {
                Ok(()) => {
                    let mut unread = self.unread();
                    // Unless another import changed the seats meanwhile.
                    if unread.get(&date) == Some(&version) {
                        unread.remove(&date);
                    }
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    async fn read(&self) -> Result<(), StoreError> {
        let read = async || {
            // Asked before the rows are read: after a change in between, the next read sees another version.
            let version = Some(self.queries.catalog_version().await?);
            let before = self.index();
            if before.version == version {
                return Ok(());
            }
            let index = Index { version, ..Index::of(self.queries.catalog().await?) };
            let mut unread = self.unread();
            for &date in index.dates.keys() {
                if let (Some(old), Some(new)) = (before.seats_version(date), index.seats_version(date))
                    && old != new
                {
                    unread.insert(date, new);
                }
            }
            *write(&self.index) = Arc::new(index);
            Ok(())
        };
        self.reading.run(read).await
    }

    fn unread(&self) -> MutexGuard<'_, HashMap<DateId, i64>> {
        lock(&self.unread)
    }

    /// The concert, looked up in the store if it is not known here.
    pub async fn find_concert(&self, id: ConcertId) -> Result<Option<Arc<ConcertRow>>, StoreError> {
        if let Some(found) = self.concert(id) {
            return Ok(Some(found));
        }
        self.look_up().await?;
        Ok(self.concert(id))
    }

    /// The date and its concert, looked up in the store if it is not known here.
    pub async fn find_date(&self, id: DateId) -> Result<Option<(Arc<ConcertRow>, DateRow)>, StoreError> {
        if let Some(found) = self.date(id) {
            return Ok(Some(found));
        }
        self.look_up().await?;
        Ok(self.date(id))
    }

    /// Asks a concert's room. If it is not open here yet, because another instance has imported the concert a moment
    /// ago, it is opened first. [`RoomError::NoRoom`] for a concert that is not in the store.
    pub async fn with_room<T, F>(&self, room: &dyn WaitingRoom, concert: ConcertId, ask: impl Fn() -> F) -> Result<T, RoomError>
    where
        F: Future<Output = Result<T, RoomError>>,
    {
        match ask().await {
            Err(RoomError::NoRoom) => {}
            answered => return answered,
        }
        let found = self.find_concert(concert).await.map_err(|error| match error {
            StoreError::Unavailable(source) | StoreError::Broken(source) => RoomError::Unavailable(source),
        })?;
        let row = found.ok_or(RoomError::NoRoom)?;
        room.open(Opening { concert, sale_starts_at: row.sale_starts_at, admission: row.admission }).await?;
        ask().await
    }

    async fn look_up(&self) -> Result<(), StoreError> {
        let pause = async {
            let last = *lock(&self.looked_up);
            if let Some(last) = last {
                sleep_until(last + LOOK_UP_EVERY).await;
            }
        };
        let look_up = async || {
            *lock(&self.looked_up) = Some(Instant::now());
            self.read().await
        };
        self.looking_up.run_after(pause, look_up).await
    }

    fn index(&self) -> Arc<Index> {
        read(&self.index).clone()
    }

    /// All concerts, by start of sale.
    pub fn concerts(&self) -> Arc<Vec<Arc<ConcertRow>>> {
        self.index().concerts.clone()
    }

    pub fn concert(&self, id: ConcertId) -> Option<Arc<ConcertRow>> {
        let index = self.index();
        index.by_id.get(&id).map(|&at| index.concerts[at].clone())
    }

    /// A date and the concert it belongs to.
    pub fn date(&self, id: DateId) -> Option<(Arc<ConcertRow>, DateRow)> {
        let index = self.index();
        index.dates.get(&id).map(|&(at, n)| (index.concerts[at].clone(), index.concerts[at].dates[n].clone()))
    }

    /// The concert's dates whose booking has not closed at `now`.
    pub fn open_dates(&self, id: ConcertId, now: Timestamp) -> Vec<DateId> {
        let concert = self.concert(id);
        let dates = concert.iter().flat_map(|concert| &concert.dates);
        dates.filter(|date| date.booking_closes_at > now).map(|date| date.date.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, DATE, TestClock, at, catalog, concert_row, id, seat_row};
    use boxoffice_domain::SeatState;
    use boxoffice_ports::MockQueries;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    /// A store whose catalogue has the version of `version`, and is empty while that is 0. Seats cannot be read while
    /// `broken`. Beside it, how often they were read.
    fn shop(version: &Arc<AtomicI64>, broken: &Arc<AtomicBool>) -> (Arc<Catalogue>, Arc<SeatView>, Arc<AtomicI64>) {
        let (now, broken, reads) = (version.clone(), broken.clone(), Arc::new(AtomicI64::new(0)));
        let mut queries = catalog(move || match now.load(Ordering::SeqCst) {
            0 => Vec::new(),
            version => vec![concert_row(version)],
        });
        let counted = reads.clone();
        queries.expect_seats().returning(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            if broken.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("gone".into()));
            }
            Ok(vec![seat_row(1, 1, SeatState::Available)])
        });
        let queries = Arc::new(queries);
        (Catalogue::new(queries.clone()), SeatView::new(queries, Arc::new(TestClock::default())), reads)
    }

    #[tokio::test]
    async fn a_refresh_reads_the_catalogue_and_changed_seats_again() {
        let version = Arc::new(AtomicI64::new(1));
        let (catalogue, seats, reads) = shop(&version, &Arc::default());
        assert!(catalogue.concert(id(CONCERT)).is_none());
        catalogue.refresh(&seats).await.unwrap();
        assert_eq!(catalogue.concerts().len(), 1);
        assert_eq!(catalogue.date(id(DATE)).unwrap().1.total, 4);
        catalogue.refresh(&seats).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 0, "seats that no reader has loaded are not read");
        version.store(2, Ordering::SeqCst);
        catalogue.refresh(&seats).await.unwrap();
        catalogue.refresh(&seats).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn seats_whose_reading_failed_are_read_by_the_next_refresh() {
        let (version, broken) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicBool::new(false)));
        let (catalogue, seats, reads) = shop(&version, &broken);
        catalogue.refresh(&seats).await.unwrap();
        version.store(2, Ordering::SeqCst);
        broken.store(true, Ordering::SeqCst);
        assert!(catalogue.refresh(&seats).await.is_err());
        assert!(catalogue.refresh(&seats).await.is_err(), "the date is not forgotten");
        broken.store(false, Ordering::SeqCst);
        catalogue.refresh(&seats).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 3);
        catalogue.refresh(&seats).await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 3, "seats that were read are not read again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_id_is_looked_up_and_a_made_up_one_costs_little() {
        let version = Arc::new(AtomicI64::new(0));
        let (catalogue, ..) = shop(&version, &Arc::default());
        assert!(catalogue.find_concert(id(CONCERT)).await.unwrap().is_none());
        version.store(1, Ordering::SeqCst);
        let began = Instant::now();
        let (concert, date) = tokio::join!(catalogue.find_concert(id(CONCERT)), catalogue.find_date(id(DATE)));
        assert!(concert.unwrap().is_some() && date.unwrap().is_some());
        assert_eq!(began.elapsed(), LOOK_UP_EVERY, "not sooner after the last look-up");
        // A thousand made-up ids, a few at a time: as many reads as fit into the time that took.
        let (made_up, began, before) = (Arc::new(AtomicI64::new(0)), Instant::now(), catalogue.reading.runs());
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (catalogue, made_up) = (catalogue.clone(), made_up.clone());
            asking.spawn(async move {
                while made_up.fetch_add(1, Ordering::SeqCst) < 1_000 {
                    assert!(catalogue.find_date(id(1)).await.unwrap().is_none());
                }
            });
        }
        asking.join_all().await;
        let fit = began.elapsed().as_millis() / LOOK_UP_EVERY.as_millis() + 1;
        let runs = u128::from(catalogue.reading.runs() - before);
        assert!(runs <= fit && fit <= 30, "{runs} reads in {:?}", began.elapsed());
        assert!(catalogue.find_concert(id(CONCERT)).await.unwrap().is_some());
        assert_eq!(u128::from(catalogue.reading.runs() - before), runs, "what is known is not looked up");
    }

    #[tokio::test]
    async fn a_catalogue_that_has_not_changed_is_not_read_again() {
        let (version, reads) = (Arc::new(AtomicI64::new(7)), Arc::new(AtomicI64::new(0)));
        let mut queries = MockQueries::new();
        let (now, counted) = (version.clone(), reads.clone());
        queries.expect_catalog_version().returning(move || Ok(now.load(Ordering::SeqCst)));
        queries.expect_catalog().returning(move || match counted.fetch_add(1, Ordering::SeqCst) {
            // A read that fails is tried again.
            0 => Err(StoreError::Unavailable("gone".into())),
            read => Ok(vec![concert_row(read)]),
        });
        let catalogue = Catalogue::new(Arc::new(queries));
        assert!(catalogue.read().await.is_err());
        for (at, reads_by_then) in [(7, 2), (7, 2), (8, 3), (8, 3)] {
            version.store(at, Ordering::SeqCst);
            catalogue.read().await.unwrap();
            assert_eq!(reads.load(Ordering::SeqCst), reads_by_then, "{at}");
        }
    }

    #[tokio::test]
    async fn a_date_is_open_until_its_booking_closes() {
        let catalogue = Catalogue::new(Arc::new(catalog(|| vec![concert_row(1)])));
        catalogue.read().await.unwrap();
        assert_eq!(catalogue.open_dates(id(CONCERT), at(999)), [id(DATE)]);
        assert!(catalogue.open_dates(id(CONCERT), at(1_000)).is_empty());
        assert!(catalogue.open_dates(id(1), at(0)).is_empty());
    }
}
