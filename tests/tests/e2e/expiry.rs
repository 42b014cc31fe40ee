//! Holds, turns and idempotency keys end at their instant, by a clock that the tests move.

use boxoffice_tests::{Setup, eventually, seats};
use serde_json::json;

/// With sweeps so rare that none happens in a test.
fn unswept() -> Setup {
    Setup::default().with("hold.sweep_ms=60000").with("admission.active_ttl_s=86400")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_at_its_instant_and_not_at_the_sweep() {
    let server = unswept().start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut people = server.people_with_a_turn(2, &concert).await;
    let (mut second, first) = (people.remove(1), people.remove(0));
    first.charge(10_000).await;
    let held = first.hold("h", &date, &[1, 2]).await.expect(201).text("id");
    second.hold("early", &date, &[2]).await.expect_problem(409, "seat_unavailable");
    server.advance(300);
    let map = second.get(&format!("/dates/{date}/seats?status=available")).await.expect(200);
    assert_eq!(map.at("items").as_array().unwrap().len(), 5, "shown free at once");
    first.pay("late", &held).await.expect_problem(409, "hold_expired");
    first.post(&format!("/reservations/{held}/extend"), "later", json!(null)).await.expect_problem(409, "hold_expired");
    let read = first.get(&format!("/reservations/{held}")).await.expect(200);
    assert_eq!((read.text("status"), read.number("expires_in_s")), ("expired".into(), 0));
    second.hold("now", &date, &[2, 3]).await.expect(201);
    first.delete(&format!("/reservations/{held}")).await.expect_problem(409, "hold_expired");
    let map = second.get(&format!("/dates/{date}/seats")).await.expect(200);
    let held = map.at("items").as_array().unwrap().iter().filter(|seat| seat["status"] == "held").count();
    assert_eq!(held, 2);
    second.status().await;
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_frees_the_seats_of_ended_holds() {
    let server = Setup::default().with("hold.sweep_ms=20").start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    buyer.hold("h", &date, &[1, 2]).await.expect(201);
    server.advance(300);
    eventually("the sweep", async || {
        let rows = server.running.stores.queries.seats(date.parse::<uuid::Uuid>().unwrap().into()).await.unwrap();
        rows.iter().all(|row| row.seat.state == boxoffice_domain::SeatState::Available).then_some(())
    })
    .await;
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_ends_at_its_instant_but_a_live_hold_can_be_paid() {
    let server = Setup::default().with("admission.active_ttl_s=60").start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.charge(10_000).await;
    buyer.enter(&concert).await;
    let held = buyer.hold("h", &date, &[1]).await.expect(201).text("id");
    server.advance(60);
    buyer.hold("late", &date, &[2]).await.expect_problem(403, "queue_token_expired");
    buyer.get(&format!("/dates/{date}/seats")).await.expect_problem(403, "queue_token_expired");
    buyer.post(&format!("/reservations/{held}/extend"), "e", json!(null)).await.expect(200);
    buyer.pay("p", &held).await.expect(201);
    assert_eq!(buyer.status().await.text("status"), "expired");
    assert_eq!(buyer.join(&concert).await.expect(201).number("place"), 2);
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_reply_outlives_the_turn() {
    let server = Setup::default().with("admission.active_ttl_s=60").start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let held = buyer.hold("h", &date, &[1]).await.expect(201);
    server.advance(60);
    let replay = buyer.hold("h", &date, &[1]).await.expect(201);
    assert!(replay.is_replay());
    assert_eq!(replay.body, held.body, "expires_in_s included");
    // A different request is no replay: it is refused by the check that comes first, that of the queue token.
    buyer.hold("h", &date, &[2]).await.expect_problem(403, "queue_token_expired");
    buyer.hold("h2", &date, &[2]).await.expect_problem(403, "queue_token_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_runs_anew_even_before_it_is_pruned() {
    let server = Setup::default().with("idempotency.ttl_s=60").start().await;
    let buyer = server.person().await;
    let charge = async |amount: i64| buyer.post("/wallet/charges", "k", json!({ "amount": amount })).await;
    let first = charge(100).await.expect(201);
    server.advance(59);
    assert_eq!(charge(100).await.expect(201).body, first.body);
    charge(200).await.expect_problem(422, "idempotency_key_reused");
    server.advance(1);
    let anew = charge(100).await.expect(201);
    assert!(!anew.is_replay());
    assert_ne!(anew.text("id"), first.text("id"));
    assert!(charge(100).await.expect(201).is_replay());
    assert_eq!(buyer.balance().await, 200);
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn booking_and_refunds_have_their_hours() {
    let server = unswept().start().await;
    let mut document = boxoffice_tests::concert(&server, "hours", &[seats(5, 1_000)]);
    document["dates"][0]["booking_opens_at"] = json!(server.time(100));
    document["dates"][0]["booking_closes_at"] = json!(server.time(200));
    document["dates"][0]["refund_closes_at"] = json!(server.time(300));
    let (concert, dates) = server.put_on_sale(&document).await;
    let mut buyer = server.person().await;
    buyer.charge(10_000).await;
    buyer.enter(&concert).await;
    buyer.hold("before", &dates[0], &[1]).await.expect_problem(422, "booking_closed");
    server.advance(101);
    let held = buyer.hold("open", &dates[0], &[1]).await.expect(201).text("id");
    server.advance(100);
    buyer.hold("after", &dates[0], &[2]).await.expect_problem(422, "booking_closed");
    assert!(buyer.get(&format!("/concerts/{concert}/dates")).await.expect(200).at("items").as_array().unwrap().is_empty());
    let payment = buyer.pay("p", &held).await.expect(201).text("id");
    server.advance(100);
    buyer.post(&format!("/payments/{payment}/refund"), "r", json!(null)).await.expect_problem(422, "refund_closed");
    server.audit().await;
}
