//! Records show all their members at every state: an absent value is null, never left out.

use std::collections::BTreeSet;

use boxoffice_tests::{Answer, Server, Setup, concert, eventually, seats};
use reqwest::Method;
use serde_json::{Value, json};

/// Checks the members of the object under `path`, separated by spaces.
#[track_caller]
fn has(answer: &Answer, path: &str, members: &str) {
    let value = if path.is_empty() { &answer.body } else { answer.at(path) };
    let found: BTreeSet<_> =
        value.as_object().unwrap_or_else(|| panic!("{path} is no object in {answer:?}")).keys().map(String::as_str).collect();
    assert_eq!(found, members.split(' ').collect(), "{path} in {answer:?}");
}

const RESERVATION: &str = "id status concert date seats total currency created_at expires_at expires_in_s extensions_left payment_id";
const PAYMENT: &str = "id reservation_id status concert date seats amount currency points_spent points_granted tickets paid_at refund";
const ENTRY: &str = "id kind amount balance memo reservation_id payment_id created_at";
const QUEUE: &str = "concert_id entry_id token status place ahead eta chance poll_after_ms active_until sale_starts_at draw";

#[tokio::test(flavor = "multi_thread")]
async fn records_show_every_member() {
    let server = Server::start().await;
    let (concert_id, date) = server.one_date(seats(10, 10_000)).await;
    let mut buyer = server.person().await;
    let shown = buyer.get(&format!("/concerts/{concert_id}")).await.expect(200);
    has(&shown, "", "id name venue time_zone sale_starts_at queue dates");
    has(&shown, "queue", "status waiting");
    has(&shown, "dates/0", "id starts_at ends_at price_min price_max");
    let joined = buyer.join(&concert_id).await.expect(201);
    assert_eq!(joined.header("location"), Some("/api/v1/queue"));
    buyer.await_turn().await;
    let dates = buyer.get(&format!("/concerts/{concert_id}/dates")).await.expect(200);
    has(&dates, "", "items");
    has(&dates, "items/0", "id starts_at ends_at booking_opens_at booking_closes_at refund_closes_at total available");
    let map = buyer.get(&format!("/dates/{date}/seats")).await.expect(200);
    has(&map, "", "version items");
    has(&map, "items/0", "number section row grade price status");

    let charged = buyer.post("/wallet/charges", "c", json!({ "amount": 50_000 })).await.expect(201);
    has(&charged, "", ENTRY);
    assert_eq!(charged.header("content-type"), Some("application/json"));
    let held = buyer.hold("h", &date, &[1, 2]).await.expect(201);
    has(&held, "", RESERVATION);
    has(&held, "concert", "id name venue");
    has(&held, "date", "id starts_at ends_at");
    has(&held, "seats/0", "number section row grade price");
    let paid = buyer.pay("p", &held.text("id")).await.expect(201);
    has(&paid, "", PAYMENT);
    has(&paid, "tickets/0", "seat code");
    assert_eq!(paid.header("location"), Some(format!("/api/v1/payments/{}", paid.text("id")).as_str()));
    let refunded = buyer.post(&format!("/payments/{}/refund", paid.text("id")), "r", Value::Null).await.expect(200);
    has(&refunded, "", PAYMENT);
    has(&refunded, "refund", "amount points_restored points_taken_back shortfall refunded_at");
    has(&buyer.get(&format!("/reservations/{}", held.text("id"))).await, "", RESERVATION);
    has(&buyer.get("/wallet").await, "", "balance currency");
    let entries = buyer.get("/wallet/entries").await.expect(200);
    has(&entries, "", "items next_cursor");
    for (at, (kind, amount)) in [("refund", 20_000), ("payment", -20_000), ("charge", 50_000)].into_iter().enumerate() {
        has(&entries, &format!("items/{at}"), ENTRY);
        assert_eq!((entries.text(&format!("items/{at}/kind")), entries.number(&format!("items/{at}/amount"))), (kind.into(), amount));
    }
    assert_eq!(entries.text("items/1/payment_id"), paid.text("id"));
    assert_eq!(entries.text("items/1/reservation_id"), held.text("id"));
    has(&buyer.get("/rewards").await.expect(200), "", "points items next_cursor");

    let operator = server.operator().await;
    let stats = operator.get(&format!("/admin/concerts/{concert_id}/stats")).await.expect(200);
    has(&stats, "", "waiting active served left expired admitted_per_s total available held sold revenue eta_calibration");
    assert_eq!((stats.number("served"), stats.number("revenue"), stats.number("available")), (1, 0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_object_has_all_members_at_every_status() {
    let server = Setup::default().with("admission.max_active=1").start().await;
    let mut document = concert(&server, "later", &[seats(5, 1_000)]);
    document["sale_starts_at"] = json!(server.time(1_000));
    let (id, _) = server.put_on_sale(&document).await;
    let (mut first, mut second) = (server.person().await, server.person().await);
    let nulls = |answer: &Answer, members: &[&str]| {
        has(answer, "", QUEUE);
        for member in ["place", "ahead", "poll_after_ms", "active_until", "chance", "draw"] {
            assert_eq!(answer.at(member).is_null(), members.contains(&member), "{member} in {answer:?}");
        }
    };
    let pre_sale = first.join(&id).await.expect(201);
    assert_eq!(pre_sale.text("status"), "pre_sale");
    nulls(&pre_sale, &["place", "ahead", "active_until", "chance"]);
    assert!(pre_sale.at("draw/seed").is_null() && pre_sale.text("draw/commitment").len() == 64, "{pre_sale:?}");
    // The second one joins after the draw: before it, the draw might place it first.
    server.advance(1_000);
    first.await_turn().await;
    second.join(&id).await.expect(201);
    let active = first.status().await;
    nulls(&active, &["chance"]);
    assert_eq!(active.text("draw/seed").len(), 64, "revealed");
    assert_eq!((active.number("place"), active.number("ahead")), (1, 0));
    let waiting = second.status().await;
    assert_eq!((waiting.text("status"), waiting.number("place"), waiting.number("ahead")), ("waiting".into(), 2, 0));
    nulls(&waiting, &["active_until", "chance"]);
    first.delete("/queue").await.expect(204);
    let left = first.status().await;
    assert_eq!(left.text("status"), "left");
    let ended = ["place", "ahead", "poll_after_ms", "active_until", "chance"];
    nulls(&left, &ended);
    second.await_turn().await;
    server.advance(600);
    let expired = second.status().await;
    assert_eq!(expired.text("status"), "expired");
    nulls(&expired, &ended);
    assert_eq!(second.join(&id).await.expect(201).number("place"), 3, "a new entry at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_turn_a_buyer_may_still_pay_extend_and_leave() {
    let server = Setup::default().with("admission.active_ttl_s=60").start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.charge(10_000).await;
    buyer.enter(&concert).await;
    let paid_later = buyer.hold("1", &date, &[1]).await.expect(201).text("id");
    let left_behind = buyer.hold("2", &date, &[2]).await.expect(201).text("id");
    server.advance(61);
    let expired = async |path: &str| buyer.get(path).await.expect_problem(403, "queue_token_expired");
    expired(&format!("/concerts/{concert}/dates")).await;
    expired(&format!("/dates/{date}/seats")).await;
    buyer.hold("3", &date, &[3]).await.expect_problem(403, "queue_token_expired");
    buyer.post(&format!("/reservations/{left_behind}/extend"), "e", Value::Null).await.expect(200);
    buyer.pay("p", &paid_later).await.expect(201);
    buyer.delete("/queue").await.expect(204);
    assert_eq!(buyer.get(&format!("/reservations/{left_behind}")).await.text("status"), "released");
    assert_eq!(buyer.get(&format!("/reservations/{paid_later}")).await.text("status"), "confirmed");
    buyer.delete("/queue").await.expect(204);
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_by_the_state_of_the_reservation() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(10, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.charge(10_000).await;
    buyer.enter(&concert).await;
    let hold = async |seat: u32| buyer.hold(&format!("h{seat}"), &date, &[seat]).await.expect(201).text("id");
    let (confirmed, cancelled, released) = (hold(1).await, hold(2).await, hold(3).await);
    hold(4).await;
    buyer.pay("p1", &confirmed).await.expect(201);
    let payment = buyer.pay("p2", &cancelled).await.expect(201).text("id");
    buyer.post(&format!("/payments/{payment}/refund"), "r", Value::Null).await.expect(200);
    buyer.delete(&format!("/reservations/{released}")).await.expect(204);
    for (id, code) in [(&confirmed, "already_paid"), (&cancelled, "already_refunded"), (&released, "hold_released")] {
        buyer.pay(&format!("again-{code}"), id).await.expect_problem(409, code);
        buyer.post(&format!("/reservations/{id}/extend"), &format!("extend-{code}"), Value::Null).await.expect_problem(409, code);
        let release = buyer.delete(&format!("/reservations/{id}")).await;
        if code == "hold_released" {
            release.expect(204);
        } else {
            release.expect_problem(409, code);
        }
    }
    assert_eq!(buyer.balance().await, 9_000);
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_seat_map_is_answered_304() {
    let server = Server::start().await;
    let hall = json!([{ "from": 1, "to": 150, "grade": "R", "price": 2_000 }, { "from": 151, "to": 300, "grade": "S석", "price": 1_000 }]);
    let (concert, date) = server.one_date(hall).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let path = format!("/dates/{date}/seats");
    let etag = buyer.get(&path).await.expect(200).header("etag").unwrap().to_owned();
    let strong = etag.trim_start_matches("W/");
    let ask =
        async |query: &str, tag: &str| Answer::to(buyer.request(Method::GET, &format!("{path}{query}")).header("If-None-Match", tag)).await;
    for query in ["", "?status=available", "?grade=R", "?status=available&grade=S%EC%84%9D"] {
        for tag in [&etag, strong, "*", &format!("\"x\", {etag}"), &format!("W/\"y\",{strong}")] {
            let unchanged = ask(query, tag).await.expect(304);
            assert_eq!(
                (unchanged.header("etag"), unchanged.header("vary")),
                (Some(etag.as_str()), Some("Accept-Encoding")),
                "{query} {tag}"
            );
        }
        for tag in ["", "\"x\"", strong.trim_matches('"')] {
            ask(query, tag).await.expect(200);
        }
    }
    let count = |answer: Answer| answer.expect(200).at("items").as_array().unwrap().len();
    buyer.hold("h", &date, &[1, 2, 151]).await.expect(201);
    for (query, seats) in [
        ("", 300),
        ("?status=available", 297),
        ("?grade=S%EC%84%9D", 150),
        ("?status=available&grade=R", 148),
        ("?grade=", 0),
        ("?grade=X", 0),
    ] {
        assert_eq!(count(ask(query, &etag).await), seats, "{query}");
    }
    let raw = boxoffice_tests::client().no_gzip().build().unwrap();
    for (accept, packed) in [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("gzip;Q=0.0, *", false), ("identity", false)] {
        let request = raw.get(format!("{}/api/v1{path}", server.base)).bearer_auth(&buyer.token);
        let request = request.header("Queue-Token", buyer.queue_token.as_ref().unwrap()).header("Accept-Encoding", accept);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers().get("content-encoding").is_some(), packed, "{accept}");
        assert_eq!(response.headers()["vary"], "Accept-Encoding");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_are_not_found_and_admission_merges() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let document = concert(&server, "k", &[seats(5, 1_000)]);
    let made = Answer::to(operator.request(Method::POST, "/admin/concerts").json(&document)).await.expect(201);
    assert_eq!(made.header("location"), Some(format!("/api/v1/concerts/{}", made.text("id")).as_str()));
    has(&made, "", "id key dates");
    has(&made, "dates/0", "id key starts_at total");
    let unknown = super::UNKNOWN;
    for path in
        [&format!("/admin/concerts/{unknown}/admission"), &format!("/admin/concerts/{unknown}/stats"), &format!("/concerts/{unknown}")]
    {
        operator.get(path).await.expect_problem(404, "not_found");
    }
    let mut joining = operator.clone();
    joining.join(unknown).await.expect_problem(404, "not_found");
    joining.join(&made.text("id")).await.expect(201);
    joining.get(&format!("/concerts/{unknown}/dates")).await.expect_problem(404, "not_found");
    joining.get(&format!("/dates/{unknown}/seats")).await.expect_problem(404, "not_found");
    let path = format!("/admin/concerts/{}/admission", made.text("id"));
    let patch = async |body: Value| Answer::to(operator.request(Method::PATCH, &path).json(&body)).await;
    patch(json!({ "max_active": 7 })).await.expect(200);
    patch(json!({ "per_interval": { "count": 5, "seconds": 2 } })).await.expect(200);
    patch(json!({ "mode": "paused" })).await.expect(200);
    let is_merged = |answer: Answer| {
        let per_interval = json!({ "count": 5, "seconds": 2 });
        let found = ["mode", "max_active", "per_interval", "adaptive"].map(|member| answer.at(member).clone());
        assert_eq!(found, [json!("paused"), json!(7), per_interval, json!(false)], "{answer:?}");
    };
    is_merged(patch(json!({})).await.expect(200));
    is_merged(operator.get(&path).await.expect(200));
    Answer::to(operator.request(Method::PATCH, &format!("/admin/concerts/{unknown}/admission")).json(&json!({})))
        .await
        .expect_problem(404, "not_found");
    assert!(patch(json!({ "per_interval": null })).await.expect(200).at("per_interval").is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_what_the_configuration_names() {
    for (backend, setup) in [("store", Setup::default()), ("memory", Setup::default().with("queue.backend=memory"))] {
        let server = setup.with("strategy.wallet=memory").start().await;
        let ready = Answer::to(server.http().get(format!("{}/health/ready", server.base))).await.expect(200);
        has(&ready, "", "store queue strategy checks");
        assert_eq!((ready.text("store"), ready.text("queue")), ("sqlite".into(), backend.into()));
        assert_eq!(ready.at("strategy"), &json!({ "seat": "combining", "wallet": "memory", "payment": "combining" }));
        assert_eq!(ready.at("checks/0"), &json!({ "name": "store", "ok": true, "detail": null }));
        assert_eq!(ready.at("checks/1"), &json!({ "name": "queue", "ok": true, "detail": null }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_keep_their_bounds() {
    let server = Setup::default().with("money.amount_max=1000").with("money.balance_max=1500").start().await;
    let buyer = server.person().await;
    let change = async |path: &str, amount: i64| buyer.post(path, &format!("{path}{amount}"), json!({ "amount": amount })).await;
    change("/wallet/charges", 1_000).await.expect(201);
    let refused = change("/wallet/charges", 501).await.expect_problem(422, "amount_out_of_range");
    assert_eq!(refused.text("errors/0/field"), "amount");
    change("/wallet/charges", 1_001).await.expect_problem(422, "amount_out_of_range");
    change("/wallet/uses", 1_001).await.expect_problem(422, "amount_out_of_range");
    change("/wallet/charges", 500).await.expect(201);
    change("/wallet/uses", 1_000).await.expect(201);
    change("/wallet/uses", 501).await.expect_problem(402, "insufficient_balance");
    change("/wallet/uses", 500).await.expect(201);
    eventually("the journal adds up", async || (buyer.balance().await == 0).then_some(())).await;
    server.audit().await;
}
