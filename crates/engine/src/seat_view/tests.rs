use super::*;
use crate::testing::{DATE, TestClock, at, id, key, seat_row};
use boxoffice_domain::{SeatChange, SeatKey, SeatNumber, SeatState};
use boxoffice_ports::{ChangedSeats, MockQueries, SeatMark, SeatRow};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

pub(super) fn held(reservation: u128, until: i64) -> SeatState {
    SeatState::Held { reservation: id(reservation), until: at(until) }
}

pub(super) fn sold(reservation: u128) -> SeatState {
    SeatState::Sold { reservation: id(reservation) }
}

pub(super) fn change(number: u32, version: i64, state: SeatState) -> SeatChange {
    SeatChange { key: key(number), version, state }
}

/// A store that other instances write to as well.
#[derive(Default)]
pub(super) struct SharedStore {
    rows: Mutex<Vec<SeatRow>>,
    changes: Mutex<Vec<SeatChange>>,
    asked: AtomicUsize,
    loads: AtomicUsize,
}

impl SharedStore {
    /// Another instance commits; the view gets no message of it.
    pub(super) fn commit(&self, change: SeatChange) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.seat.key == change.key).unwrap();
        (row.version, row.seat.state) = (change.version, change.state);
        self.changes.lock().unwrap().push(change);
    }

    /// Rounds so far.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

pub(super) fn shared_view(rows: Vec<SeatRow>) -> (Arc<SeatView>, Arc<SharedStore>) {
    let store = Arc::new(SharedStore { rows: Mutex::new(rows), ..SharedStore::default() });
    let mut queries = MockQueries::new();
    let read = store.clone();
    queries.expect_seats().returning(move |_| {
        read.loads.fetch_add(1, Ordering::SeqCst);
        Ok(read.rows.lock().unwrap().clone())
    });
    let read = store.clone();
    queries.expect_changed_seats().returning(move |_, since| {
        read.asked.fetch_add(1, Ordering::SeqCst);
        let changes = read.changes.lock().unwrap();
        let from = since.map_or(changes.len(), |mark| mark.0 as usize);
        Ok(Some(ChangedSeats { changes: changes[from..].to_vec(), mark: SeatMark(changes.len() as u64) }))
    });
    (SeatView::new(Arc::new(queries), Arc::new(TestClock::default())), store)
}

/// On a store that only this process writes.
pub(super) fn sole_view_of(rows: Vec<SeatRow>) -> (Arc<SeatView>, Arc<TestClock>) {
    let mut queries = MockQueries::new();
    queries.expect_seats().returning(move |_| Ok(rows.clone()));
    queries.expect_changed_seats().times(..=1).returning(|_, _| Ok(None));
    let clock = Arc::new(TestClock::default());
    (SeatView::new(Arc::new(queries), clock.clone()), clock)
}

fn four() -> Vec<SeatRow> {
    vec![seat_row(1, 1, SeatState::Available), seat_row(2, 3, held(9, 100)), seat_row(3, 2, sold(8)), seat_row(4, 1, SeatState::Available)]
}

async fn statuses(view: &SeatView) -> Vec<SeatStatus> {
    view.date(id(DATE)).await.unwrap().unwrap().statuses
}

async fn counts(view: &SeatView) -> (u64, u64, u64, u64) {
    let counts = view.counts(id(DATE)).await.unwrap();
    (counts.total, counts.available, counts.held, counts.sold)
}

use SeatStatus::{Available, Held, Sold};

#[tokio::test]
async fn own_commits_show_at_once() {
    let (view, _) = sole_view_of(four());
    assert_eq!(statuses(&view).await, [Available, Held, Sold, Available]);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    let before = view.version(id(DATE)).await.unwrap();
    view.apply(&[change(1, 2, held(7, 300)), change(2, 4, sold(9)), change(3, 3, SeatState::Available)]);
    assert_eq!(statuses(&view).await, [Held, Sold, Available, Available]);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    assert_ne!(view.version(id(DATE)).await.unwrap(), before);
}

#[tokio::test]
async fn changes_may_arrive_in_any_order_and_twice() {
    let changes = [change(1, 2, held(7, 300)), change(1, 3, SeatState::Available), change(1, 4, held(6, 400)), change(1, 5, sold(6))];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let (view, _) = sole_view_of(four());
        statuses(&view).await;
        for at in order {
            view.apply(&[changes[at], changes[at]]);
        }
        assert_eq!(statuses(&view).await, [Sold, Held, Sold, Available], "{order:?}");
        assert_eq!(counts(&view).await, (4, 1, 1, 2), "{order:?}");
        let before = view.version(id(DATE)).await.unwrap();
        view.apply(&changes);
        assert_eq!(view.version(id(DATE)).await.unwrap(), before, "nothing was new");
    }
}

#[tokio::test]
async fn expiry_shows_at_its_instant_and_moves_the_version() {
    let (view, clock) = sole_view_of(four());
    clock.set(99);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    let before = view.version(id(DATE)).await.unwrap();
    clock.set(100);
    assert_ne!(view.version(id(DATE)).await.unwrap(), before);
    assert_eq!(statuses(&view).await, [Available, Available, Sold, Available]);
    assert_eq!(counts(&view).await, (4, 3, 0, 1));
    // The sweep writes what is seen already; then the seat is held anew.
    view.apply(&[change(2, 4, SeatState::Available)]);
    assert_eq!(counts(&view).await, (4, 3, 0, 1));
    view.apply(&[change(2, 5, held(5, 200))]);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    // An extension moves the end.
    view.apply(&[change(2, 6, held(5, 300))]);
    clock.set(250);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    clock.set(300);
    assert_eq!(counts(&view).await, (4, 3, 0, 1));
}

#[tokio::test]
async fn a_snapshot_has_the_version_of_what_it_shows() {
    let (view, clock) = sole_view_of(four());
    let before = view.date(id(DATE)).await.unwrap().unwrap();
    clock.set(100);
    let after = view.date(id(DATE)).await.unwrap().unwrap();
    assert_eq!((before.statuses[1], after.statuses[1]), (Held, Available));
    assert_ne!(after.version, before.version);
    assert_eq!(view.version(id(DATE)).await.unwrap(), Some(after.version));
}

#[tokio::test]
async fn readers_at_once_load_a_date_once() {
    let (view, store) = shared_view(four());
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let view = view.clone();
        readers.spawn(async move { statuses(&view).await });
    }
    for read in readers.join_all().await {
        assert_eq!(read, [Available, Held, Sold, Available]);
    }
    assert_eq!(store.loads(), 1);
}

#[tokio::test]
async fn reloads_at_once_are_two_at_most() {
    let (view, store) = shared_view((1..=3_000).map(|number| seat_row(number, 1, SeatState::Available)).collect());
    // All reloads have begun before the first load can end.
    let reloads = futures_util::future::join_all((0..500).map(|_| view.reload(id(DATE))));
    assert!(tokio::task::unconstrained(reloads).await.iter().all(Result::is_ok));
    assert!(store.loads() <= 2, "{} loads", store.loads());
    assert_eq!(counts(&view).await.0, 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_map_is_built_while_the_one_before_is_read_and_changed() {
    const SEATS: u32 = 200_000;
    let (view, _) = shared_view((1..=SEATS).map(|number| seat_row(number, 1, SeatState::Available)).collect());
    view.catch_up().await.unwrap();
    assert_eq!(counts(&view).await, (u64::from(SEATS), u64::from(SEATS), 0, 0));
    let offer = offered(&view, 2, None, true).await.unwrap();
    let reloading = {
        let view = view.clone();
        tokio::spawn(async move { view.reload(id(DATE)).await })
    };
    let (mut during, mut number) = (0, 10);
    while !reloading.is_finished() && number < 100_000 {
        number += 1;
        view.apply(&[change(number, 2, sold(1))]);
        assert_eq!(counts(&view).await.3, u64::from(number - 10));
        during += 1;
        tokio::task::yield_now().await;
    }
    reloading.await.unwrap().unwrap();
    assert!(during > 10, "{during} reads while it was built");
    assert_eq!(counts(&view).await.3, u64::from(number - 10), "no change was lost");
    assert_eq!(offered(&view, 2, None, true).await.unwrap().choices()[0], [3, 4], "and what was on offer still is on offer");
    drop(offer);
    assert_eq!(offered(&view, 2, None, true).await.unwrap().choices()[0], [1, 2]);
}

#[tokio::test]
async fn a_commit_during_the_load_is_not_lost() {
    let mut queries = MockQueries::new();
    let loads = Arc::new(AtomicU32::new(0));
    // The store's answer from before the commit arrives after it.
    let slot: Arc<std::sync::OnceLock<Arc<SeatView>>> = Arc::default();
    let (counted, view_slot) = (loads.clone(), slot.clone());
    queries.expect_seats().returning(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        view_slot.get().unwrap().apply(&[change(1, 2, held(7, 300))]);
        Ok(four())
    });
    let view = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
    assert!(slot.set(view.clone()).is_ok());
    assert_eq!(statuses(&view).await, [Held, Held, Sold, Available]);
    assert_eq!(loads.load(Ordering::SeqCst), 1, "loaded once");
}

#[tokio::test]
async fn a_reload_keeps_what_is_newer_and_brings_new_seats() {
    let calls = AtomicU32::new(0);
    let mut queries = MockQueries::new();
    queries.expect_seats().returning(move |_| {
        let mut rows = four();
        if calls.fetch_add(1, Ordering::SeqCst) > 0 {
            rows.push(seat_row(5, 1, SeatState::Available));
        }
        Ok(rows)
    });
    let view = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
    statuses(&view).await;
    view.apply(&[change(4, 2, sold(3))]);
    let before = view.version(id(DATE)).await.unwrap().unwrap();
    view.reload(id(DATE)).await.unwrap();
    assert_eq!(statuses(&view).await, [Available, Held, Sold, Sold, Available]);
    assert!(view.version(id(DATE)).await.unwrap().unwrap() > before);
}

#[tokio::test]
async fn a_date_without_seats_is_none_and_not_kept() {
    let (view, _) = sole_view_of(Vec::new());
    assert!(view.date(id(DATE)).await.unwrap().is_none());
    assert!(view.dates.read().unwrap().is_empty());
}

fn hall() -> Vec<SeatRow> {
    // Two rows of five: the second is dearer.
    let seat = |number: u32| {
        let mut row = seat_row(number, 1, SeatState::Available);
        if number > 5 {
            row.seat.row = Some("2".into());
            row.seat.grade = "VIP".into();
            row.seat.price = 200;
        }
        row
    };
    (1..=10).map(seat).collect()
}

async fn offered(view: &SeatView, count: u32, grade: Option<&str>, adjacent: bool) -> Option<Offer> {
    let deadline = Instant::now() + Duration::from_secs(5);
    view.search(id(DATE), SeatPreference { count, grade, adjacent }, deadline).next().await.unwrap()
}

/// What a single caller is offered.
async fn alone(view: &SeatView, count: u32, grade: Option<&str>, adjacent: bool) -> Vec<Vec<SeatNumber>> {
    offered(view, count, grade, adjacent).await.map(|offer| offer.choices().to_vec()).unwrap_or_default()
}

#[tokio::test]
async fn best_is_the_higher_price_then_the_lower_number() {
    let (view, _) = sole_view_of(hall());
    assert_eq!(alone(&view, 2, None, true).await, [[6, 7], [8, 9], [1, 2], [3, 4]]);
    view.apply(&[change(7, 2, sold(1))]);
    assert_eq!(alone(&view, 2, None, true).await[..2], [[8, 9], [1, 2]], "seat 6 has no free neighbour");
    view.apply(&[change(8, 2, sold(1))]);
    assert_eq!(alone(&view, 2, None, false).await[..2], [[6, 9], [10, 1]]);
    view.apply(&[change(6, 2, sold(1))]);
    assert_eq!(alone(&view, 3, None, true).await, [[1, 2, 3]], "never over a row's or grade's edge");
    assert_eq!(alone(&view, 2, Some("R"), true).await, [[1, 2], [3, 4]]);
    assert_eq!(alone(&view, 2, Some("VIP"), true).await, [[9, 10]]);
    for (count, grade, adjacent) in [(2, Some("none"), true), (11, None, false), (3, Some("VIP"), false), (0, None, true), (6, None, true)]
    {
        assert!(alone(&view, count, grade, adjacent).await.is_empty(), "{count} {grade:?}");
    }
}

#[tokio::test]
async fn adjacent_seats_have_all_in_common() {
    type Cut = fn(&mut SeatRow);
    let cuts: [(&str, Cut); 4] = [
        ("number", |row| row.seat.key = key(row.seat.key.number + 1)),
        ("section", |row| row.seat.section = Some("B".into())),
        ("row", |row| row.seat.row = Some("2".into())),
        ("grade", |row| row.seat.grade = "S".into()),
    ];
    for (what, cut) in cuts {
        let mut rows: Vec<_> = (1..=5).map(|number| seat_row(number, 1, SeatState::Available)).collect();
        rows[2..].iter_mut().for_each(cut);
        let from = rows[2].seat.key.number;
        let (view, _) = sole_view_of(rows);
        assert_eq!(alone(&view, 3, None, true).await, [[from, from + 1, from + 2]], "{what}");
    }
}

#[tokio::test]
async fn callers_at_once_are_offered_different_seats_first() {
    let (view, _) = sole_view_of(hall());
    let mut offers = Vec::new();
    for first in [[6, 7], [8, 9], [1, 2], [3, 4]] {
        let offer = offered(&view, 2, None, true).await.unwrap();
        assert_eq!(offer.choices()[0], first);
        let (mut seats, length) = (offer.choices().concat(), offer.choices().len());
        seats.sort_unstable();
        seats.dedup();
        assert!(seats.len() == length * 2 && length <= best::CHOICES_MAX, "choices are disjoint and bounded");
        offers.push(offer);
    }
    view.apply(&[change(6, 2, held(1, 100))]);
    drop(offers);
    assert_eq!(alone(&view, 2, None, true).await[0], [7, 8], "what was not taken is offered again");
}

#[tokio::test]
async fn many_callers_are_spread_behind_their_first_choices() {
    let (view, _) = sole_view_of((1..=4_000).map(|number| seat_row(number, 1, SeatState::Available)).collect());
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(offered(&view, 2, None, true).await.unwrap());
    }
    drop(crowd);
    // Another instance may have sold what a crowd of that size was offered first.
    let choices = alone(&view, 2, None, true).await;
    assert_eq!(choices, [[1, 2], [201, 202], [401, 402], [601, 602]]);
}

#[tokio::test]
async fn an_expired_hold_is_offered_again() {
    let (view, clock) = sole_view_of(vec![seat_row(1, 1, held(1, 100))]);
    assert!(alone(&view, 1, None, true).await.is_empty());
    clock.set(100);
    assert_eq!(alone(&view, 1, None, true).await, [[1]]);
}

/// A thousand different halls in the middle of a sale, each asked for several preferences: what is offered is what a
/// look at every seat finds.
#[tokio::test]
async fn an_offer_is_the_best_that_a_look_at_every_seat_finds() {
    let mut number = 11_usize;
    let mut random = move |below: usize| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    for _ in 0..1_000 {
        let (mut rows, mut seat) = (Vec::new(), 0);
        for _ in 0..random(20) + 1 {
            seat += 1 + u32::from(random(8) == 0);
            let state = if random(3) == 0 { sold(1) } else { SeatState::Available };
            let mut row = seat_row(seat, 1, state);
            row.seat.grade = ["R", "S"][usize::from(random(6) == 0)].into();
            row.seat.price = 100 * (1 + i64::from(random(5) == 0));
            rows.push(row);
        }
        let (view, _) = sole_view_of(rows.clone());
        for (count, grade, adjacent) in [(1, None, true), (2, None, true), (3, Some("R"), true), (2, None, false), (3, Some("S"), false)] {
            let found = alone(&view, count, grade, adjacent).await;
            assert_eq!(found.first(), by_looking(&rows, count as usize, grade, adjacent).as_ref(), "{count} {grade:?} {adjacent} {rows:?}");
        }
    }
}

fn by_looking(rows: &[SeatRow], count: usize, grade: Option<&str>, adjacent: bool) -> Option<Vec<SeatNumber>> {
    let fits = |row: &&SeatRow| row.seat.state == SeatState::Available && grade.is_none_or(|grade| *row.seat.grade == *grade);
    let order = |row: &SeatRow| (std::cmp::Reverse(row.seat.price), row.seat.key.number);
    let numbers = |rows: &[SeatRow]| rows.iter().map(|row| row.seat.key.number).collect::<Vec<_>>();
    if adjacent {
        let side_by_side =
            |pair: &[SeatRow]| pair[1].seat.key.number == pair[0].seat.key.number + 1 && pair[0].seat.grade == pair[1].seat.grade;
        let runs = rows.windows(count).filter(|run| run.iter().all(|row| fits(&row)) && run.windows(2).all(side_by_side));
        return runs.min_by_key(|run| order(&run[0])).map(numbers);
    }
    let mut free: Vec<SeatRow> = rows.iter().filter(fits).cloned().collect();
    free.sort_by_key(order);
    (free.len() >= count).then(|| numbers(&free[..count]))
}

#[test]
fn changes_of_other_dates_are_ignored() {
    let (view, _) = sole_view_of(four());
    view.apply(&[SeatChange { key: SeatKey { date: id(1), number: 1 }, version: 9, state: SeatState::Available }]);
}
