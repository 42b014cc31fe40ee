//! Opening rooms for what is on sale, and letting people in: every tick, each concert's room is told how many seats
//! could still be had and promotes whom it may. A room's tick is atomic over instances, so several may run this loop. A
//! room that cannot be reached keeps no other one back; one that was lost is opened again with the next refresh. Whose
//! turn ended because they were gone gives back what they held.

use std::sync::Arc;

use boxoffice_domain::{ConcertId, Stock};
use boxoffice_ports::{Clock, Opening, Source, WaitingRoom};

use crate::{HoldReturns, SeatView, Shows, Stats};

pub(crate) struct AdmissionLoop {
    pub(crate) room: Arc<dyn WaitingRoom>,
    pub(crate) shows: Arc<Shows>,
    pub(crate) seats: Arc<SeatView>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) returns: Arc<HoldReturns>,
    pub(crate) stock_linked: bool,
}

impl AdmissionLoop {
    /// Brings the catalogue up to date, with it the seat maps that an import changed, and opens rooms. What fails keeps
    /// nothing else back.
    pub(crate) async fn refresh(&self) -> Result<(), Source> {
        let mut failed = self.shows.refresh(&self.seats).await.map_err(Source::from);
        for concert in self.shows.concerts().iter() {
            let (concert, sale_starts_at, admission) = (concert.concert.id, concert.sale_starts_at, concert.admission);
            let opened = self.room.open(Opening { concert, sale_starts_at, admission }).await;
            failed = failed.and(opened.map_err(Source::from));
        }
        failed
    }

    /// Fails as the first room that failed.
    pub(crate) async fn tick(&self) -> Result<(), Source> {
        let mut failed = Ok(());
        for concert in self.shows.concerts().iter() {
            failed = failed.and(self.tick_room(concert.concert.id).await);
        }
        failed
    }

    async fn tick_room(&self, concert: ConcertId) -> Result<(), Source> {
        let stock = Stock { obtainable: self.obtainable(concert).await?, linked: self.stock_linked };
        let ticked = self.room.tick(concert, stock).await?;
        self.stats.promoted.add(ticked.promoted);
        let mut failed = Ok(());
        for user in ticked.abandoned {
            self.stats.abandoned.add(1);
            failed = failed.and(self.returns.all_of(user, concert).await.map_err(Source::from));
        }
        failed
    }

    /// Seats available or in a live hold, on dates whose booking has not closed.
    async fn obtainable(&self, concert: ConcertId) -> Result<u64, Source> {
        let mut obtainable = 0;
        for date in self.shows.open_dates(concert, self.clock.now()) {
            let counts = self.seats.counts(date).await?;
            obtainable += counts.available + counts.held;
        }
        Ok(obtainable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, TestClock, concert_row, id, seat_row};
    use boxoffice_domain::SeatState;
    use boxoffice_domain::waiting::Ticked;
    use boxoffice_ports::{MockQueries, MockWaitingRoom, RoomError};
    use std::sync::Mutex;

    #[tokio::test]
    async fn a_tick_tells_each_room_what_can_still_be_had() {
        let mut queries = MockQueries::new();
        queries.expect_catalog().returning(|| Ok(vec![concert_row(1)]));
        queries.expect_seats().returning(|_| {
            let held = SeatState::Held { reservation: id(1), until: crate::testing::at(500) };
            let sold = SeatState::Sold { reservation: id(2) };
            Ok(vec![seat_row(1, 1, SeatState::Available), seat_row(2, 1, held), seat_row(3, 1, sold)])
        });
        let mut room = MockWaitingRoom::new();
        room.expect_open().times(1).returning(|terms| {
            assert_eq!(terms.concert, id(CONCERT));
            Ok(())
        });
        let told = Arc::<Mutex<Vec<Stock>>>::default();
        let seen = told.clone();
        room.expect_tick().returning(move |concert, stock| {
            assert_eq!(concert, id(CONCERT));
            seen.lock().unwrap().push(stock);
            Ok(Ticked { promoted: 3, ..Ticked::default() })
        });
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = AdmissionLoop {
            room: Arc::new(room),
            shows: Shows::new(queries.clone()),
            seats: SeatView::new(queries, clock.clone()),
            clock: clock.clone(),
            stats: Arc::default(),
            returns: returns(),
            stock_linked: true,
        };
        admission.refresh().await.unwrap();
        admission.tick().await.unwrap();
        clock.set(1_000);
        admission.tick().await.unwrap();
        let stock = |obtainable| Stock { obtainable, linked: true };
        assert_eq!(*told.lock().unwrap(), [stock(2), stock(0)], "a live hold may come back; a closed date sells nothing");
        assert_eq!(admission.stats.promoted.get(), 6);
    }

    /// Nobody is abandoned here, so nothing is asked of it.
    fn returns() -> Arc<HoldReturns> {
        let ledger = crate::testing::ScriptedLedger::new(|_| unreachable!("nobody is gone"));
        HoldReturns::new(ledger, Arc::new(MockQueries::new()), crate::testing::TestIds::new(), crate::testing::policy())
    }

    #[tokio::test]
    async fn a_room_that_fails_keeps_no_other_back() {
        let mut queries = MockQueries::new();
        queries.expect_catalog().returning(|| {
            let mut other = concert_row(1);
            (other.concert.id, other.dates) = (id(5), Vec::new());
            Ok(vec![concert_row(1), other])
        });
        queries.expect_seats().returning(|_| Ok(vec![seat_row(1, 1, SeatState::Available)]));
        let mut room = MockWaitingRoom::new();
        let fails = |concert| concert == id(CONCERT);
        room.expect_open().times(2).returning(move |terms| if fails(terms.concert) { Err(RoomError::NoRoom) } else { Ok(()) });
        room.expect_tick().times(2).returning(move |concert, _| {
            if fails(concert) { Err(RoomError::Unavailable("gone".into())) } else { Ok(Ticked { promoted: 1, ..Ticked::default() }) }
        });
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = AdmissionLoop {
            room: Arc::new(room),
            shows: Shows::new(queries.clone()),
            seats: SeatView::new(queries, clock.clone()),
            clock,
            stats: Arc::default(),
            returns: returns(),
            stock_linked: true,
        };
        assert!(admission.refresh().await.is_err());
        assert!(admission.tick().await.is_err());
        assert_eq!(admission.stats.promoted.get(), 1);
    }

    #[tokio::test]
    async fn an_import_is_seen_by_the_next_refresh() {
        let mut queries = MockQueries::new();
        let (mut version, mut seats) = (0, 0);
        queries.expect_catalog().returning(move || {
            version += 1;
            Ok(vec![concert_row(version)])
        });
        queries.expect_seats().returning(move |_| {
            seats += 1;
            Ok((1..=seats).map(|number| seat_row(number, 1, SeatState::Available)).collect())
        });
        let mut room = MockWaitingRoom::new();
        room.expect_open().returning(|_| Ok(()));
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = AdmissionLoop {
            room: Arc::new(room),
            shows: Shows::new(queries.clone()),
            seats: SeatView::new(queries, clock.clone()),
            clock,
            stats: Arc::default(),
            returns: returns(),
            stock_linked: true,
        };
        admission.refresh().await.unwrap();
        assert_eq!(admission.obtainable(id(CONCERT)).await.unwrap(), 1);
        admission.refresh().await.unwrap();
        assert_eq!(admission.obtainable(id(CONCERT)).await.unwrap(), 2);
    }
}
