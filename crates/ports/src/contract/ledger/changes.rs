//! Seats that other instances may have changed. A store that only one process writes returns none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_domain::{DateId, SeatChange, SeatKey};
use tokio::task::JoinSet;

use crate::contract::Fixture;
use crate::contract::build::{self, user};
use crate::contract::shop::{Shop, numbers};
use crate::{ChangedSeats, SeatMark};

/// How often, and how far apart, a reader looks until everything that ran beside it is over.
const ROUNDS_MAX: u32 = 3_000;
const ROUND: Duration = Duration::from_millis(10);

impl Shop {
    async fn changed(&self, dates: &[DateId], since: Option<SeatMark>) -> Option<ChangedSeats> {
        self.fixture.stores.queries.changed_seats(dates.to_vec(), since).await.expect("an answer")
    }
}

pub async fn changed_seats_are_returned_since_a_mark(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let Some(first) = shop.changed(&[shop.date], None).await else { return };
    assert!(first.changes.is_empty(), "without a mark there is only the mark to begin with");
    shop.hold(user(), &[3, 7]).await;
    let second = shop.changed(&[shop.date], Some(first.mark)).await.expect("changes");
    let of = |changes: &[SeatChange], number| changes.iter().find(|change| change.key.number == number).copied();
    for number in [3, 7] {
        let row = shop.seat(number).await;
        let found = of(&second.changes, number).expect("the seat is among them");
        assert_eq!((found.key, found.version, found.state), (row.seat.key, row.version, row.seat.state));
    }
    // A change is no longer returned once every transaction that ran beside it, in this store or another of its server,
    // is over.
    let mut mark = second.mark;
    for _ in 0..ROUNDS_MAX {
        let found = shop.changed(&[shop.date], Some(mark)).await.expect("changes");
        mark = found.mark;
        if found.changes.is_empty() {
            return shop.close().await;
        }
        tokio::time::sleep(ROUND).await;
    }
    panic!("the same changes are returned for ever");
}

pub async fn changed_seats_are_those_of_the_dates_asked_for(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let Some(first) = shop.changed(&[], None).await else { return };
    let ann = user();
    shop.run(vec![build::hold(ann, "here", shop.date, &[1]), build::hold(ann, "there", shop.other_date, &[2])]).await;
    let (here, there) = (SeatKey { date: shop.date, number: 1 }, SeatKey { date: shop.other_date, number: 2 });
    for (dates, expected) in [
        (vec![shop.date], vec![here]),
        (vec![shop.other_date], vec![there]),
        (vec![shop.date, shop.other_date], vec![here, there]),
        (vec![], vec![]),
    ] {
        let found = shop.changed(&dates, Some(first.mark)).await.expect("changes").changes;
        assert!(found.iter().all(|change| dates.contains(&change.key.date)), "{found:?}");
        assert!(expected.iter().all(|key| found.iter().any(|change| change.key == *key)), "{found:?}");
    }
    shop.close().await;
}

pub async fn imported_seats_are_changed_seats(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let Some(first) = shop.changed(&[shop.date], None).await else { return };
    let row = shop.fixture.stores.queries.catalog().await.expect("a catalogue").remove(0);
    let mut plan = build::demo_plan(row.dates[0].booking_opens_at + chrono::TimeDelta::hours(1));
    plan.dates[0].seats = vec![build::seats(5, 5, "VIP", 200_000, None), build::seats(70, 70, "VIP", 200_000, None)];
    shop.fixture.stores.catalog.import(vec![plan], build::admission()).await.expect("an import");
    let found = numbers(&shop.changed(&[shop.date], Some(first.mark)).await.expect("changes").changes);
    assert!(found.contains(&5) && found.contains(&70), "{found:?}");
    shop.close().await;
}

/// A reader that only ever asks from its last mark knows every seat as it is, however the commits came in between.
pub async fn reader_of_changes_misses_no_commit(fixture: Fixture) {
    const USERS: u32 = 40;
    let shop = Shop::open(fixture).await;
    let Some(first) = shop.changed(&[shop.date], None).await else { return };
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (shop, done) = (Arc::clone(&shop), Arc::clone(&done));
        tokio::spawn(async move {
            let (mut mark, mut known) = (first.mark, HashMap::<SeatKey, SeatChange>::new());
            loop {
                // The last round begins when everything was committed.
                let last = done.load(Ordering::SeqCst);
                let found = shop.changed(&[shop.date], Some(mark)).await.expect("changes");
                mark = found.mark;
                for change in found.changes {
                    let newer = known.get(&change.key).is_none_or(|known| known.version < change.version);
                    newer.then(|| known.insert(change.key, change));
                }
                if last {
                    return known;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let mut tasks = JoinSet::new();
    for number in 1..=USERS {
        let shop = Arc::clone(&shop);
        tasks.spawn(async move {
            let ann = user();
            let held = shop.hold(ann, &[number]).await;
            if number % 2 == 0 {
                shop.one(build::release(ann, held.id)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    done.store(true, Ordering::SeqCst);
    let known = reader.await.expect("no panic");
    for row in shop.seats().await.into_iter().filter(|row| row.seat.key.number <= USERS) {
        let found = known.get(&row.seat.key).expect("a change");
        assert_eq!((found.version, found.state), (row.version, row.seat.state), "seat {}", row.seat.key.number);
    }
    shop.close().await;
}
