//! The main path of a buyer, from the waiting room to the refund, and the catalogue.

use boxoffice_tests::{Server, concert, eventually, seats};
use serde_json::json;

/// `POST /api/v1/dev/users`, `GET /api/v1/queue`, `GET /api/v1/concerts/{id}/dates`, `GET /api/v1/dates/{id}/seats`,
/// `POST /api/v1/reservations`, `POST /api/v1/reservations/{id}/extend`, `POST /api/v1/payments`,
/// `POST /api/v1/payments/{id}/refund`, `GET /api/v1/wallet`, `GET /api/v1/admin/tickets/{code}`.
#[tokio::test(flavor = "multi_thread")]
async fn a_concert_is_booked_paid_and_refunded() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(50, 10_000)).await;
    let mut buyer = server.person().await;

    let queued = buyer.join(&concert).await.expect(201);
    assert_eq!((queued.number("place"), queued.at("draw").is_null(), queued.at("chance").is_null()), (1, true, true));
    buyer.await_turn().await;
    let active = buyer.status().await;
    assert_eq!((active.number("ahead"), active.at("active_until").is_string()), (0, true));

    let dates = buyer.get(&format!("/concerts/{concert}/dates")).await.expect(200);
    assert_eq!((dates.text("items/0/id"), dates.number("items/0/total"), dates.number("items/0/available")), (date.clone(), 50, 50));
    let map = buyer.get(&format!("/dates/{date}/seats")).await.expect(200);
    assert_eq!(map.at("items").as_array().unwrap().len(), 50);
    assert_eq!((map.text("items/11/status"), map.number("items/11/number")), ("available".into(), 12));

    let held = buyer.hold("hold", &date, &[12, 13]).await.expect(201);
    let reservation = held.text("id");
    assert_eq!(held.header("location"), Some(format!("/api/v1/reservations/{reservation}").as_str()));
    assert_eq!((held.text("status"), held.number("total"), held.number("expires_in_s")), ("held".into(), 20_000, 300));
    assert_eq!(
        (held.text("concert/name"), held.number("seats/1/number"), held.number("extensions_left")),
        ("Moonlight Tour".into(), 13, 1)
    );
    let map = buyer.get(&format!("/dates/{date}/seats?status=available")).await.expect(200);
    assert_eq!(map.at("items").as_array().unwrap().len(), 48, "own holds show at once");

    buyer.pay("too-early", &reservation).await.expect_problem(402, "insufficient_balance");
    buyer.charge(50_000).await;
    let extended = buyer.post(&format!("/reservations/{reservation}/extend"), "extend", json!(null)).await.expect(200);
    assert_eq!(extended.number("extensions_left"), 0);
    buyer.post(&format!("/reservations/{reservation}/extend"), "again", json!(null)).await.expect_problem(422, "extension_limit_exceeded");

    let paid = buyer.pay("pay", &reservation).await.expect(201);
    let payment = paid.text("id");
    assert_eq!((paid.number("amount"), paid.number("points_granted"), paid.at("refund").is_null()), (20_000, 1_000, true));
    let tickets = paid.at("tickets").as_array().unwrap();
    assert_eq!((tickets.len(), &tickets[0]["seat"], tickets[0]["code"] != tickets[1]["code"]), (2, &json!(12), true));
    assert_eq!(buyer.get(&format!("/payments/{payment}")).await.expect(200).body, paid.body);
    let operator = server.operator().await;
    let ticket = |at: usize| format!("/admin/tickets/{}", tickets[at]["code"].as_str().unwrap());
    let checked = operator.get(&ticket(1)).await.expect(200);
    assert_eq!((checked.number("seat/number"), checked.text("status"), checked.text("date/id")), (13, "confirmed".into(), date.clone()));
    assert_eq!((checked.text("payment_id"), checked.text("reservation_id")), (payment.clone(), reservation.clone()));
    assert_eq!(operator.get(&ticket(1).to_lowercase()).await.expect(200).body, checked.body);
    buyer.get(&ticket(1)).await.expect_problem(403, "forbidden");
    for wrong in ["0", "000000000000000000000000", "T0W4APTCWGGQ12CE", "%00"] {
        operator.get(&format!("/admin/tickets/{wrong}")).await.expect_problem(404, "not_found");
    }
    let confirmed = buyer.get(&format!("/reservations/{reservation}")).await.expect(200);
    assert_eq!((confirmed.text("status"), confirmed.text("payment_id")), ("confirmed".into(), payment.clone()));
    assert_eq!(buyer.balance().await, 30_000);
    let rewards = buyer.get("/rewards").await.expect(200);
    assert_eq!((rewards.number("points"), rewards.text("items/0/kind")), (1_000, "grant".into()));
    eventually("the payment ends the turn", async || (buyer.status().await.text("status") == "done").then_some(())).await;
    buyer.hold("after-the-turn", &date, &[1]).await.expect_problem(403, "queue_token_expired");

    let refunded = buyer.post(&format!("/payments/{payment}/refund"), "refund", json!(null)).await.expect(200);
    assert_eq!(
        (refunded.text("status"), refunded.number("refund/amount"), refunded.number("refund/points_taken_back")),
        ("refunded".into(), 20_000, 1_000)
    );
    assert_eq!(operator.get(&ticket(0)).await.expect(200).text("status"), "cancelled", "a refunded ticket is invalid");
    buyer.post(&format!("/payments/{payment}/refund"), "twice", json!(null)).await.expect_problem(409, "already_refunded");
    assert_eq!(buyer.balance().await, 50_000);
    assert_eq!(buyer.get("/rewards").await.number("points"), 0);
    let kinds: Vec<_> =
        buyer.get("/wallet/entries").await.at("items").as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds, ["refund", "payment", "charge"]);

    buyer.enter(&concert).await;
    let map = buyer.get(&format!("/dates/{date}/seats?status=available")).await.expect(200);
    assert_eq!(map.at("items").as_array().unwrap().len(), 50, "refunded seats are free again");
    server.audit().await;
}

/// `GET /api/v1/rewards`. The points add up (I9), and the amount is the price as held minus the points (I11).
#[tokio::test(flavor = "multi_thread")]
async fn points_pay_and_are_restored() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(50, 10_000)).await;
    let mut buyer = server.person().await;
    buyer.charge(100_000).await;
    buyer.enter(&concert).await;
    let first = buyer.hold("1", &date, &[1, 2]).await.expect(201).text("id");
    let second = buyer.hold("2", &date, &[3]).await.expect(201).text("id");
    buyer.pay("p1", &first).await.expect(201);
    assert_eq!(buyer.status().await.text("status"), "active", "another live hold keeps the turn");
    let pay = async |key: &str, points: i64| buyer.post("/payments", key, json!({ "reservation_id": second, "points": points })).await;
    pay("p2", 10_001).await.expect_problem(422, "amount_out_of_range");
    pay("p3", 1_001).await.expect_problem(422, "insufficient_points");
    let paid = pay("p4", 900).await.expect(201);
    assert_eq!((paid.number("amount"), paid.number("points_spent"), paid.number("points_granted")), (9_100, 900, 455));
    assert_eq!(buyer.get("/rewards").await.number("points"), 1_000 - 900 + 455);
    let refunded = buyer.post(&format!("/payments/{}/refund", paid.text("id")), "r", json!(null)).await.expect(200);
    assert_eq!(
        (refunded.number("refund/amount"), refunded.number("refund/points_restored"), refunded.number("refund/shortfall")),
        (9_100, 900, 0)
    );
    assert_eq!((buyer.get("/rewards").await.number("points"), buyer.balance().await), (1_000, 80_000));
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn best_seats_are_the_dearest_and_adjacent() {
    let server = Server::start().await;
    let hall = json!([
        { "from": 1, "to": 4, "grade": "S", "price": 5_000, "section": "B", "row": "1" },
        { "from": 5, "to": 8, "grade": "VIP", "price": 20_000, "section": "A", "row": "1" },
    ]);
    let (concert, date) = server.one_date(hall).await;
    let people = server.people_with_a_turn(4, &concert).await;
    let numbers = |answer: &boxoffice_tests::Answer| -> Vec<i64> {
        answer.at("seats").as_array().unwrap().iter().map(|seat| seat["number"].as_i64().unwrap()).collect()
    };
    let best = async |person: usize, best: serde_json::Value| {
        people[person].post("/reservations", &best.to_string().replace(' ', ""), json!({ "date_id": date, "best": best })).await
    };
    assert_eq!(numbers(&best(0, json!({ "count": 3 })).await.expect(201)), [5, 6, 7]);
    assert_eq!(numbers(&best(1, json!({ "count": 2 })).await.expect(201)), [1, 2], "8 has no free neighbour");
    assert_eq!(numbers(&best(2, json!({ "count": 2, "adjacent": false })).await.expect(201)), [3, 8]);
    let none = best(3, json!({ "count": 2 })).await.expect_problem(409, "seat_unavailable");
    assert_eq!(none.at("seats"), &json!([]));
    best(3, json!({ "count": 1, "grade": "VIP" })).await.expect_problem(409, "seat_unavailable");
    best(3, json!({ "count": 5 })).await.expect_problem(422, "seat_limit_exceeded");
    best(3, json!({ "count": 0 })).await.expect_problem(400, "invalid_request");
    assert_eq!(numbers(&best(3, json!({ "count": 1, "grade": "S" })).await.expect(201)), [4]);
    server.audit().await;
}

/// `DELETE /api/v1/reservations/{id}`, `DELETE /api/v1/queue`.
#[tokio::test(flavor = "multi_thread")]
async fn releasing_keeps_the_turn_and_leaving_gives_everything_back() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 10_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let first = buyer.hold("1", &date, &[1]).await.expect(201).text("id");
    buyer.delete(&format!("/reservations/{first}")).await.expect(204);
    buyer.delete(&format!("/reservations/{first}")).await.expect(204);
    buyer.pay("p", &first).await.expect_problem(409, "hold_released");
    buyer.hold("2", &date, &[1, 2]).await.expect(201);
    buyer.delete("/queue").await.expect(204);
    buyer.delete("/queue").await.expect(204);
    assert_eq!(buyer.status().await.text("status"), "left");
    assert_eq!(buyer.get("/reservations").await.text("items/0/status"), "released");
    buyer.hold("3", &date, &[1]).await.expect_problem(403, "queue_token_expired");
    let again = buyer.join(&concert).await.expect(201);
    assert_eq!(again.number("place"), 2, "at the end");
    server.audit().await;
}

/// `GET /api/v1/wallet/entries`, `GET /api/v1/reservations`, `GET /api/v1/payments`, `GET /api/v1/rewards`.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_newest_first() {
    let server = Server::start().await;
    let buyer = server.person().await;
    for amount in 1..=7 {
        buyer.charge(amount).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = buyer.get(&format!("/wallet/entries?limit=3{cursor}")).await.expect(200);
        seen.extend(page.at("items").as_array().unwrap().iter().map(|entry| entry["amount"].as_i64().unwrap()));
        match page.at("next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    for bad in ["limit=0", "limit=201", "limit=x", "cursor=%21", "cursor=AAAA", "page=2"] {
        for list in ["/wallet/entries", "/rewards", "/reservations", "/payments"] {
            buyer.get(&format!("{list}?{bad}")).await.expect_problem(400, "invalid_request");
        }
    }
}

/// `GET /api/v1/concerts/{id}`, `POST /api/v1/admin/concerts`.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_public_and_an_import_is_idempotent() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let document = concert(&server, "k", &[seats(50, 10_000), seats(20, 5_000)]);
    let post = async |document: &serde_json::Value| {
        boxoffice_tests::Answer::to(operator.request(reqwest::Method::POST, "/admin/concerts").json(document)).await
    };
    let made = post(&document).await.expect(201);
    assert_eq!((made.number("dates/0/total"), made.number("dates/1/total")), (50, 20));
    assert_eq!(post(&document).await.expect(200).body, made.body);
    let id = made.text("id");
    let public = eventually("it shows", async || {
        let answer = boxoffice_tests::Answer::to(server.http().get(format!("{}/api/v1/concerts/{id}", server.base))).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!((public.number("dates/0/price_min"), public.text("time_zone")), (10_000, "Asia/Seoul".into()));
    assert!(public.body["dates"][0].get("available").is_none(), "availability is shown in a turn only");

    let mut dearer = document.clone();
    dearer["dates"][0]["seats"][0]["price"] = json!(11_000);
    dearer["name"] = json!("Moonlight Tour, extended");
    post(&dearer).await.expect(200);
    let mut buyer = server.person().await;
    buyer.enter(&id).await;
    let date = made.text("dates/0/id");
    eventually("the new price shows", async || {
        (buyer.get(&format!("/dates/{date}/seats")).await.number("items/0/price") == 11_000).then_some(())
    })
    .await;
    buyer.hold("h", &date, &[7]).await.expect(201);
    let conflict = post(&document).await.expect_problem(409, "catalog_conflict");
    assert!(conflict.text("errors/0/field").starts_with("dates[0].seats[0]"), "{conflict:?}");
    let mut wrong = document.clone();
    wrong["dates"][1]["seats"][0]["price"] = json!(0);
    assert_eq!(post(&wrong).await.expect_problem(400, "invalid_request").text("errors/0/field"), "dates[1].seats[0].price");
    server.person().await.post("/admin/concerts", "k", document).await.expect_problem(403, "forbidden");
    server.audit().await;
}

/// `GET /api/v1/admin/concerts/{id}/stats`, `POST /api/v1/admin/users/{id}/wallet/charges`.
#[tokio::test(flavor = "multi_thread")]
async fn operators_charge_wallets_and_read_stats() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(10, 10_000)).await;
    let (operator, mut buyer) = (server.operator().await, server.person().await);
    let charge = format!("/admin/users/{}/wallet/charges", buyer.id);
    let entry = operator.post(&charge, "k", json!({ "amount": 30_000 })).await.expect(201);
    assert_eq!(operator.post(&charge, "k", json!({ "amount": 30_000 })).await.expect(201).body, entry.body);
    buyer.post(&charge, "k", json!({ "amount": 1 })).await.expect_problem(403, "forbidden");
    assert_eq!(buyer.balance().await, 30_000);
    buyer.enter(&concert).await;
    let reservation = buyer.hold("h", &date, &[1, 2]).await.expect(201).text("id");
    buyer.hold("h2", &date, &[3]).await.expect(201);
    buyer.pay("p", &reservation).await.expect(201);
    let stats = operator.get(&format!("/admin/concerts/{concert}/stats")).await.expect(200);
    let numbers = ["total", "available", "held", "sold", "revenue", "active"].map(|name| stats.number(name));
    assert_eq!(numbers, [10, 7, 1, 2, 20_000, 1]);
    buyer.get(&format!("/admin/concerts/{concert}/stats")).await.expect_problem(403, "forbidden");
}

/// `GET /api/v1/dates/{id}/seats`.
#[tokio::test(flavor = "multi_thread")]
async fn seats_have_an_etag_and_gzip() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(20_000, 10_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let path = format!("/dates/{date}/seats");
    let map = buyer.get(&path).await.expect(200);
    assert_eq!(map.at("items").as_array().unwrap().len(), 20_000);
    let etag = map.header("etag").unwrap().to_owned();
    let ask = async || boxoffice_tests::Answer::to(buyer.request(reqwest::Method::GET, &path).header("If-None-Match", &etag)).await;
    assert_eq!(ask().await.expect(304).header("etag"), Some(etag.as_str()));
    buyer.hold("h", &date, &[20_000]).await.expect(201);
    let changed = ask().await.expect(200);
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    assert_eq!(changed.text("items/19999/status"), "held");
    // A client that does not unpack the answer sees the encoding.
    let plain = boxoffice_tests::client().no_gzip().build().unwrap();
    let request = plain
        .get(format!("{}/api/v1{path}", server.base))
        .bearer_auth(&buyer.token)
        .header("Queue-Token", buyer.queue_token.as_ref().unwrap());
    let response = request.header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert!(response.bytes().await.unwrap().len() < 300_000);
}
