//! Opening rooms for what is on sale, and admitting entries. Every tick gives each concert's room the number of seats
//! that could still be had, and the room promotes as many entries as it may. A room's tick is atomic over instances, so
//! several may run this loop. The holds of users whose turn ended because they were gone are given back beside the
//! ticks ([`HoldReturns`]).
//!
//! *Rooms do not wait for one another.* Up to [`TOGETHER_MAX`] are ticked at a time, each for [`TICK_MAX`] at most. A
//! room has one tick at a time. A round waits for its ticks until the next round is due: a room that is slow by then
//! goes on beside it. If [`TOGETHER_MAX`] rooms are slow, the next round begins behind the last room that was ticked.
//! Rooms that rest are skipped, and rooms that are open as the catalogue says are not opened again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{ConcertId, Stock};
use boxoffice_ports::{Clock, Opening, Source, WaitingRoom};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Catalogue, HoldReturns, SeatView, Stats, catalogue};

/// Rooms that are ticked at a time, and rooms that are opened at a time.
const TOGETHER_MAX: usize = 256;
/// How long one tick, or one opening, may take. What was appended to the room's log by then stays there.
const TICK_MAX: Duration = Duration::from_secs(5);
/// How long the first opening of all rooms may take.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct AdmissionLoop {
    parts: AdmissionParts,
    settings: AdmissionSettings,
    ticking: tokio::sync::Mutex<AtWork>,
    opening: tokio::sync::Mutex<AtWork>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionSettings {
    /// How long a round waits for its rooms.
    pub(crate) patience: Duration,
    pub(crate) stock_linked: bool,
}

/// What the loop works with.
pub(crate) struct AdmissionParts {
    pub(crate) room: Arc<dyn WaitingRoom>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) seats: Arc<SeatView>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) returns: Arc<HoldReturns>,
}

impl AdmissionLoop {
    pub(crate) fn new(parts: AdmissionParts, settings: AdmissionSettings) -> Arc<Self> {
        Arc::new(Self { parts, settings, ticking: Default::default(), opening: Default::default() })
    }

    /// Reads the catalogue and opens all rooms, before anything is served.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<(), Source> {
        self.refresh_within(OPENED_WITHIN).await
    }

    /// Brings the catalogue up to date, with it the seat maps that an import changed, and opens rooms.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<(), Source> {
        self.refresh_within(catalogue::REFRESH).await
    }

    async fn refresh_within(self: &Arc<Self>, patience: Duration) -> Result<(), Source> {
        // A failure of one part does not keep the others from being done.
        let refreshed = self.parts.catalogue.refresh(&self.parts.seats).await.map_err(Source::from);
        let concerts = self.parts.catalogue.concerts();
        let rooms =
            concerts.iter().map(|row| Opening { concert: row.concert.id, sale_starts_at: row.sale_starts_at, admission: row.admission });
        let work = rooms.filter(|opening| !self.parts.room.is_open(opening)).map(|opening| {
            let room = self.parts.room.clone();
            (opening.concert, async move { room.open(opening).await.map_err(Source::from) })
        });
        let opened = self.opening.lock().await.round(work, Instant::now() + patience).await;
        refreshed.and(opened)
    }

    /// Ticks the rooms. Returns the first failure of a room since the round before.
    pub(crate) async fn tick(self: &Arc<Self>) -> Result<(), Source> {
        let mut ticking = self.ticking.lock().await;
        let concerts = self.parts.catalogue.concerts();
        let next = ticking.next.and_then(|next| concerts.iter().position(|row| row.concert.id == next)).unwrap_or(0);
        let rooms = concerts.iter().cycle().skip(next).take(concerts.len()).map(|row| row.concert.id);
        let work = rooms.filter(|concert| !self.parts.room.rests(*concert)).map(|concert| {
            let this = self.clone();
            (concert, async move { this.tick_room(concert).await })
        });
        ticking.round(work, Instant::now() + self.settings.patience).await
    }

    async fn tick_room(&self, concert: ConcertId) -> Result<(), Source> {
        let stock = Stock { obtainable: self.obtainable(concert).await?, linked: self.settings.stock_linked };
        let ticked = self.parts.room.tick(concert, stock).await?;
        self.parts.stats.promoted.add(ticked.promoted);
        if !ticked.abandoned.is_empty() {
            self.parts.stats.abandoned.add(ticked.abandoned.len() as u64);
            self.parts.returns.soon(concert, ticked.abandoned);
        }
        Ok(())
    }

    /// Seats available or in a live hold, on dates whose booking has not closed.
    async fn obtainable(&self, concert: ConcertId) -> Result<u64, Source> {
        let mut obtainable = 0;
        for date in self.parts.catalogue.open_dates(concert, self.parts.clock.now()) {
            let counts = self.parts.seats.counts(date).await?;
            obtainable += counts.available + counts.held;
        }
        Ok(obtainable)
    }
}

/// The rooms that are being ticked or opened, over several rounds if they are slow.
#[derive(Default)]
struct AtWork {
    tasks: JoinSet<Result<(), Source>>,
    rooms: HashMap<ConcertId, Id>,
    concerts: HashMap<Id, ConcertId>,
    /// The first room that the last round had no time for.
    next: Option<ConcertId>,
}

impl AtWork {
    /// Starts all of `work`, except for rooms whose last work still runs, and waits for it until the deadline.
    async fn round<F>(&mut self, work: impl Iterator<Item = (ConcertId, F)>, deadline: Instant) -> Result<(), Source>
    where
        F: Future<Output = Result<(), Source>> + Send + 'static,
    {
        let mut failed = Ok(());
        self.next = None;
        for (concert, room) in work {
            if self.rooms.contains_key(&concert) {
                continue;
            }
            while self.tasks.len() >= TOGETHER_MAX {
                let Ok(ended) = timeout_at(deadline, self.ended()).await else {
                    self.next = Some(concert);
                    return failed;
                };
                failed = failed.and(ended);
            }
            let within = timeout(TICK_MAX, room);
            let task = self.tasks.spawn(async move { within.await.unwrap_or_else(|_| Err("timed out waiting for a waiting room".into())) });
            self.rooms.insert(concert, task.id());
            self.concerts.insert(task.id(), concert);
        }
        while !self.tasks.is_empty()
            && let Ok(ended) = timeout_at(deadline, self.ended()).await
        {
            failed = failed.and(ended);
        }
        failed
    }

    /// Waits for the work of one room to end.
    async fn ended(&mut self) -> Result<(), Source> {
        let Some(ended) = self.tasks.join_next_with_id().await else { return Ok(()) };
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, ended),
            Err(error) => (error.id(), Err(error.into())),
        };
        if let Some(concert) = self.concerts.remove(&task) {
            self.rooms.remove(&concert);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, TestClock, catalog, concert_row, id, seat_row};
    use boxoffice_domain::SeatState;
    use boxoffice_domain::waiting::Ticked;
    use boxoffice_ports::{MockQueries, MockWaitingRoom, RoomError};
    use std::sync::Mutex;

    /// Rooms that are not open, and have entries.
    fn unopened() -> MockWaitingRoom {
        let mut room = MockWaitingRoom::new();
        room.expect_is_open().returning(|_| false);
        room.expect_rests().returning(|_| false);
        room
    }

    /// A catalogue of concerts without dates.
    fn concerts(count: u128) -> Arc<MockQueries> {
        Arc::new(catalog(move || {
            let concert = |n| {
                let mut row = concert_row(1);
                (row.concert.id, row.dates) = (id(n), Vec::new());
                row
            };
            (1..=count).map(concert).collect()
        }))
    }

    #[tokio::test]
    async fn a_tick_gives_each_room_the_seats_that_can_still_be_had() {
        let mut queries = catalog(|| vec![concert_row(1)]);
        queries.expect_seats().returning(|_| {
            let held = SeatState::Held { reservation: id(1), until: crate::testing::at(500) };
            let sold = SeatState::Sold { reservation: id(2) };
            Ok(vec![seat_row(1, 1, SeatState::Available), seat_row(2, 1, held), seat_row(3, 1, sold)])
        });
        let mut room = unopened();
        room.expect_open().times(1).returning(|terms| {
            assert_eq!(terms.concert, id(CONCERT));
            Ok(())
        });
        let given = Arc::<Mutex<Vec<Stock>>>::default();
        let seen = given.clone();
        room.expect_tick().returning(move |concert, stock| {
            assert_eq!(concert, id(CONCERT));
            seen.lock().unwrap().push(stock);
            Ok(Ticked { promoted: 3, ..Ticked::default() })
        });
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = admission(room, queries, clock.clone());
        admission.refresh().await.unwrap();
        admission.tick().await.unwrap();
        clock.set(1_000);
        admission.tick().await.unwrap();
        let stock = |obtainable| Stock { obtainable, linked: true };
        assert_eq!(*given.lock().unwrap(), [stock(2), stock(0)], "a live hold may come back; a closed date sells nothing");
        assert_eq!(admission.parts.stats.promoted.get(), 6);
    }

    fn admission(room: MockWaitingRoom, queries: Arc<MockQueries>, clock: Arc<TestClock>) -> Arc<AdmissionLoop> {
        let (catalogue, seats) = (Catalogue::new(queries.clone()), SeatView::new(queries, clock.clone()));
        let parts = AdmissionParts { room: Arc::new(room), catalogue, seats, clock, stats: Arc::default(), returns: returns() };
        AdmissionLoop::new(parts, AdmissionSettings { patience: Duration::from_millis(50), stock_linked: true })
    }

    /// No entry is abandoned here, so its ledger is never called.
    fn returns() -> Arc<HoldReturns> {
        let ledger = crate::testing::ScriptedLedger::new(|_| unreachable!("no entry is abandoned"));
        HoldReturns::new(ledger, Arc::new(MockQueries::new()), crate::testing::TestIds::new(), crate::testing::policy())
    }

    #[tokio::test]
    async fn a_room_that_fails_delays_no_other() {
        let mut queries = catalog(|| {
            let mut other = concert_row(1);
            (other.concert.id, other.dates) = (id(5), Vec::new());
            vec![concert_row(1), other]
        });
        queries.expect_seats().returning(|_| Ok(vec![seat_row(1, 1, SeatState::Available)]));
        let mut room = unopened();
        let fails = |concert| concert == id(CONCERT);
        room.expect_open().times(2).returning(move |terms| if fails(terms.concert) { Err(RoomError::NoRoom) } else { Ok(()) });
        room.expect_tick().times(2).returning(move |concert, _| {
            if fails(concert) { Err(RoomError::Unavailable("gone".into())) } else { Ok(Ticked { promoted: 1, ..Ticked::default() }) }
        });
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = admission(room, queries, clock.clone());
        assert!(admission.refresh().await.is_err());
        assert!(admission.tick().await.is_err());
        assert_eq!(admission.parts.stats.promoted.get(), 1);
    }

    #[tokio::test]
    async fn an_import_is_seen_by_the_next_refresh() {
        let (mut version, mut seats) = (0, 0);
        let mut queries = catalog(move || {
            version += 1;
            vec![concert_row(version)]
        });
        queries.expect_seats().returning(move |_| {
            seats += 1;
            Ok((1..=seats).map(|number| seat_row(number, 1, SeatState::Available)).collect())
        });
        let mut room = unopened();
        room.expect_open().returning(|_| Ok(()));
        let (queries, clock) = (Arc::new(queries), Arc::new(TestClock::default()));
        let admission = admission(room, queries, clock.clone());
        admission.refresh().await.unwrap();
        assert_eq!(admission.obtainable(id(CONCERT)).await.unwrap(), 1);
        admission.refresh().await.unwrap();
        assert_eq!(admission.obtainable(id(CONCERT)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn rooms_that_rest_or_are_open_are_not_called() {
        let mut room = MockWaitingRoom::new();
        room.expect_is_open().returning(|opening| opening.concert != id(3));
        room.expect_rests().returning(|concert| concert != id(5));
        room.expect_open().times(1).withf(|opening| opening.concert == id(3)).returning(|_| Ok(()));
        room.expect_tick().times(1).withf(|concert, _| *concert == id(5)).returning(|_, _| Ok(Ticked::default()));
        let admission = admission(room, concerts(2_000), Arc::default());
        admission.refresh().await.unwrap();
        admission.tick().await.unwrap();
    }

    /// Rooms of which the first `slow` end when the gate opens, and the others at once.
    struct Rooms {
        slow: u128,
        gate: tokio::sync::Semaphore,
        begun: Mutex<HashMap<ConcertId, u32>>,
    }

    impl Rooms {
        fn new(slow: u128) -> Arc<Self> {
            Arc::new(Self { slow, gate: tokio::sync::Semaphore::new(0), begun: Mutex::default() })
        }

        fn begun(&self, n: u128) -> u32 {
            self.begun.lock().unwrap().get(&id(n)).copied().unwrap_or(0)
        }

        async fn round(self: &Arc<Self>, at_work: &mut AtWork, rooms: impl Iterator<Item = u128>) -> Result<(), Source> {
            let work = rooms.map(|n| {
                let this = self.clone();
                let tick = async move {
                    *this.begun.lock().unwrap().entry(id(n)).or_default() += 1;
                    if n <= this.slow {
                        this.gate.acquire().await?.forget();
                    }
                    Ok(())
                };
                (id(n), tick)
            });
            at_work.round(work, Instant::now() + Duration::from_millis(50)).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_room_delays_no_other_and_is_ticked_once_at_a_time() {
        let (rooms, mut at_work) = (Rooms::new(1), AtWork::default());
        for round in 1..=3 {
            rooms.round(&mut at_work, 1..=10).await.unwrap();
            assert_eq!((rooms.begun(1), rooms.begun(2), rooms.begun(10)), (1, round, round));
        }
        rooms.gate.add_permits(1);
        for _ in 0..2 {
            rooms.round(&mut at_work, 1..=10).await.unwrap();
        }
        assert_eq!(rooms.begun(1), 2, "ticked again once it had ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_hangs_is_given_up_and_tried_again() {
        let (rooms, mut at_work) = (Rooms::new(1), AtWork::default());
        rooms.round(&mut at_work, 1..=2).await.unwrap();
        tokio::time::advance(TICK_MAX).await;
        assert!(rooms.round(&mut at_work, 1..=2).await.is_err(), "the time-out is an error");
        rooms.round(&mut at_work, 1..=2).await.unwrap();
        assert_eq!(rooms.begun(1), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_panics_is_tried_again() {
        let mut at_work = AtWork::default();
        for _ in 0..2 {
            let work = std::iter::once((id(1), async { panic!("a defect") }));
            let ended = at_work.round(work, Instant::now() + Duration::from_millis(50)).await;
            assert!(ended.is_err_and(|error| error.to_string().contains("panic")), "it is an error each time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_of_slow_rooms_the_next_round_begins_where_this_one_ended() {
        const LAST: u128 = TOGETHER_MAX as u128 + 3;
        let (rooms, mut at_work) = (Rooms::new(TOGETHER_MAX as u128), AtWork::default());
        rooms.round(&mut at_work, 1..=LAST).await.unwrap();
        assert_eq!((rooms.begun(TOGETHER_MAX as u128), rooms.begun(LAST)), (1, 0), "there is a bound");
        assert_eq!(at_work.next, Some(id(LAST - 2)));
        rooms.gate.add_permits(TOGETHER_MAX);
        rooms.round(&mut at_work, 1..=LAST).await.unwrap();
        assert_eq!((rooms.begun(LAST), at_work.next), (1, None));
    }
}
