//! Importing what is on sale.

use boxoffice_domain::{Admission, AdmissionMode, PerInterval, SeatState};
use chrono::TimeDelta;

use crate::contract::build::{self, HALL, PRICE_R, PRICE_S};
use crate::contract::shop::Shop;
use crate::contract::{Fixture, build::user};
use crate::{CatalogError, ImportEffect};

pub async fn import_again_changes_nothing(fixture: Fixture) {
    let stores = fixture.stores.clone();
    let plan = build::demo_plan(stores.queries.now().await.expect("now"));
    let created = stores.catalog.import(vec![plan.clone()], build::admission()).await.expect("an import");
    assert_eq!(created[0].effect, ImportEffect::Created);
    assert_eq!(created[0].key, plan.key);
    let totals: Vec<_> = created[0].dates.iter().map(|date| (date.key.as_str(), date.total)).collect();
    assert_eq!(totals, [("day-1", u64::from(HALL)), ("day-2", u64::from(HALL))]);
    let before = stores.queries.catalog().await.expect("a catalogue");
    let version = stores.queries.catalog_version().await.expect("a version");
    assert_eq!(stores.queries.catalog_version().await.expect("a version"), version);

    let again = stores.catalog.import(vec![plan], build::admission()).await.expect("an import");
    assert_eq!(again[0].effect, ImportEffect::Unchanged);
    assert_eq!((again[0].id, &again[0].dates), (created[0].id, &created[0].dates));
    assert_eq!(stores.queries.catalog().await.expect("a catalogue"), before);
}

pub async fn import_updates_what_may_change(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let stores = &shop.fixture.stores;
    let before = stores.queries.catalog().await.expect("a catalogue").remove(0);
    let mut plan = build::demo_plan(before.dates[0].booking_opens_at + TimeDelta::hours(1));
    plan.name = "Sunlight Tour".to_owned();
    plan.sale_starts_at = None;
    plan.admission = Some(Admission { max_active: 7, ..build::admission() });
    // Of the first date only five seats are named, two of them new; the second date is absent, a third one is new.
    plan.dates.truncate(1);
    plan.dates[0].refund_closes_at += TimeDelta::hours(1);
    plan.dates[0].seats = vec![build::seats(1, 3, "VIP", 200_000, Some("B")), build::seats(HALL + 1, HALL + 2, "S", PRICE_S, None)];
    plan.dates.push(build::date_plan(before.dates[0].booking_opens_at, "day-3", 40));

    let version = stores.queries.catalog_version().await.expect("a version");
    let imported = stores.catalog.import(vec![plan.clone()], build::admission()).await.expect("an import").remove(0);
    assert_eq!((imported.effect, imported.id), (ImportEffect::Updated, shop.concert));
    let changed = stores.queries.catalog_version().await.expect("a version");
    assert_ne!(changed, version);
    stores.mirror.set_admission(shop.concert, before.admission, before.admission).await.expect("an admission");
    assert_ne!(stores.queries.catalog_version().await.expect("a version"), changed, "an admission is shown, too");
    assert_eq!(imported.dates.iter().map(|date| date.total).collect::<Vec<_>>(), [u64::from(HALL) + 2, u64::from(HALL)]);
    let after = stores.queries.catalog().await.expect("a catalogue").remove(0);
    assert_eq!((&*after.concert.name, after.sale_starts_at), ("Sunlight Tour", None));
    assert_eq!(after.admission, before.admission, "a plan's admission counts at creation only");
    assert_eq!(after.dates.iter().map(|date| date.key.as_str()).collect::<Vec<_>>(), ["day-1", "day-2", "day-3"]);
    assert_eq!(after.dates[0].date.id, shop.date);
    assert_eq!(after.dates[0].refund_closes_at, plan.dates[0].refund_closes_at);
    assert_eq!((after.dates[0].price_min, after.dates[0].price_max), (PRICE_S, 200_000));
    assert!(after.dates[0].seats_version > before.dates[0].seats_version);
    assert_eq!(after.dates[1], before.dates[1], "a date that is not named stays");

    let seats = shop.seats().await;
    assert_eq!(seats.len() as u32, HALL + 2);
    assert!(seats.is_sorted_by_key(|row| row.seat.key.number));
    assert_eq!((&*seats[0].seat.grade, seats[0].seat.price, seats[0].seat.section.as_deref()), ("VIP", 200_000, Some("B")));
    assert_eq!((&*seats[3].seat.grade, seats[3].seat.price, seats[3].seat.section.as_deref()), ("R", PRICE_R, Some("A")));
    let held = shop.hold(user(), &[1, HALL + 2]).await;
    assert_eq!(held.total(), 200_000 + PRICE_S, "a hold sees the new prices");
    assert_eq!(&*held.concert.name, "Sunlight Tour");
    shop.close().await;
}

pub async fn import_refuses_to_change_held_and_sold_seats(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let catalog = &shop.fixture.stores.catalog;
    let row = shop.fixture.stores.queries.catalog().await.expect("a catalogue").remove(0);
    let plan = build::demo_plan(row.dates[0].booking_opens_at + TimeDelta::hours(1));
    shop.buy(user(), &[4]).await;
    shop.hold(user(), &[8]).await;
    for number in [4, 8] {
        let mut changed = plan.clone();
        changed.dates[0].seats = vec![build::seats(number, number, "R", PRICE_R + 1, Some("A"))];
        match catalog.import(vec![changed], build::admission()).await {
            Err(CatalogError::Conflict { field, seat }) => {
                assert_eq!(seat, number);
                assert!(field.starts_with("dates[0].seats[0]"), "{field}");
            }
            other => panic!("a conflict was expected, and not {other:?}"),
        }
    }
    let same = catalog.import(vec![plan.clone()], build::admission()).await.expect("naming them unchanged is harmless");
    assert_eq!(same[0].effect, ImportEffect::Unchanged);

    shop.advance_past_holds();
    let mut changed = plan;
    changed.dates[0].seats = vec![build::seats(8, 8, "R", PRICE_R + 1, Some("A"))];
    let imported = catalog.import(vec![changed], build::admission()).await.expect("the hold is over");
    assert_eq!(imported[0].effect, ImportEffect::Updated);
    assert_eq!(shop.seat(8).await.seat.price, PRICE_R + 1);
    assert_eq!(shop.hold(user(), &[8]).await.total(), PRICE_R + 1);
    shop.close().await;
}

pub async fn import_that_fails_writes_nothing(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let stores = &shop.fixture.stores;
    shop.hold(user(), &[20]).await;
    let before = (stores.queries.catalog().await.expect("a catalogue"), shop.seats().await);
    let now = shop.now().await;
    let mut other = build::demo_plan(now);
    other.key = "another".to_owned();
    let mut conflicting = build::demo_plan(now);
    conflicting.name = "Renamed".to_owned();
    conflicting.dates[0].seats = vec![build::seats(1, 20, "R", PRICE_R + 1, Some("A")), build::seats(90, 99, "S", PRICE_S, None)];
    conflicting.dates.push(build::date_plan(now, "day-3", 50));
    let failed = stores.catalog.import(vec![other, conflicting], build::admission()).await;
    assert!(matches!(failed, Err(CatalogError::Conflict { seat: 20, .. })), "{failed:?}");
    assert_eq!((stores.queries.catalog().await.expect("a catalogue"), shop.seats().await), before);
    shop.close().await;
}

pub async fn catalog_is_in_order_and_complete(fixture: Fixture) {
    let stores = fixture.stores.clone();
    assert!(stores.queries.catalog().await.expect("an empty catalogue").is_empty());
    let now = stores.queries.now().await.expect("now");
    let rate = Some(PerInterval { count: 2, seconds: 5 });
    let own = Admission { mode: AdmissionMode::Running, max_active: 3, per_interval: rate, auto: true, adaptive: false };
    let adaptive = Admission { adaptive: true, ..build::admission() };
    let plans = [
        ("late", Some(now + TimeDelta::hours(2)), Some(own)),
        ("open", None, None),
        ("early", Some(now + TimeDelta::hours(1)), Some(adaptive)),
    ];
    let plans = plans.map(|(key, sale_starts_at, admission)| {
        let mut plan = build::demo_plan(now);
        plan.dates.reverse();
        boxoffice_domain::ConcertPlan { key: key.to_owned(), sale_starts_at, admission, ..plan }
    });
    let imported = stores.catalog.import(plans.to_vec(), build::admission()).await.expect("an import");
    assert_eq!(imported.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["late", "open", "early"], "in the plans' order");
    assert_eq!(imported[0].dates.iter().map(|date| date.key.as_str()).collect::<Vec<_>>(), ["day-2", "day-1"]);

    let catalog = stores.queries.catalog().await.expect("a catalogue");
    assert_eq!(catalog.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["open", "early", "late"]);
    assert_eq!((catalog[0].admission, catalog[1].admission), (build::admission(), adaptive));
    let late = &catalog[2];
    assert_eq!((late.concert.id, late.admission, late.sale_starts_at), (imported[0].id, own, Some(now + TimeDelta::hours(2))));
    assert_eq!((&*late.concert.name, &*late.concert.venue, late.time_zone.as_str()), ("Moonlight Tour", "Olympic Hall", "Asia/Seoul"));
    let (date, plan) = (&late.dates[0], build::date_plan(now, "day-1", 30));
    assert_eq!((date.key.as_str(), date.total, date.price_min, date.price_max), ("day-1", u64::from(HALL), PRICE_S, PRICE_R));
    assert_eq!((date.date.starts_at, date.date.ends_at), (plan.starts_at, plan.ends_at));
    assert_eq!(
        (date.booking_opens_at, date.booking_closes_at, date.refund_closes_at),
        (plan.booking_opens_at, plan.booking_closes_at, plan.refund_closes_at)
    );
    assert!(late.dates.is_sorted_by_key(|date| date.date.starts_at));
    let seats = stores.queries.seats(date.date.id).await.expect("seats");
    assert_eq!(seats.iter().map(|row| row.seat.key.number).collect::<Vec<_>>(), (1..=HALL).collect::<Vec<_>>());
    assert!(seats.iter().all(|row| row.seat.state == SeatState::Available));
    assert_eq!(seats[0].seat.row.as_deref(), Some("1"));
    assert_eq!((seats[49].seat.section.as_deref(), seats[49].seat.row.as_deref(), &*seats[49].seat.grade), (None, None, "S"));
    assert!(stores.queries.seats(build::fresh()).await.expect("no seats").is_empty());
}
