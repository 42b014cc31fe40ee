//! Bad input is refused with a clear error and changes nothing.

use boxoffice_tests::{Answer, Server, Setup, seats};
use reqwest::Method;
use serde_json::{Value, json};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_name_the_field_and_the_reason() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(10, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.charge(1_000).await;
    buyer.enter(&concert).await;
    let cases: [(&str, Value, &str); 29] = [
        ("/wallet/charges", json!({}), "amount"),
        ("/wallet/charges", json!({ "amount": null }), "amount"),
        ("/wallet/charges", json!({ "amount": "5" }), "amount"),
        ("/wallet/charges", json!({ "amount": 5.5 }), "amount"),
        ("/wallet/charges", json!({ "amount": 5.0 }), "amount"),
        ("/wallet/charges", json!({ "amount": true }), "amount"),
        ("/wallet/charges", json!({ "amount": 0 }), "amount"),
        ("/wallet/charges", json!({ "amount": -5 }), "amount"),
        ("/wallet/charges", json!({ "amount": 9_223_372_036_854_775_808_u64 }), "amount"),
        ("/wallet/charges", json!({ "amount": 5, "user_id": UNKNOWN }), "user_id"),
        ("/wallet/uses", json!({ "amount": 5, "memo": 7 }), "memo"),
        ("/wallet/uses", json!({ "amount": 5, "note": "x" }), "note"),
        ("/reservations", json!({ "seats": [1] }), "date_id"),
        ("/reservations", json!({ "date_id": "x", "seats": [1] }), "date_id"),
        ("/reservations", json!({ "date_id": date, "seats": [] }), "seats"),
        ("/reservations", json!({ "date_id": date, "seats": [1, 1] }), "seats"),
        ("/reservations", json!({ "date_id": date, "seats": [0] }), "seats"),
        ("/reservations", json!({ "date_id": date, "seats": [-1] }), "seats"),
        ("/reservations", json!({ "date_id": date, "seats": [1.5] }), "seats"),
        ("/reservations", json!({ "date_id": date, "seats": "1" }), "seats"),
        ("/reservations", json!({ "date_id": date, "best": { "count": 0 } }), "best.count"),
        ("/reservations", json!({ "date_id": date, "best": { "count": "2" } }), "best.count"),
        ("/reservations", json!({ "date_id": date, "best": { "count": 1, "colour": "red" } }), "best.colour"),
        ("/payments", json!({}), "reservation_id"),
        ("/payments", json!({ "reservation_id": 5 }), "reservation_id"),
        ("/payments", json!({ "reservation_id": UNKNOWN, "points": 0 }), "points"),
        ("/payments", json!({ "reservation_id": UNKNOWN, "points": -1 }), "points"),
        ("/payments", json!({ "reservation_id": UNKNOWN, "points": 1.5 }), "points"),
        ("/payments", json!({ "reservation_id": UNKNOWN, "amount": 5 }), "amount"),
    ];
    for (path, body, field) in cases {
        let refused = buyer.post(path, "k", body.clone()).await.expect_problem(400, "invalid_request");
        let named = refused.text("errors/0/field");
        assert!(named == field || named.starts_with(&format!("{field}[")), "{path} {body}: {refused:?}");
        assert!(!refused.text("errors/0/reason").is_empty());
    }
    for body in [json!({ "date_id": date }), json!({ "date_id": date, "seats": [1], "best": { "count": 1 } })] {
        buyer.post("/reservations", "k", body).await.expect_problem(400, "invalid_request");
    }
    for body in ["", "{", "[]", "null", "5", "{\"amount\": 5}}", "\u{feff}{\"amount\": 5}", "{\"amount\":5,\"amount\":6}"] {
        let request =
            buyer.request(Method::POST, "/wallet/charges").header("Idempotency-Key", "k").header("Content-Type", "application/json");
        Answer::to(request.body(body)).await.expect_problem(400, "invalid_request");
    }
    assert_eq!(buyer.balance().await, 1_000);
    assert_eq!(buyer.get("/reservations").await.at("items"), &json!([]));
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decided_refusals_have_their_codes() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(10, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    buyer.hold("1", &date, &[99]).await.expect_problem(404, "not_found");
    buyer.hold("2", UNKNOWN, &[1]).await.expect_problem(404, "not_found");
    buyer.hold("3", &date, &[1, 2, 3, 4, 5]).await.expect_problem(422, "seat_limit_exceeded");
    buyer.pay("4", UNKNOWN).await.expect_problem(404, "not_found");
    buyer.post(&format!("/payments/{UNKNOWN}/refund"), "5", Value::Null).await.expect_problem(404, "not_found");
    assert!(buyer.hold("1", &date, &[99]).await.is_replay(), "a decided refusal is stored");
    buyer.post("/wallet/charges", "6", json!({ "amount": i64::MAX })).await.expect_problem(422, "amount_out_of_range");
    buyer.post("/wallet/uses", "7", json!({ "amount": i64::MAX })).await.expect_problem(422, "amount_out_of_range");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_sizes_and_types_are_problems_too() {
    let server = Setup::default().with("http.max_body_bytes=1024").start().await;
    let buyer = server.person().await;
    let (http, base) = (server.http(), &server.base);
    for path in ["/nowhere", "/api/v1/nowhere", "/api/v2/wallet", "/api/v1/reservations/x", "/api/v1/concerts/1", "/api/v1/dates/x/seats"] {
        Answer::to(http.get(format!("{base}{path}")).bearer_auth(&buyer.token)).await.expect_problem(404, "not_found");
    }
    for (absent, method) in [
        ("/queue/streams", Method::GET),
        ("/queue/sockets", Method::GET),
        ("/queue/extends", Method::POST),
        (&format!("/concerts/{UNKNOWN}/draw"), Method::GET),
        (&format!("/commands/{UNKNOWN}"), Method::GET),
    ] {
        Answer::to(buyer.request(method, absent)).await.expect_problem(404, "not_found");
    }
    for (method, path, allow) in [
        (Method::PUT, "/wallet", "GET"),
        (Method::POST, "/wallet", "GET"),
        (Method::GET, "/wallet/charges", "POST"),
        (Method::PATCH, "/queue", "GET"),
        (Method::DELETE, "/concerts", "GET"),
    ] {
        // Path and method come before the bearer.
        let refused = Answer::to(http.request(method, format!("{base}/api/v1{path}"))).await.expect_problem(405, "method_not_allowed");
        assert!(refused.header("allow").unwrap().contains(allow), "{refused:?}");
    }
    let big = json!({ "amount": 5, "memo": "x".repeat(2_000) });
    buyer.post("/wallet/uses", "k", big).await.expect_problem(413, "body_too_large");
    for content_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        let request = buyer.request(Method::POST, "/wallet/charges").header("Idempotency-Key", "k").header("Content-Type", content_type);
        Answer::to(request.body("{\"amount\":5}")).await.expect_problem(415, "unsupported_media_type");
    }
    // The bearer comes before size and type.
    let request = http.post(format!("{base}/api/v1/wallet/charges")).header("Content-Type", "text/plain").body("x".repeat(5_000));
    Answer::to(request).await.expect_problem(401, "unauthenticated");
    for path in ["/wallet?x=1", "/concerts?limit=0", "/concerts?page=1"] {
        buyer.get(path).await.expect_problem(400, "invalid_request");
    }
    assert_eq!(buyer.balance().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_a_second_of_one_user_are_bounded() {
    let server = Setup::default().with("http.requests_per_second_per_user=5").start().await;
    let (greedy, modest) = (server.person().await, server.person().await);
    let mut refused = 0;
    for _ in 0..40 {
        let answer = greedy.get("/wallet").await;
        if answer.status == 429 {
            refused += 1;
            assert!(answer.expect_problem(429, "too_many_requests").header("retry-after").is_some());
        }
    }
    assert!(refused > 0);
    modest.get("/wallet").await.expect(200);
}

/// `GET /health/live`, `GET /health/ready`, `GET /metrics`.
#[tokio::test(flavor = "multi_thread")]
async fn pages_and_health_need_no_token() {
    let server = Server::start().await;
    let get = async |path: &str| Answer::to(server.http().get(format!("{}{path}", server.base))).await;
    get("/health/live").await.expect(200);
    let ready = get("/health/ready").await.expect(200);
    assert_eq!((ready.text("store"), ready.text("strategy/wallet")), ("sqlite".into(), "combining".into()));
    assert!(ready.at("checks").as_array().unwrap().iter().all(|check| check["ok"] == true));
    get("/metrics").await.expect(200);
    assert!(get("/api/openapi.json").await.expect(200).at("paths").as_object().unwrap().len() > 20);
    get("/api/docs/").await.expect(200);
    get("/").await.expect(200);
    let live = get("/health/live").await;
    assert!(live.header("x-request-id").is_some());
}
