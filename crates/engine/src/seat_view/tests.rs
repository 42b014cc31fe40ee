use super::*;
use crate::testing::{DATE, TestClock, at, id, key, seat_row};
use boxoffice_domain::SeatKey;
use boxoffice_ports::MockQueries;
use std::sync::atomic::{AtomicU32, Ordering};

fn held(reservation: u128, until: i64) -> SeatState {
    SeatState::Held { reservation: id(reservation), until: at(until) }
}

fn sold(reservation: u128) -> SeatState {
    SeatState::Sold { reservation: id(reservation) }
}

fn change(number: u32, version: i64, state: SeatState) -> SeatChange {
    SeatChange { key: key(number), version, state }
}

fn view_of(rows: Vec<SeatRow>) -> (Arc<SeatView>, Arc<TestClock>) {
    let mut queries = MockQueries::new();
    queries.expect_seats().returning(move |_| Ok(rows.clone()));
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
    let (view, _) = view_of(four());
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
        let (view, _) = view_of(four());
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
    let (view, clock) = view_of(four());
    clock.set(99);
    assert_eq!(counts(&view).await, (4, 2, 1, 1));
    let before = view.version(id(DATE)).await.unwrap();
    clock.set(100);
    assert_ne!(view.version(id(DATE)).await.unwrap(), before);
    assert_eq!(statuses(&view).await, [Available, Available, Sold, Available]);
    assert_eq!(counts(&view).await, (4, 3, 0, 1));
    // The sweep's write says again what is seen already; then the seat is held anew.
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
    let (view, clock) = view_of(four());
    let before = view.date(id(DATE)).await.unwrap().unwrap();
    clock.set(100);
    let after = view.date(id(DATE)).await.unwrap().unwrap();
    assert_eq!((before.statuses[1], after.statuses[1]), (Held, Available));
    assert_ne!(after.version, before.version);
    assert_eq!(view.version(id(DATE)).await.unwrap(), Some(after.version));
}

#[tokio::test]
async fn readers_at_once_load_a_date_once() {
    let mut queries = MockQueries::new();
    queries.expect_seats().once().returning(|_| Ok(four()));
    let view = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
    let cell = view.cell(id(DATE));
    let loading = cell.loading.lock().await;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let view = view.clone();
            tokio::spawn(async move { statuses(&view).await })
        })
        .collect();
    // One for this test, one for each reader that waits for the load.
    crate::testing::until(|| Arc::strong_count(&cell) == 2 + readers.len()).await;
    drop(loading);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), [Available, Held, Sold, Available]);
    }
}

#[tokio::test]
async fn a_commit_during_the_load_is_not_lost() {
    let mut queries = MockQueries::new();
    let loads = Arc::new(AtomicU32::new(0));
    // What the store said before the commit arrives after it.
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
    let (view, _) = view_of(Vec::new());
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

#[tokio::test]
async fn best_is_the_higher_price_then_the_lower_number() {
    let (view, _) = view_of(hall());
    let best = async |count, grade, adjacent| view.best_choices(id(DATE), count, grade, adjacent).await.unwrap();
    assert_eq!(best(2, None, true).await[..3], [vec![6, 7], vec![8, 9], vec![1, 2]]);
    view.apply(&[change(7, 2, sold(1))]);
    assert_eq!(best(2, None, true).await[..2], [vec![8, 9], vec![1, 2]], "adjacent: 6 stands alone");
    view.apply(&[change(8, 2, sold(1))]);
    assert_eq!(best(2, None, false).await[..2], [vec![6, 9], vec![10, 1]]);
    view.apply(&[change(6, 2, sold(1))]);
    assert_eq!(best(3, None, true).await, [vec![1, 2, 3]], "never over a row's or grade's edge");
    assert_eq!(best(2, Some("R"), true).await[0], [3, 4], "the second call of a version starts one choice on");
    assert_eq!(best(2, Some("none"), true).await, Vec::<Vec<u32>>::new());
    assert_eq!(best(11, None, false).await, Vec::<Vec<u32>>::new());
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
        let (view, _) = view_of(rows);
        let choices = view.best_choices(id(DATE), 3, None, true).await.unwrap();
        assert_eq!(choices, [vec![from, from + 1, from + 2]], "{what}");
    }
}

#[tokio::test]
async fn choices_are_bounded_wherever_they_begin() {
    for adjacent in [true, false] {
        let (view, _) = view_of((1..=40).map(|number| seat_row(number, 1, SeatState::Available)).collect());
        for first in 1..=5 {
            let choices = view.best_choices(id(DATE), 1, None, adjacent).await.unwrap();
            assert_eq!(choices, (first..first + 8).map(|number| vec![number]).collect::<Vec<_>>());
        }
        // Whoever comes after the last choice begins again, with no more than the others.
        let (view, _) = view_of((1..=10).map(|number| seat_row(number, 1, SeatState::Available)).collect());
        for first in (1..=10).chain([1]) {
            let choices = view.best_choices(id(DATE), 1, None, adjacent).await.unwrap();
            assert_eq!((choices[0][0], choices.len()), (first, 8.min(11 - first as usize)));
        }
    }
}

#[tokio::test]
async fn callers_at_once_are_offered_different_seats_first() {
    let (view, _) = view_of(hall());
    let mut first = Vec::new();
    for _ in 0..5 {
        let choices = view.best_choices(id(DATE), 2, None, true).await.unwrap();
        let mut seats = choices.concat();
        first.push(choices[0].clone());
        seats.sort_unstable();
        seats.dedup();
        assert_eq!(seats.len(), choices.len() * 2, "choices are disjoint");
    }
    assert_eq!(first, [[6, 7], [8, 9], [1, 2], [3, 4], [6, 7]], "and at the end from the best again");
    view.apply(&[change(6, 2, held(1, 100))]);
    assert_eq!(view.best_choices(id(DATE), 2, None, true).await.unwrap()[0], [7, 8], "a quiet view offers the best");
}

#[tokio::test]
async fn an_expired_hold_is_offered_again() {
    let (view, clock) = view_of(vec![seat_row(1, 1, held(1, 100))]);
    assert!(view.best_choices(id(DATE), 1, None, true).await.unwrap().is_empty());
    clock.set(100);
    assert_eq!(view.best_choices(id(DATE), 1, None, true).await.unwrap(), [[1]]);
}

#[test]
fn changes_of_other_dates_are_ignored() {
    let (view, _) = view_of(four());
    view.apply(&[SeatChange { key: SeatKey { date: id(1), number: 1 }, version: 9, state: SeatState::Available }]);
}
