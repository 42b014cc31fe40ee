//! Every check of the audit, on rows broken in ways that the schema allows.

use super::contract::fixture;
use super::support::Place;
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::contract::build::{pay, refund, user};
use boxoffice_ports::contract::shop::{Shop, is_done};
use std::sync::Arc;

const LIMIT: u32 = 4;

/// One user has bought seat 1, has paid seat 4 partly with points and got a refund, and holds seat 2.
async fn furnished() -> (Place, Arc<Shop>) {
    let place = Place::new();
    let store = place.open().await;
    let clock = place.clock.clone();
    let advance = Arc::new(move |by| clock.advance(by));
    let fixture = Fixture { stores: store.stores(), advance, keep: Box::new(()) };
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.buy(ann, &[1]).await;
    let second = shop.hold(ann, &[4]).await;
    shop.charge(ann, second.total()).await;
    let paid = pay(ann, "p", second.id, 100);
    let payment = paid.fresh.subject.into();
    assert!(is_done(&shop.one(paid).await));
    assert!(is_done(&shop.one(refund(ann, "r", payment)).await));
    shop.hold(ann, &[2]).await;
    shop.close().await;
    (place, shop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_each_kind_of_harm() {
    const HARM: [(&str, &str, &str); 25] = [
        ("UPDATE seats SET reservation_id = gen_random_uuid() WHERE number = 1 AND state = 'sold'", "I1", "which is missing"),
        ("UPDATE seats SET state = 'held', held_until = now() WHERE state = 'sold'", "I1", "which is confirmed"),
        ("UPDATE seats SET held_until = held_until + interval '1 second' WHERE state = 'held'", "I1", "which is held"),
        (
            "UPDATE seats SET state = 'sold', reservation_id = (SELECT reservation_id FROM seats WHERE state = 'sold') WHERE number = 3
             AND date_id = (SELECT date_id FROM seats WHERE state = 'sold')",
            "I1",
            "seat 3 of date",
        ),
        ("UPDATE seats SET state = 'available', reservation_id = NULL WHERE state = 'sold'", "I1", "is named by 0"),
        ("UPDATE seats SET state = 'available', reservation_id = NULL, held_until = NULL WHERE state = 'held'", "I1", "is named by 0"),
        ("UPDATE reservations SET seats = '{1, 9}' WHERE status = 'confirmed'", "I1", "lists seats {1,9}"),
        ("DELETE FROM payments WHERE refunded_at IS NULL", "I1", "has no payment"),
        ("UPDATE reservations SET status = 'confirmed' WHERE status = 'cancelled'", "I1", ", refunded"),
        ("UPDATE reservations SET status = 'released', payment_id = NULL WHERE status = 'confirmed'", "I1", ", paid"),
        ("UPDATE payments SET concert_id = gen_random_uuid()", "I1", "of another user or concert"),
        ("UPDATE accounts SET balance = balance + 1", "I2", "holds"),
        ("UPDATE accounts SET entries = entries + 1", "I2", "holds"),
        ("UPDATE entries SET before = before + 1, balance = balance + 1 WHERE seq = 2", "I2", "entry 2"),
        ("DELETE FROM accounts", "I2", "has no account"),
        ("UPDATE entries SET payment_id = gen_random_uuid() WHERE kind = 'payment'", "I2", "which is not theirs"),
        ("UPDATE entries SET id = gen_random_uuid() WHERE seq = 1", "I3", "says entered, which did not happen"),
        ("UPDATE entries SET id = (SELECT id FROM entries WHERE seq = 1)", "I3", "share the id"),
        ("DELETE FROM reservations WHERE status = 'held'", "I3", "says held, which did not happen"),
        (
            "INSERT INTO replies SELECT gen_random_uuid(), command_id, fingerprint, body, decided_at, expires_at FROM replies",
            "I3",
            "2 replies claim",
        ),
        ("UPDATE dates SET seats_total = seats_total + 1", "I6", "of 51 seats has 50"),
        ("DELETE FROM dates", "I6", "is missing"),
        ("UPDATE accounts SET points = points + 1", "I9", "points after"),
        ("UPDATE points_entries SET payment_id = gen_random_uuid() WHERE kind = 'grant'", "I9", "which is not theirs"),
        ("UPDATE payments SET points_spent = points_spent + 1", "I11", "is for seats of"),
    ];
    for (harm, invariant, text) in HARM {
        let (place, shop) = furnished().await;
        place.run(harm).await;
        let report = shop.fixture.stores.audit.audit(LIMIT).await.expect("an audit");
        let found = report.breaches.iter().any(|breach| breach.invariant == invariant && breach.detail.contains(text));
        assert!(found, "{harm}: {:#?}", report.breaches);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_points_that_do_not_add_up_and_too_many_seats() {
    let (place, shop) = furnished().await;
    place.run("UPDATE points_entries SET before = before + 1, balance = balance + 1 WHERE seq = 2").await;
    let report = shop.fixture.stores.audit.audit(1).await.expect("an audit");
    let reports =
        |invariant, text: &str| report.breaches.iter().any(|breach| breach.invariant == invariant && breach.detail.contains(text));
    assert!(reports("I9", "points entry 2 of user"), "{:#?}", report.breaches);
    assert!(reports("I10", "has 2 seats of date"), "one sold and one held: {:#?}", report.breaches);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_bounds_its_breaches_and_counts_overdue_holds() {
    let shop = Shop::open(fixture().await).await;
    for number in 1..=25 {
        shop.hold(user(), &[number]).await;
    }
    shop.advance_past_holds();
    let report = shop.fixture.stores.audit.audit(LIMIT).await.expect("an audit");
    assert!(report.breaches.is_empty(), "an expired hold that is not swept yet is no breach: {:#?}", report.breaches);
    assert_eq!(report.overdue_holds, 25);
    let names: Vec<_> = report.counted.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["accounts", "entries", "seats", "reservations", "payments", "replies"]);
    let counts: Vec<_> = report.counted.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [25, 0, 100, 25, 0, 25]);
}
