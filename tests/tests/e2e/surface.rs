//! The public surface, rule by rule: headers that every answer has, the order of refusals, bodies, keys and queries.
mod jwt;
mod records;
mod wire;

use std::collections::BTreeSet;

use boxoffice_tests::{Answer, Person, Server, Setup, concert, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

fn charge(person: &Person) -> RequestBuilder {
    person.request(Method::POST, "/wallet/charges").header("Content-Type", "application/json")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_request_id_of_its_own() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let mut seen = BTreeSet::new();
    for path in ["/api/v1/wallet", "/api/v1/wallet", "/api/v1/nowhere", "/health/live", "/metrics", "/api/openapi.json", "/api/docs/", "/"]
    {
        // The client's own id is ignored.
        let request = server.http().get(format!("{}{path}", server.base)).bearer_auth(&buyer.token).header("X-Request-Id", "mine");
        let id = Answer::to(request).await.header("x-request-id").unwrap_or_else(|| panic!("{path}")).to_owned();
        assert!(id != "mine" && seen.insert(id), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_a_body_and_other_methods_are_named() {
    let server = Server::start().await;
    let buyer = server.person().await;
    for path in ["/wallet", "/wallet/entries", "/concerts", "/rewards"] {
        let get = buyer.get(path).await.expect(200);
        let head = Answer::to(buyer.request(Method::HEAD, path)).await.expect(200);
        assert_eq!((head.body.is_null(), head.header("content-type")), (true, get.header("content-type")), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
    Answer::to(server.http().head(format!("{}/health/live", server.base))).await.expect(200);
    Answer::to(server.http().head(format!("{}/api/v1/wallet", server.base))).await.expect(401);
    for method in ["OPTIONS", "PUT", "TRACE", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let refused = Answer::to(buyer.request(method, "/reservations")).await.expect_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("POST, GET, HEAD"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_exact_and_ids_are_read_in_either_case() {
    let server = Server::start().await;
    let (concert, _) = server.one_date(seats(5, 1_000)).await;
    let buyer = server.person().await;
    for path in [
        "/wallet/",
        "//wallet",
        "/Wallet",
        "/wallet%2Fentries",
        "/wallet%00",
        "/%zz",
        "/%ff",
        "/concerts/",
        &format!("/concerts/{concert}/"),
        &format!("/concerts/{}", concert.replace('-', "")),
        &format!("/concerts/{{{concert}}}"),
        &format!("/concerts/urn:uuid:{concert}"),
        &format!("/reservations/{UNKNOWN}x"),
        "/payments/%F0%9F%8E%AB",
    ] {
        buyer.get(path).await.expect_problem(404, "not_found");
    }
    let shown = buyer.get(&format!("/concerts/{concert}")).await.expect(200);
    assert_eq!(buyer.get(&format!("/concerts/{}", concert.to_uppercase())).await.expect(200).body, shown.body);
    assert_eq!(buyer.get("/w%61llet").await.expect(200).number("balance"), 0);
    // A malformed id is 404 for every caller, also without a token; with a well-formed one the token is checked first.
    Answer::to(server.http().get(format!("{}/api/v1/payments/7", server.base))).await.expect_problem(404, "not_found");
    Answer::to(server.http().get(format!("{}/api/v1/payments/{UNKNOWN}", server.base))).await.expect_problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_in_their_order() {
    let server = Setup::default().with("http.max_body_bytes=1024").with("http.requests_per_second_per_user=1").start().await;
    let large = "x".repeat(1_025);
    let hold = |caller: Option<&Person>, path: &str, kind: &str, body: &str| {
        let request = server.http().post(format!("{}/api/v1{path}", server.base)).header("Content-Type", kind).body(body.to_owned());
        match caller {
            Some(caller) => request.bearer_auth(&caller.token),
            None => request,
        }
    };
    Answer::to(hold(None, "/reservations/", "text/plain", &large)).await.expect_problem(404, "not_found");
    Answer::to(hold(None, "/wallet", "text/plain", &large)).await.expect_problem(405, "method_not_allowed");
    Answer::to(hold(None, "/reservations", "text/plain", &large)).await.expect_problem(401, "unauthenticated");
    // A user above the rate is refused for that first, whatever else is wrong.
    let greedy = server.person().await;
    let refused = boxoffice_tests::eventually("the rate is used up", async || {
        let answer = Answer::to(hold(Some(&greedy), "/reservations", "text/plain", &large)).await;
        (answer.status != 413).then_some(answer)
    })
    .await
    .expect_problem(429, "too_many_requests");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 1)));
    // Each of the others by a user without a request so far.
    let by = async |kind: &str, body: &str| Answer::to(hold(Some(&server.person().await), "/reservations", kind, body)).await;
    by("text/plain", &large).await.expect_problem(413, "body_too_large");
    by("text/plain", "{").await.expect_problem(415, "unsupported_media_type");
    by("application/json", "{").await.expect_problem(403, "queue_token_required");
    // The role is checked before the body.
    Answer::to(hold(Some(&server.person().await), "/admin/concerts", "text/plain", &large)).await.expect_problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_only_in_their_own_header_and_once() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert).await;
    let token = buyer.queue_token.clone().unwrap();
    let wallet = || server.http().get(format!("{}/api/v1/wallet", server.base));
    for request in [
        wallet().header("Queue-Token", &buyer.token),
        wallet().header("Authorization", &buyer.token),
        wallet().header("Authorization", format!("Basic {}", buyer.token)),
        wallet().header("Authorization", format!("Bearer {token}")),
        wallet().header("X-Authorization", format!("Bearer {}", buyer.token)),
        server.http().get(format!("{}/api/v1/wallet?access_token={}", server.base, buyer.token)),
        wallet().bearer_auth(&buyer.token).bearer_auth(&buyer.token),
    ] {
        let refused = Answer::to(request).await.expect_problem(401, "unauthenticated");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    // The scheme is read in either case (RFC 9110, 11.1).
    Answer::to(wallet().header("Authorization", format!("bEARER {}", buyer.token))).await.expect(200);

    let mut bare = buyer.clone();
    bare.queue_token = None;
    let map = |query: &str| bare.request(Method::GET, &format!("/dates/{date}/seats{query}"));
    Answer::to(map(&format!("?token={token}"))).await.expect_problem(403, "queue_token_required");
    Answer::to(map("").header("Queue-Token", "")).await.expect_problem(403, "queue_token_invalid");
    Answer::to(map("").header("Queue-Token", &bare.token)).await.expect_problem(403, "queue_token_invalid");
    Answer::to(map("").header("Queue-Token", &token).header("Queue-Token", &token)).await.expect_problem(403, "queue_token_invalid");
    Answer::to(map("").header("QUEUE-TOKEN", &token)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_json_of_bounded_size_or_absent() {
    let server = Server::start().await;
    let (concert, date) = server.one_date(seats(5, 1_000)).await;
    let mut buyer = server.person().await;
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON"] {
        let request =
            buyer.request(Method::POST, "/wallet/charges").header("Content-Type", kind).header("Idempotency-Key", kind.replace(' ', ""));
        Answer::to(request.body("{\"amount\":500}")).await.expect(201);
    }
    for kind in ["text/json", "application/json-patch+json", "application/problem+json", "json"] {
        let request = buyer.request(Method::POST, "/wallet/charges").header("Content-Type", kind).header("Idempotency-Key", "k");
        Answer::to(request.body("{\"amount\":500}")).await.expect_problem(415, "unsupported_media_type");
    }
    let packed = charge(&buyer).header("Idempotency-Key", "k").header("Content-Encoding", "gzip").body("{\"amount\":500}");
    Answer::to(packed).await.expect_problem(415, "unsupported_media_type");
    // Without a body no type is needed; where no body is expected, `null` and `{}` count as none.
    let join = || buyer.request(Method::POST, &format!("/concerts/{concert}/queue"));
    Answer::to(join()).await.expect(201);
    for body in ["null", "{}", " {} "] {
        Answer::to(join().header("Content-Type", "application/json").body(body)).await.expect(200);
    }
    Answer::to(join().json(&json!({ "user_id": UNKNOWN }))).await.expect_problem(400, "invalid_request");
    Answer::to(join().body("{}")).await.expect_problem(415, "unsupported_media_type");
    buyer.enter(&concert).await;
    let held = buyer.hold("h", &date, &[1]).await.expect(201).text("id");
    for path in ["/queue", &format!("/reservations/{held}")] {
        let delete = || buyer.request(Method::DELETE, path);
        Answer::to(delete().json(&json!({ "force": true }))).await.expect_problem(400, "invalid_request");
        Answer::to(delete().body("force")).await.expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(buyer.get(&format!("/reservations/{held}")).await.text("status"), "held");
    Answer::to(buyer.request(Method::DELETE, &format!("/reservations/{held}")).json(&json!({}))).await.expect(204);
    assert_eq!(buyer.balance().await, 1_000);
}

/// `POST /api/v1/wallet/uses`, `POST /api/v1/dev/users`.
#[tokio::test(flavor = "multi_thread")]
async fn json_is_read_strictly_and_text_is_any_text() {
    let server = Server::start().await;
    let buyer = server.person().await;
    buyer.charge(10_000).await;
    let deep = format!("{{\"amount\":5,\"memo\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    for body in [
        "{\"amount\":1e2}",
        "{\"amount\":-0}",
        "{\"amount\":1.0}",
        "{\"amount\":99999999999999999999999999}",
        "{\"amount\":0x10}",
        "{\"amount\":[5]}",
        "{\"Amount\":5}",
        "{'amount':5}",
        "{\"amount\":5,}",
        "{\"amount\":5}{\"amount\":5}",
        "{\"amount\":5,\"memo\":\"\\ud800\"}",
        "{\"amount\":5,\"memo\":\"a\\u0000b\"}",
        "{\"amount\":5,\"memo\":\"a\\nb\"}",
        "{\"amount\":5,\"memo\":{\"memo\":1}}",
        deep.as_str(),
    ] {
        let request = buyer.request(Method::POST, "/wallet/uses").header("Idempotency-Key", "k").header("Content-Type", "application/json");
        Answer::to(request.body(body.to_owned())).await.expect_problem(400, "invalid_request");
    }
    let not_utf8 = buyer.request(Method::POST, "/wallet/uses").header("Idempotency-Key", "k").header("Content-Type", "application/json");
    Answer::to(not_utf8.body(b"{\"amount\":5,\"memo\":\"\xff\"}".to_vec())).await.expect_problem(400, "invalid_request");
    // The bound counts characters, not bytes.
    let memo = "포스터🎫".repeat(50);
    let entry = buyer.post("/wallet/uses", "k", json!({ "amount": 5, "memo": memo })).await.expect(201);
    assert_eq!((entry.text("memo"), entry.number("amount"), entry.number("balance")), (memo.clone(), -5, 9_995));
    assert_eq!(buyer.get("/wallet/entries").await.text("items/0/memo"), memo);
    let long = buyer.post("/wallet/uses", "long", json!({ "amount": 5, "memo": "é".repeat(201) })).await;
    assert_eq!(long.expect_problem(400, "invalid_request").text("errors/0/field"), "memo");
    let name = |name: &str| server.http().post(format!("{}/api/v1/dev/users", server.base)).json(&json!({ "name": name }));
    let first = Answer::to(name("김민수 🎫")).await.expect(201);
    assert_ne!(Answer::to(name("김민수 🎫")).await.expect(201).text("user_id"), first.text("user_id"), "each time a new user");
    for wrong in ["", " \t", &"x".repeat(201)] {
        Answer::to(name(wrong)).await.expect_problem(400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_of_any_visible_characters_and_belong_to_a_path_and_a_body() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let send = async |name: &'static str, key: &str, body: &'static str| Answer::to(charge(&buyer).header(name, key).body(body)).await;
    let long = "k".repeat(255);
    let first = send("Idempotency-Key", &long, "{\"amount\":5}").await.expect(201);
    for (name, key) in [("idempotency-key", long.clone()), ("IDEMPOTENCY-KEY", format!("\"{long}\""))] {
        let again = send(name, &key, " {\"amount\" : 5}").await.expect(201);
        assert!(again.is_replay());
        assert_eq!(again.body, first.body);
    }
    assert!(!send("Idempotency-Key", "a,b;\"c\\~!", "{\"amount\":5}").await.expect(201).is_replay());
    // The case of a key matters.
    assert!(!send("Idempotency-Key", &long.to_uppercase(), "{\"amount\":5}").await.expect(201).is_replay());
    send("Idempotency-Key", &format!("{long}k"), "{\"amount\":5}").await.expect_problem(400, "invalid_request");
    let twice = charge(&buyer).header("Idempotency-Key", "x").header("Idempotency-Key", "x").body("{\"amount\":5}");
    Answer::to(twice).await.expect_problem(400, "invalid_request");

    // An absent member is the same as null.
    let spent = buyer.post("/wallet/uses", "use", json!({ "amount": 5 })).await.expect(201);
    let again = buyer.post("/wallet/uses", "use", json!({ "memo": null, "amount": 5 })).await.expect(201);
    assert!(again.is_replay());
    assert_eq!(again.body, spent.body);
    // The path counts: the same key and body at another path is another request.
    let refund = |payment: &str| format!("/payments/{payment}/refund");
    buyer.post(&refund(UNKNOWN), "r", Value::Null).await.expect_problem(404, "not_found");
    buyer.post(&refund(UNKNOWN), "r", json!({})).await.expect_problem(404, "not_found");
    let other = UNKNOWN.replace('1', "2");
    buyer.post(&refund(&other), "r", Value::Null).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(buyer.balance().await, 10);
    server.audit().await;
}

/// `GET /api/v1/concerts` and the other lists.
#[tokio::test(flavor = "multi_thread")]
async fn queries_are_strict_and_cursors_fit_their_own_list() {
    let server = Server::start().await;
    let (concert_id, date) = server.one_date(seats(10, 1_000)).await;
    server.put_on_sale(&concert(&server, "second", &[seats(5, 1_000)])).await;
    let mut buyer = server.person().await;
    buyer.enter(&concert_id).await;
    for amount in [10_000, 20_000] {
        buyer.charge(amount).await;
    }
    let mut held = Vec::new();
    for seat in 1..=3 {
        held.push(buyer.hold(&format!("h{seat}"), &date, &[seat]).await.expect(201).text("id"));
    }
    // The third hold, which is not paid, keeps the turn.
    for id in &held[..2] {
        buyer.pay(&format!("p{id}"), id).await.expect(201);
    }
    let lists = ["/wallet/entries", "/rewards", "/reservations", "/payments", "/concerts"];
    for list in lists {
        let page = buyer.get(&format!("{list}?limit=1")).await.expect(200);
        let cursor = page.text("next_cursor");
        assert_eq!(page.at("items").as_array().unwrap().len(), 1, "{list}");
        let rest = buyer.get(&format!("{list}?cursor={cursor}&limit=200")).await.expect(200);
        let whole = buyer.get(list).await.expect(200);
        let (rest, whole) = (rest.at("items").as_array().unwrap(), whole.at("items").as_array().unwrap());
        assert_eq!(rest[..], whole[1..], "{list}");
        for other in lists.iter().filter(|other| **other != list) {
            let refused = buyer.get(&format!("{other}?cursor={cursor}")).await.expect_problem(400, "invalid_request");
            assert_eq!(refused.text("errors/0/field"), "cursor", "{list} of {other}");
        }
        for wrong in
            ["limit=", "limit=+5", "limit=%2B5", "limit=5.0", "limit=99999999999999999999", "limit=1&limit=1", "Limit=1", "cursor=", "=1"]
        {
            buyer.get(&format!("{list}?{wrong}")).await.expect_problem(400, "invalid_request");
        }
        buyer.get(&format!("{list}?")).await.expect(200);
    }
    for path in [
        "/wallet",
        "/queue",
        &format!("/concerts/{concert_id}"),
        &format!("/concerts/{concert_id}/dates"),
        &format!("/reservations/{UNKNOWN}"),
    ] {
        let refused = buyer.get(&format!("{path}?verbose=1")).await.expect_problem(400, "invalid_request");
        assert_eq!(refused.text("errors/0/field"), "verbose");
    }
    for path in ["status=sold", "status=available&status=available", "grade=R&colour=red", "limit=5"] {
        buyer.get(&format!("/dates/{date}/seats?{path}")).await.expect_problem(400, "invalid_request");
    }
    buyer.post("/wallet/charges?x=1", "q", json!({ "amount": 5 })).await.expect_problem(400, "invalid_request");
    Answer::to(buyer.request(Method::DELETE, "/queue?x=1")).await.expect_problem(400, "invalid_request");
    assert_eq!(buyer.status().await.text("status"), "active");
}
