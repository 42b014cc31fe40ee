//! The waiting room over HTTP: places, turns, rates, pausing and draining.

use std::collections::BTreeSet;

use boxoffice_tests::{Answer, Person, Server, Setup, at_once, concert, eventually, seats};
use reqwest::Method;
use serde_json::{Value, json};

async fn people(server: &Server, count: usize) -> Vec<Person> {
    let mut people = Vec::with_capacity(count);
    for _ in 0..count {
        people.push(server.person().await);
    }
    people
}

/// Changes the admission of a concert as an operator.
pub(crate) async fn admit(server: &Server, concert: &str, change: Value) -> Answer {
    let operator = server.operator().await;
    Answer::to(operator.request(Method::PATCH, &format!("/admin/concerts/{concert}/admission")).json(&change)).await
}

/// `POST /api/v1/concerts/{id}/queue`.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_joins_by_one_user_are_one_place() {
    let server = Server::start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    let user = server.person().await;
    let answers = at_once((0..1_000).map(|_| {
        let (mut user, concert) = (user.clone(), concert.clone());
        async move { user.join(&concert).await }
    }))
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let entries: BTreeSet<_> = answers.iter().map(|answer| answer.text("entry_id")).collect();
    assert_eq!(entries.len(), 1);
    let mut next = server.person().await;
    assert_eq!(next.join(&concert).await.expect(201).number("place"), 2);
}

/// `GET /api/v1/queue`, `DELETE /api/v1/queue`.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_distinct_and_turns_come_in_their_order() {
    let server = Setup::default().with("admission.max_active=10").start().await;
    let (concert, date) = server.one_date(seats(500, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let joined = at_once(people(&server, 300).await.into_iter().map(|mut person| {
        let concert = concert.clone();
        async move { (person.join(&concert).await.expect(201).number("place"), person) }
    }))
    .await;
    let places: BTreeSet<_> = joined.iter().map(|(place, _)| *place).collect();
    assert_eq!((places.len(), places.first(), places.last()), (300, Some(&1), Some(&300)));
    let mut line: Vec<_> = joined.into_iter().collect();
    line.sort_by_key(|(place, _)| *place);
    let mut line: Vec<_> = line.into_iter().map(|(_, person)| person).collect();
    assert_eq!(line[299].status().await.number("ahead"), 299);

    // A waiting user cannot read or hold seats; the refusal has the place and a token.
    let refused = line[299].get(&format!("/dates/{date}/seats")).await.expect_problem(403, "queue_waiting");
    assert_eq!(refused.text("queue/status"), "waiting");
    line[299].hold("h", &date, &[1]).await.expect_problem(403, "queue_waiting");

    // One in the middle leaves: all behind move up by one, and no place changes.
    line[150].delete("/queue").await.expect(204);
    let behind = line[299].status().await;
    assert_eq!((behind.number("ahead"), behind.number("place")), (298, 300));
    admit(&server, &concert, json!({ "mode": "running" })).await.expect(200);
    for person in &mut line[..10] {
        person.await_turn().await;
    }
    for served in 0..20 {
        let stats = server.operator().await.get(&format!("/admin/concerts/{concert}/stats")).await;
        assert!(stats.number("active") <= 10, "{stats:?}");
        assert_eq!(line[served + 10].status().await.text("status"), "waiting");
        line[served].delete("/queue").await.expect(204);
        line[served + 10].await_turn().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_has_come_meanwhile_brings_its_token() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let mut buyer = server.person().await;
    buyer.join(&concert).await.expect(201);
    let waiting = buyer.queue_token.clone();
    admit(&server, &concert, json!({ "mode": "running" })).await.expect(200);
    buyer.await_turn().await;
    buyer.queue_token = waiting;
    let refused = buyer.hold("h", &date, &[1]).await.expect_problem(403, "queue_waiting");
    assert_eq!(refused.text("queue/status"), "active");
    buyer.queue_token = Some(refused.text("queue/token"));
    buyer.hold("h", &date, &[1]).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_turn_begins_before_the_sale_starts() {
    let server = Server::start().await;
    let mut document = concert(&server, "later", &[seats(5, 1_000)]);
    document["sale_starts_at"] = json!(server.time(1_000));
    let (concert, _) = server.put_on_sale(&document).await;
    let (mut first, mut second) = (server.person().await, server.person().await);
    let early = first.join(&concert).await.expect(201);
    assert_eq!((early.text("status"), early.at("place"), early.at("ahead")), ("pre_sale".into(), &Value::Null, &Value::Null));
    assert!(early.at("poll_after_ms").is_i64() && early.at("sale_starts_at").is_string());
    second.join(&concert).await.expect(201);
    assert_eq!(first.status().await.text("status"), "pre_sale");
    server.advance(1_000);
    first.await_turn().await;
    second.await_turn().await;
    let places: BTreeSet<_> = [first.status().await.number("place"), second.status().await.number("place")].into();
    assert_eq!(places, BTreeSet::from([1, 2]), "in the order of the draw");
}

/// `PATCH /api/v1/admin/concerts/{id}/admission`, `GET /api/v1/admin/concerts/{id}/admission`.
#[tokio::test(flavor = "multi_thread")]
async fn draining_refuses_new_entries_and_admits_those_that_wait() {
    let server = Server::start().await;
    let (concert, _) = server.one_date(seats(5, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let (mut inside, mut late) = (server.person().await, server.person().await);
    inside.join(&concert).await.expect(201);
    let drained = admit(&server, &concert, json!({ "mode": "draining", "max_active": 7, "per_interval": { "count": 3, "seconds": 2 } }))
        .await
        .expect(200);
    let state = json!({ "max_active": 7, "rate_per_s": null, "p99_ms": null, "error_share": null });
    let per_interval = json!({ "count": 3, "seconds": 2 });
    let policy = json!({ "mode": "draining", "max_active": 7, "per_interval": per_interval, "adaptive": false, "state": state });
    assert_eq!(drained.body, policy);
    late.join(&concert).await.expect_problem(409, "queue_closed");
    inside.join(&concert).await.expect(200);
    inside.await_turn().await;
    for (wrong, field) in [
        (json!({ "mode": "open" }), "mode"),
        (json!({ "max_active": 0 }), "max_active"),
        (json!({ "max_active": "many" }), "max_active"),
        (json!({ "per_interval": { "count": 0, "seconds": 1 } }), "per_interval.count"),
        (json!({ "adaptive": 1 }), "adaptive"),
        (json!({ "state": {} }), "state"),
    ] {
        let refused = admit(&server, &concert, wrong.clone()).await.expect_problem(400, "invalid_request");
        assert_eq!(refused.text("errors/0/field"), field, "{wrong}");
    }
    let server = server.restart().await;
    let operator = server.operator().await;
    let kept = operator.get(&format!("/admin/concerts/{concert}/admission")).await.expect(200);
    assert_eq!(kept.body, drained.body, "kept over a restart, and not changed by refused requests");
    let found = admit(&server, &concert, json!({ "max_active": "auto", "adaptive": true })).await.expect(200);
    assert_eq!((found.at("max_active"), found.at("adaptive")), (&json!("auto"), &json!(true)));
    assert!(found.number("state/max_active") >= 1, "the number found so far is shown: {found:?}");
    let server = server.restart().await;
    let operator = server.operator().await;
    let kept = operator.get(&format!("/admin/concerts/{concert}/admission")).await.expect(200);
    assert_eq!((kept.at("max_active"), kept.at("adaptive")), (&json!("auto"), &json!(true)), "kept as well");
}

/// Never too many active, and never too fast (I4).
#[tokio::test(flavor = "multi_thread")]
async fn the_rate_and_the_number_of_active_hold_together() {
    let server = Setup::default()
        .with("admission.max_active=25")
        .with("admission.per_interval_count=10")
        .with("admission.per_interval_s=60")
        .start()
        .await;
    let (concert, _) = server.one_date(seats(500, 1_000)).await;
    let mut line = people(&server, 40).await;
    for person in &mut line {
        person.join(&concert).await.expect(201);
    }
    let operator = server.operator().await;
    let stats = async || operator.get(&format!("/admin/concerts/{concert}/stats")).await.expect(200);
    for active in [10, 20, 25] {
        eventually("so many are active", async || (stats().await.number("active") == active).then_some(())).await;
        for _ in 0..5 {
            line[39].status().await;
            assert_eq!(stats().await.number("active"), active);
        }
        server.advance(60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_stops_promotion_and_a_returned_seat_undoes_it() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(2, 1_000)).await;
    let mut owner = server.person().await;
    owner.charge(10_000).await;
    owner.enter(&concert).await;
    let mut waiting = people(&server, 3).await;
    for person in &mut waiting {
        person.join(&concert).await.expect(201);
    }
    waiting[0].await_turn().await;
    assert_eq!(waiting[1].status().await.text("status"), "waiting", "two seats, two turns");
    let held = owner.hold("h", &date, &[1, 2]).await.expect(201).text("id");
    let payment = owner.pay("p", &held).await.expect(201).text("id");
    eventually("sold out", async || (waiting[1].status().await.text("status") == "sold_out").then_some(())).await;
    let sold_out = waiting[2].status().await;
    assert_eq!((sold_out.number("place"), sold_out.number("ahead")), (4, 1), "places stay");
    waiting[0].delete("/queue").await.expect(204);
    owner.post(&format!("/payments/{payment}/refund"), "r", Value::Null).await.expect(200);
    waiting[1].await_turn().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_places_holds_balances_and_tickets() {
    let server = Setup::default().with("admission.max_active=2").start().await;
    let (concert, date) = server.one_date(seats(50, 1_000)).await;
    let mut line = people(&server, 6).await;
    for person in &mut line {
        person.join(&concert).await.expect(201);
    }
    line[0].charge(5_000).await;
    line[0].await_turn().await;
    line[1].await_turn().await;
    let bought = line[0].hold("h", &date, &[1]).await.expect(201).text("id");
    let other = line[0].hold("h2", &date, &[2]).await.expect(201).text("id");
    let paid = line[0].pay("p", &bought).await.expect(201);
    let before = line[5].status().await;
    assert_eq!((before.number("place"), before.number("ahead")), (6, 3));

    let server = server.restart().await;
    let mut line: Vec<_> = line.into_iter().map(|person| person.at(&server.base)).collect();
    let after = line[5].status().await;
    assert_eq!((after.number("place"), after.number("ahead"), after.text("entry_id")), (6, 3, before.text("entry_id")));
    assert_eq!(line[0].status().await.text("status"), "active");
    assert_eq!(line[0].balance().await, 4_000);
    assert_eq!(line[0].get(&format!("/payments/{}", paid.text("id"))).await.expect(200).body, paid.body);
    assert!(line[0].pay("p", &bought).await.expect(201).is_replay(), "tokens and replies survive too");
    line[0].pay("p2", &other).await.expect(201);
    assert_eq!(line[1].join(&concert).await.expect(200).number("place"), 2);
    line[2].await_turn().await;
    server.audit().await;
}
