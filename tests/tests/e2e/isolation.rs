//! Users with each other's tokens, ids and keys, and with forged ones.

use boxoffice_tests::{Answer, Server, concert, seats};
use reqwest::Method;
use serde_json::{Value, json};

/// `GET /api/v1/reservations/{id}`, `GET /api/v1/payments/{id}` and all writes with another user's ids (I8).
#[tokio::test(flavor = "multi_thread")]
async fn another_users_things_are_not_found_and_stay_as_they_are() {
    let server = Server::start().await;
    let (concert_id, date) = server.one_date(seats(50, 1_000)).await;
    let mut people = server.people_with_a_turn(2, &concert_id).await;
    let (thief, mut owner) = (people.remove(1), people.remove(0));
    owner.charge(10_000).await;
    thief.charge(9_999).await;
    let paid_hold = owner.hold("h1", &date, &[1]).await.expect(201).text("id");
    let held = owner.hold("h2", &date, &[2]).await.expect(201).text("id");
    let payment = owner.pay("p", &paid_hold).await.expect(201).text("id");

    thief.get(&format!("/reservations/{held}")).await.expect_problem(404, "not_found");
    thief.get(&format!("/payments/{payment}")).await.expect_problem(404, "not_found");
    thief.delete(&format!("/reservations/{held}")).await.expect_problem(404, "not_found");
    thief.pay("p", &held).await.expect_problem(404, "not_found");
    thief.post(&format!("/reservations/{held}/extend"), "e", Value::Null).await.expect_problem(404, "not_found");
    thief.post(&format!("/payments/{payment}/refund"), "r", Value::Null).await.expect_problem(404, "not_found");
    for list in ["/reservations", "/payments"] {
        assert_eq!(thief.get(list).await.expect(200).at("items"), &json!([]));
    }
    assert_eq!(thief.get("/wallet/entries").await.at("items").as_array().unwrap().len(), 1);

    // Another user's command under the same key is a different command.
    let own = thief.hold("h1", &date, &[3]).await.expect(201);
    assert!(!own.is_replay());
    // Another user's queue token is refused, also with a genuine bearer token.
    let mut with_token = thief.clone();
    with_token.queue_token = owner.queue_token.clone();
    with_token.get("/queue").await.expect_problem(403, "queue_token_invalid");
    with_token.delete("/queue").await.expect_problem(403, "queue_token_invalid");
    with_token.get(&format!("/dates/{date}/seats")).await.expect_problem(403, "queue_token_invalid");
    with_token.hold("x", &date, &[4]).await.expect_problem(403, "queue_token_invalid");
    with_token.hold("h1", &date, &[3]).await.expect_problem(403, "queue_token_invalid");

    assert_eq!((owner.balance().await, thief.balance().await), (9_000, 9_999));
    assert_eq!(owner.status().await.text("status"), "active");
    assert_eq!(owner.get(&format!("/reservations/{held}")).await.text("status"), "held");
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_token_opens_its_own_concert_alone() {
    let server = Server::start().await;
    let (first, first_dates) = server.put_on_sale(&concert(&server, "first", &[seats(5, 1_000)])).await;
    let (second, second_dates) = server.put_on_sale(&concert(&server, "second", &[seats(5, 1_000)])).await;
    let mut buyer = server.person().await;
    buyer.enter(&first).await;
    buyer.get(&format!("/concerts/{second}/dates")).await.expect_problem(403, "queue_token_invalid");
    buyer.get(&format!("/dates/{}/seats", second_dates[0])).await.expect_problem(403, "queue_token_invalid");
    buyer.hold("x", &second_dates[0], &[1]).await.expect_problem(403, "queue_token_invalid");
    buyer.hold("y", &first_dates[0], &[1]).await.expect(201);
    // A user may have places in several queues.
    let token = buyer.queue_token.clone();
    buyer.enter(&second).await;
    buyer.hold("z", &second_dates[0], &[1]).await.expect(201);
    buyer.queue_token = token;
    assert_eq!(buyer.status().await.text("status"), "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_missing_tokens_are_refused() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    let seats = format!("/dates/{date}/seats");
    buyer.get(&seats).await.expect_problem(403, "queue_token_required");
    buyer.enter(&concert).await;
    let genuine = buyer.queue_token.clone().unwrap();
    let flipped = |at: usize| {
        let mut bytes = genuine.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for forged in
        [flipped(0), flipped(genuine.len() / 2), flipped(genuine.len() - 2), genuine[1..].to_owned(), "x".to_owned(), "....".to_owned()]
    {
        buyer.queue_token = Some(forged.clone());
        let answer = buyer.get(&seats).await;
        assert_eq!((answer.status, answer.code()), (403, "queue_token_invalid"), "{forged}");
    }
    for bearer in ["", "x", "a.b.c"] {
        let request = server.http().get(format!("{}/api/v1/wallet", server.base)).header("Authorization", format!("Bearer {bearer}"));
        let refused = Answer::to(request).await.expect_problem(401, "unauthenticated");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    }
    let (head, signature) = buyer.token.rsplit_once('.').unwrap();
    let unsigned = format!("{head}.{}", "A".repeat(signature.len()));
    let request = server.http().request(Method::GET, format!("{}/api/v1/wallet", server.base)).bearer_auth(unsigned);
    Answer::to(request).await.expect_problem(401, "unauthenticated");
}
