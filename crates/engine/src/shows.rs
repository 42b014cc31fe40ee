//! The catalogue in memory: what concerts and dates there are, for reading and for the loops. Brought up to date every
//! [`REFRESH`] by the background, so an import by another process shows within a second.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use boxoffice_domain::{ConcertId, DateId, Timestamp};
use boxoffice_ports::{ConcertRow, DateRow, Queries, StoreError};

/// How often the background asks for the catalogue again.
pub(crate) const REFRESH: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Index {
    concerts: Arc<Vec<Arc<ConcertRow>>>,
    by_id: HashMap<ConcertId, usize>,
    /// Concert and position among its dates.
    dates: HashMap<DateId, (usize, usize)>,
}

/// See the module's opening.
pub struct Shows {
    queries: Arc<dyn Queries>,
    index: RwLock<Arc<Index>>,
}

impl Shows {
    /// Empty until the first [`Shows::refresh`].
    pub fn new(queries: Arc<dyn Queries>) -> Arc<Self> {
        Arc::new(Self { queries, index: RwLock::default() })
    }

    /// Reads the catalogue again. Returns the dates whose seats were changed by an import since the last time.
    pub async fn refresh(&self) -> Result<Vec<DateId>, StoreError> {
        let concerts: Vec<_> = self.queries.catalog().await?.into_iter().map(Arc::new).collect();
        let mut index = Index::default();
        for (at, concert) in concerts.iter().enumerate() {
            index.by_id.insert(concert.concert.id, at);
            index.dates.extend(concert.dates.iter().enumerate().map(|(n, date)| (date.date.id, (at, n))));
        }
        index.concerts = Arc::new(concerts);
        let before = self.index();
        let version = |index: &Index, id: &DateId| index.dates.get(id).map(|&(at, n)| index.concerts[at].dates[n].seats_version);
        let changed =
            index.dates.keys().filter(|id| version(&before, id).is_some_and(|old| Some(old) != version(&index, id))).copied().collect();
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        Ok(changed)
    }

    fn index(&self) -> Arc<Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
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
    use crate::testing::{CONCERT, DATE, at, concert_row, id};
    use boxoffice_ports::MockQueries;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[tokio::test]
    async fn the_catalogue_is_read_again_and_changed_seats_are_named() {
        let version = Arc::new(AtomicI64::new(1));
        let mut queries = MockQueries::new();
        let now = version.clone();
        queries.expect_catalog().returning(move || Ok(vec![concert_row(now.load(Ordering::SeqCst))]));
        let shows = Shows::new(Arc::new(queries));
        assert!(shows.concert(id(CONCERT)).is_none());
        assert!(shows.refresh().await.unwrap().is_empty(), "what is new was not seen by anybody");
        assert_eq!(shows.concerts().len(), 1);
        assert_eq!(shows.date(id(DATE)).unwrap().1.total, 4);
        assert!(shows.refresh().await.unwrap().is_empty());
        version.store(2, Ordering::SeqCst);
        assert_eq!(shows.refresh().await.unwrap(), [id(DATE)]);
    }

    #[tokio::test]
    async fn a_date_is_open_until_its_booking_closes() {
        let mut queries = MockQueries::new();
        queries.expect_catalog().returning(|| Ok(vec![concert_row(1)]));
        let shows = Shows::new(Arc::new(queries));
        shows.refresh().await.unwrap();
        assert_eq!(shows.open_dates(id(CONCERT), at(999)), [id(DATE)]);
        assert!(shows.open_dates(id(CONCERT), at(1_000)).is_empty());
        assert!(shows.open_dates(id(1), at(0)).is_empty());
    }
}
