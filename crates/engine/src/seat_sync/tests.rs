use super::*;
use crate::Supervisor;
use crate::testing::{DATE, TestClock, id, key, seat_row, until};
use crate::{SeatStatus, SeatView};
use async_trait::async_trait;
use boxoffice_domain::{DateId, SeatChange, SeatState};
use boxoffice_ports::{ChangedSeats, Fanout, FanoutListener, MockQueries, SeatMark, StoreError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::broadcast;

/// A store that several instances share: each change of a seat has a position, and a mark is one.
#[derive(Default)]
struct Shared {
    changes: Mutex<Vec<SeatChange>>,
    fails: AtomicBool,
    asked: AtomicUsize,
}

impl Shared {
    fn sell(&self, number: u32) -> SeatChange {
        let mut changes = self.changes.lock().unwrap();
        let change = SeatChange { key: key(number), version: 2, state: SeatState::Sold { reservation: id(1) } };
        changes.push(change);
        change
    }

    fn queries(self: &Arc<Self>) -> MockQueries {
        let mut queries = MockQueries::new();
        let shared = self.clone();
        queries.expect_changed_seats().returning(move |dates, since| {
            shared.asked.fetch_add(1, Ordering::SeqCst);
            if shared.fails.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("gone".into()));
            }
            let changes = shared.changes.lock().unwrap();
            let from = since.map_or(changes.len(), |mark| mark.0 as usize);
            let of_dates = changes[from..].iter().filter(|change| dates.contains(&change.key.date)).copied().collect();
            Ok(Some(ChangedSeats { changes: of_dates, mark: SeatMark(changes.len() as u64) }))
        });
        let shared = self.clone();
        queries.expect_seats().returning(move |_| Ok(shared.rows()));
        queries
    }

    fn rows(&self) -> Vec<boxoffice_ports::SeatRow> {
        let changes = self.changes.lock().unwrap();
        let row = |number| match changes.iter().rev().find(|change| change.key.number == number) {
            Some(change) => seat_row(number, change.version, change.state),
            None => seat_row(number, 1, SeatState::Available),
        };
        (1..=3).map(row).collect()
    }
}

fn instance(queries: MockQueries, peers: Arc<Peers>) -> (Arc<SeatSync>, Arc<SeatView>) {
    let seats = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
    (SeatSync::new(seats.clone(), peers), seats)
}

async fn sold(seats: &SeatView) -> Vec<u32> {
    let map = seats.date(id(DATE)).await.unwrap().unwrap();
    map.infos.iter().zip(&map.statuses).filter(|(_, status)| **status == SeatStatus::Sold).map(|(info, _)| info.number).collect()
}

/// A fan-out that gives each message to all instances, the sender included.
struct MemoryFanout(broadcast::Sender<FanoutMessage>);

#[async_trait]
impl Fanout for MemoryFanout {
    async fn publish(&self, changes: Vec<SeatChange>) -> Result<(), Source> {
        self.0.send(FanoutMessage::Seats(changes)).map(drop).map_err(Source::from)
    }

    async fn listen(&self) -> Result<Box<dyn FanoutListener>, Source> {
        Ok(Box::new(Ear(self.0.subscribe())))
    }
}

struct Ear(broadcast::Receiver<FanoutMessage>);

#[async_trait]
impl FanoutListener for Ear {
    async fn next(&mut self) -> FanoutMessage {
        match self.0.recv().await {
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(_)) => FanoutMessage::Gap,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_round_brings_what_others_committed_since_the_last() {
    let shared = Arc::<Shared>::default();
    shared.sell(3);
    let (sync, seats) = instance(shared.queries(), Peers::start(None, &*Supervisor::new()));
    assert!(sync.round().await.unwrap());
    assert_eq!(sold(&seats).await, [3]);
    shared.sell(1);
    assert_eq!(sold(&seats).await, [3], "reading asks no store");
    assert!(sync.round().await.unwrap());
    assert_eq!(sold(&seats).await, [1, 3]);
}

#[tokio::test]
async fn what_was_loaded_before_the_first_mark_is_loaded_again() {
    let shared = Arc::<Shared>::default();
    let (sync, seats) = instance(shared.queries(), Peers::start(None, &*Supervisor::new()));
    assert_eq!(sold(&seats).await, [0; 0]);
    shared.sell(2);
    sync.round().await.unwrap();
    assert_eq!(sold(&seats).await, [2]);
}

#[tokio::test]
async fn a_failed_round_loses_nothing() {
    let shared = Arc::<Shared>::default();
    let (sync, seats) = instance(shared.queries(), Peers::start(None, &*Supervisor::new()));
    sync.round().await.unwrap();
    sold(&seats).await;
    shared.sell(1);
    shared.fails.store(true, Ordering::SeqCst);
    assert!(sync.round().await.is_err());
    shared.fails.store(false, Ordering::SeqCst);
    shared.sell(2);
    sync.round().await.unwrap();
    assert_eq!(sold(&seats).await, [1, 2]);
}

#[tokio::test]
async fn a_date_loaded_during_a_round_misses_no_change() {
    let shared = Arc::<Shared>::default();
    let (loads, view) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None::<Arc<SeatView>>)));
    let mut queries = MockQueries::new();
    let (rows, table) = (Arc::new(Mutex::new(None)), shared.clone());
    let (snapshot, counted) = (rows.clone(), loads.clone());
    // Its load has read the store before seat 1 is sold, and ends after the round has asked.
    queries.expect_seats().returning(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(snapshot.lock().unwrap().clone().unwrap_or_else(|| table.rows()))
    });
    let (table, before, seats_of) = (shared.clone(), rows.clone(), view.clone());
    let first = AtomicBool::new(true);
    queries.expect_changed_seats().returning(move |dates, since| {
        let changes = table.changes.lock().unwrap().clone();
        let from = since.map_or(changes.len(), |mark| mark.0 as usize);
        let found = changes[from..].iter().filter(|change| dates.contains(&change.key.date)).copied().collect();
        if since.is_some() && first.swap(false, Ordering::SeqCst) {
            // The reader comes here, between the list of dates and the answer.
            *before.lock().unwrap() = Some(table.rows());
            let seats = seats_of.lock().unwrap().clone().unwrap();
            let mut load = at_once(async move { seats.date(id(DATE)).await.map(drop) });
            load().unwrap();
            let mark = SeatMark(changes.len() as u64 + 1);
            table.sell(1);
            return Ok(Some(ChangedSeats { changes: found, mark }));
        }
        Ok(Some(ChangedSeats { changes: found, mark: SeatMark(changes.len() as u64) }))
    });
    let (sync, seats) = instance(queries, Peers::start(None, &*Supervisor::new()));
    *view.lock().unwrap() = Some(seats.clone());
    sync.round().await.unwrap();
    sync.round().await.unwrap();
    sync.round().await.unwrap();
    assert_eq!((sold(&seats).await, loads.load(Ordering::SeqCst)), (vec![1], 1));
}

/// Runs a future that never waits.
fn at_once<F: Future>(future: F) -> impl FnMut() -> F::Output {
    let mut future = Box::pin(future);
    move || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => output,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_date_without_readers_is_unloaded() {
    let shared = Arc::<Shared>::default();
    let (sync, seats) = instance(shared.queries(), Peers::start(None, &*Supervisor::new()));
    sync.round().await.unwrap();
    sold(&seats).await;
    for _ in 0..4 {
        tokio::time::advance(UNLOAD_AFTER / 2).await;
        sync.round().await.unwrap();
        assert_eq!(seats.dates(), [id::<DateId>(DATE)], "it is read");
        sold(&seats).await;
    }
    tokio::time::advance(UNLOAD_AFTER + Duration::from_millis(2)).await;
    sync.round().await.unwrap();
    assert!(seats.dates().is_empty());
    shared.sell(2);
    assert_eq!(sold(&seats).await, [2], "a later reader loads it");
}

#[tokio::test]
async fn a_store_without_other_writers_is_not_read_again() {
    let mut queries = MockQueries::new();
    queries.expect_changed_seats().once().returning(|_, _| Ok(None));
    let (sync, _) = instance(queries, Peers::start(None, &*Supervisor::new()));
    let (_stop, stopped) = watch::channel(false);
    sync.read_again(stopped).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_fanout_others_are_seen_by_reading_twice_a_second() {
    let shared = Arc::<Shared>::default();
    let (sync, seats) = instance(shared.queries(), Peers::start(None, &*Supervisor::new()));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(sync.read_again(stopped));
    until(|| shared.asked.load(Ordering::SeqCst) == 1).await;
    sold(&seats).await;
    let before = Instant::now();
    shared.sell(2);
    while sold(&seats).await != [2] {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(before.elapsed() <= Duration::from_secs(1), "{:?}", before.elapsed());
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn published_changes_are_seen_at_once_and_missed_ones_are_read() {
    let shared = Arc::<Shared>::default();
    let (messages, _keep) = broadcast::channel(1);
    let fanout: Arc<dyn Fanout> = Arc::new(MemoryFanout(messages.clone()));
    let (stop, stopped) = watch::channel(false);
    let publisher = Peers::start(Some(fanout.clone()), &*Supervisor::new());
    let (sync, seats) = instance(shared.queries(), Peers::start(Some(fanout), &*Supervisor::new()));
    let tasks = [tokio::spawn(sync.clone().read_again(stopped.clone())), tokio::spawn(sync.listen(stopped))];
    until(|| messages.receiver_count() == 2).await;
    sleep(2 * PAUSE).await;
    sold(&seats).await;
    let asked = shared.asked.load(Ordering::SeqCst);
    publisher.publish(&[shared.sell(2)]);
    let before = Instant::now();
    while sold(&seats).await != [2] {
        tokio::task::yield_now().await;
    }
    assert_eq!((before.elapsed(), shared.asked.load(Ordering::SeqCst)), (Duration::ZERO, asked), "nothing was read for it");
    // Two more in a channel that holds one: the listener has a gap.
    for number in [1, 3] {
        messages.send(FanoutMessage::Seats(vec![shared.sell(number)])).unwrap();
    }
    while sold(&seats).await != [1, 2, 3] {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(before.elapsed() <= Duration::from_millis(200), "{:?}", before.elapsed());
    stop.send(true).unwrap();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn listening_is_tried_again() {
    struct Deaf(AtomicUsize);
    #[async_trait]
    impl Fanout for Deaf {
        async fn publish(&self, _: Vec<SeatChange>) -> Result<(), Source> {
            Ok(())
        }

        async fn listen(&self) -> Result<Box<dyn FanoutListener>, Source> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err("gone".into())
        }
    }
    let deaf = Arc::new(Deaf(AtomicUsize::new(0)));
    let (sync, _) = instance(MockQueries::new(), Peers::start(Some(deaf.clone()), &*Supervisor::new()));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(sync.listen(stopped));
    while deaf.0.load(Ordering::SeqCst) < 3 {
        sleep(LISTEN_AGAIN).await;
    }
    stop.send(true).unwrap();
    task.await.unwrap();
}
