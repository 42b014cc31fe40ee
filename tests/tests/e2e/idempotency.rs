//! Idempotency keys: where they are required, and when a request with the same key is a replay.

use boxoffice_tests::{Answer, Server, seats};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_write_that_needs_a_key_says_so() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let held = buyer.hold("h", &date, &[1]).await.expect(201).text("id");
    let operator = server.operator().await;
    for (person, path, body) in [
        (&buyer, "/wallet/charges".to_owned(), json!({ "amount": 5 })),
        (&buyer, "/wallet/uses".to_owned(), json!({ "amount": 5 })),
        (&buyer, "/reservations".to_owned(), json!({ "date_id": date, "seats": [2] })),
        (&buyer, format!("/reservations/{held}/extend"), json!(null)),
        (&buyer, "/payments".to_owned(), json!({ "reservation_id": held })),
        (&buyer, format!("/payments/{held}/refund"), json!(null)),
        (&operator, format!("/admin/users/{}/wallet/charges", buyer.id), json!({ "amount": 5 })),
    ] {
        let bare = || person.request(Method::POST, &path).json(&body);
        Answer::to(bare()).await.expect_problem(400, "idempotency_key_required");
        for bad in ["", "\"\"", "a b", "ü", &"x".repeat(256)] {
            let answer = Answer::to(bare().header("Idempotency-Key", bad)).await;
            assert_eq!(answer.status, 400, "{path} with {bad:?}: {answer:?}");
        }
    }
    assert_eq!(buyer.balance().await, 0, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_and_key_order_do_not_matter_but_the_body_does() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let send = async |key: &str, body: &str| {
        let request = buyer.request(Method::POST, "/wallet/uses").header("Idempotency-Key", key).header("Content-Type", "application/json");
        Answer::to(request.body(body.to_owned())).await
    };
    buyer.charge(1_000).await;
    let first = send("k", r#"{"amount":5,"memo":"tea"}"#).await.expect(201);
    for (key, body) in [("\"k\"", r#"{"amount":5,"memo":"tea"}"#), ("k", r#"{ "memo": "tea", "amount": 5 }"#)] {
        let again = send(key, body).await.expect(201);
        assert!(again.is_replay());
        assert_eq!(again.body, first.body);
    }
    send("k", r#"{"amount":5}"#).await.expect_problem(422, "idempotency_key_reused");
    buyer.post("/wallet/charges", "k", json!({ "amount": 5, "memo": "tea" })).await.expect_problem(400, "invalid_request");
    buyer.post("/wallet/charges", "k", json!({ "amount": 5 })).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(buyer.balance().await, 995);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_not_decided_leaves_its_key_free() {
    let server = Server::start().await;
    let buyer = server.person().await;
    buyer.post("/wallet/charges", "k", json!({ "amount": "5" })).await.expect_problem(400, "invalid_request");
    buyer.post("/wallet/charges", "k", json!({ "amount": 0 })).await.expect_problem(400, "invalid_request");
    let first = buyer.post("/wallet/charges", "k", json!({ "amount": 5 })).await.expect(201);
    assert!(!first.is_replay());
    // A refusal that was decided is kept.
    buyer.post("/wallet/uses", "poor", json!({ "amount": 500 })).await.expect_problem(402, "insufficient_balance");
    buyer.charge(10_000).await;
    let again = buyer.post("/wallet/uses", "poor", json!({ "amount": 500 })).await.expect_problem(402, "insufficient_balance");
    assert!(again.is_replay());
    buyer.post("/wallet/charges", "huge", json!({ "amount": 100_000_001 })).await.expect_problem(422, "amount_out_of_range");
    assert!(buyer.post("/wallet/charges", "huge", json!({ "amount": 100_000_001 })).await.is_replay());
}
