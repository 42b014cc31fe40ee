//! The edge over a store in memory: the form of every error, the order of refusals, and what a token opens.

mod in_time;

use actix_web::App as ActixApp;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service, read_body};
use boxoffice_domain::{Batch, IdempotencyKey, Lane, Place, QueueStatus};
use boxoffice_ports::{
    Committed, Deadline, Guard, LedgerError, MockQueries, MockUpkeep, MockWaitingRoom, RoomError, StoredAnswer, Tasks, WhenFailing,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

async fn app() -> Data<App> {
    app_with(|_| {}).await
}

async fn app_with(change: impl FnOnce(&mut Parts)) -> Data<App> {
    let mut parts = crate::wiring::parts_in_memory().await;
    change(&mut parts);
    Data::new(App::build(parts).await.unwrap())
}

struct Answer {
    status: u16,
    response: actix_web::http::header::HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.response.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and code, having checked that it is a whole problem document.
    fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.header("x-request-id"), self.body["request_id"].as_str());
        assert_eq!(self.body["status"], self.status);
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].is_string(), "{member} in {}", self.body);
        }
        (self.status, self.body["code"].as_str().unwrap())
    }
}

async fn send(app: &Data<App>, request: TestRequest) -> Answer {
    let service = init_service(ActixApp::new().wrap_fn(edge::edge).configure(configure(app.clone()))).await;
    let response: ServiceResponse<BoxBody> = service.call(request.to_request()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = read_body(response).await;
    Answer { status, response: headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
}

fn request(method: Method, path: &str) -> TestRequest {
    TestRequest::with_uri(path).method(method)
}

fn bearer(app: &App, user: u128, operator: bool) -> (&'static str, String) {
    let token = app
        .auth
        .sign_dev(&auth::DevUser { user: Uuid::from_u128(user).into(), name: "Ann", operator, lane: None }, app.clock.now())
        .unwrap()
        .unwrap();
    ("Authorization", format!("Bearer {token}"))
}

fn queue_token(app: &App, user: u128, concert: u128, until_s: Option<i64>) -> (&'static str, String) {
    let place = Place {
        entry: Uuid::from_u128(99).into(),
        user: Uuid::from_u128(user).into(),
        lane: Lane(0),
        status: if until_s.is_some() { QueueStatus::Active } else { QueueStatus::Waiting },
        arrival: 1,
        ahead: None,
        active_until: until_s.map(|s| app.clock.now() + chrono::TimeDelta::seconds(s)),
        eta: None,
        chance: None,
        sale_starts_at: None,
        draw: None,
    };
    ("Queue-Token", queue_token::sign(&app.signing, &queue_token::QueueToken::of(Uuid::from_u128(concert).into(), &place)))
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_problems_before_anybody_is_asked_who_they_are() {
    let app = app().await;
    for path in ["/nope", "/api/v1", "/api/v1/wallet/", "/api/v1/payments/7", "/api/v1/queue/streams", "/api/docs/nope"] {
        assert_eq!(send(&app, request(Method::GET, path)).await.problem(), (404, "not_found"), "{path}");
    }
    let wrong = send(&app, request(Method::PUT, "/api/v1/reservations")).await;
    assert_eq!(wrong.problem(), (405, "method_not_allowed"));
    assert_eq!(wrong.header("allow"), Some("POST, GET, HEAD"));
    let wallet = send(&app, request(Method::GET, "/api/v1/wallet")).await;
    assert_eq!(wallet.problem(), (401, "unauthenticated"));
    assert_eq!(wallet.header("www-authenticate"), Some("Bearer"));
    assert!(send(&app, request(Method::GET, "/health/live")).await.header("x-request-id").is_some());
}

#[actix_web::test]
async fn refusals_come_in_their_order() {
    let app = app().await;
    let (me, other) = (bearer(&app, 1, false), bearer(&app, 2, false));
    let large = vec![b' '; app.settings.http.max_body_bytes + 1];
    let post = || request(Method::POST, "/api/v1/reservations").insert_header(me.clone());
    let hold = json!({"date_id": Uuid::from_u128(5), "seats": [1]}).to_string();
    let text = ("Content-Type", "text/plain");
    let json_type = ("Content-Type", "application/json");
    for (what, request, expected) in [
        ("nobody", request(Method::POST, "/api/v1/reservations").set_payload(large.clone()), (401, "unauthenticated")),
        (
            "too large",
            post().insert_header(text).insert_header(("Content-Length", large.len())).set_payload(large),
            (413, "body_too_large"),
        ),
        ("type", post().insert_header(text).insert_header(("Content-Length", 2)).set_payload("{}"), (415, "unsupported_media_type")),
        ("no queue token", post().insert_header(json_type).set_payload("{"), (403, "queue_token_required")),
        ("forged", post().insert_header(json_type).insert_header(("Queue-Token", "x")).set_payload("{"), (403, "queue_token_invalid")),
        (
            "another's",
            post().insert_header(json_type).insert_header(queue_token(&app, 2, 3, Some(60))).set_payload("{"),
            (403, "queue_token_invalid"),
        ),
        (
            "over",
            post().insert_header(json_type).insert_header(queue_token(&app, 1, 3, Some(-1))).set_payload("{"),
            (403, "queue_token_expired"),
        ),
    ] {
        assert_eq!(send(&app, request).await.problem(), expected, "{what}");
    }
    let pay = || {
        request(Method::POST, "/api/v1/payments")
            .insert_header(json_type)
            .insert_header(me.clone())
            .insert_header(queue_token(&app, 1, 3, None))
    };
    for (what, request, expected) in [
        ("no key", pay().set_payload("{"), (400, "idempotency_key_required")),
        ("malformed", pay().insert_header(("Idempotency-Key", "k")).set_payload("{"), (400, "invalid_request")),
        ("another's body", pay().insert_header(("Idempotency-Key", "k")).set_payload(hold), (400, "invalid_request")),
    ] {
        assert_eq!(send(&app, request).await.problem(), expected, "{what}");
    }
    let admin = request(Method::GET, "/api/v1/admin/concerts/00000000-0000-0000-0000-000000000003/stats");
    assert_eq!(send(&app, admin.insert_header(other)).await.problem(), (403, "forbidden"));
}

#[actix_web::test]
async fn a_write_is_replayed_to_its_owner_alone() {
    let app = app().await;
    let charge = |user, amount: i64| {
        let body = json!({"amount": amount}).to_string();
        let request = request(Method::POST, "/api/v1/wallet/charges").insert_header(bearer(&app, user, false));
        request.insert_header(("Idempotency-Key", "k")).insert_header(("Content-Type", "application/json")).set_payload(body)
    };
    let first = send(&app, charge(1, 500)).await;
    let again = send(&app, charge(1, 500)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!(first.body, again.body);
    assert_eq!(send(&app, charge(1, 501)).await.problem(), (422, "idempotency_key_reused"));
    let theirs = send(&app, charge(2, 500)).await;
    assert_eq!((theirs.status, theirs.header("idempotency-replayed")), (201, None));
    let wallet = send(&app, request(Method::GET, "/api/v1/wallet").insert_header(bearer(&app, 1, false))).await;
    assert_eq!(wallet.body, json!({"balance": 500, "currency": app.settings.money.currency}));
}

#[actix_web::test]
async fn readiness_names_what_is_down() {
    let store_down = |parts: &mut Parts| {
        let mut upkeep = MockUpkeep::new();
        upkeep.expect_check().returning(|| Err(StoreError::Unavailable("disk I/O error at /secret".into())));
        parts.stores.upkeep = Arc::new(upkeep);
    };
    let room_down = |parts: &mut Parts| {
        let mut room = MockWaitingRoom::new();
        room.expect_ping().returning(|| Err(RoomError::Unavailable("connection refused".into())));
        parts.room = Arc::new(room);
    };
    for (what, app, expected) in [
        ("nothing", app().await, (200, true, true)),
        ("the store", app_with(store_down).await, (503, false, true)),
        ("the waiting room", app_with(room_down).await, (503, true, false)),
    ] {
        let ready = send(&app, request(Method::GET, "/health/ready")).await;
        let ok = |at: usize, name: &str| {
            let check = &ready.body["checks"][at];
            assert_eq!((&check["name"], check["detail"].is_null()), (&json!(name), check["ok"] == true), "{what}: {}", ready.body);
            check["ok"] == true
        };
        assert_eq!((ready.status, ok(0, "store"), ok(1, "queue")), expected, "{what}");
        assert!(!ready.body.to_string().contains("secret"), "the log alone says why: {}", ready.body);
        assert_eq!(send(&app, request(Method::GET, "/health/live")).await.status, 200, "{what}");
    }
}

#[actix_web::test]
async fn a_store_that_is_away_is_told_with_retry_after() {
    let app = app_with(|parts| {
        let mut queries = MockQueries::new();
        // Read when the application is built.
        queries.expect_payments_between().returning(|_, _, _| Ok(Vec::new()));
        queries.expect_now().returning(|| Ok(chrono::DateTime::UNIX_EPOCH));
        queries.expect_wallet().returning(|_| Err(StoreError::Unavailable("gone".into())));
        parts.stores.queries = Arc::new(queries);
    })
    .await;
    let wallet = send(&app, request(Method::GET, "/api/v1/wallet").insert_header(bearer(&app, 1, false))).await;
    assert_eq!(wallet.problem(), (503, "store_unavailable"));
    assert_eq!(wallet.header("retry-after"), Some("1"));
    assert!(!wallet.body.to_string().contains("gone"), "{}", wallet.body);
}

/// A room that has forgotten everybody, and gives back what it is told by a token.
fn forgetful(gives_back: Option<QueueStatus>) -> MockWaitingRoom {
    let mut room = MockWaitingRoom::new();
    room.expect_place().returning(|_, _| Ok(None));
    room.expect_touch().returning(|_, _| Ok(None));
    room.expect_restore().times(1).returning(move |concert, claim| {
        assert_eq!((concert.0, claim.user.0, claim.place), (Uuid::from_u128(3), Uuid::from_u128(1), 1));
        Ok(gives_back.map(|status| Place {
            entry: claim.entry,
            user: claim.user,
            lane: claim.lane,
            status,
            arrival: claim.place,
            ahead: Some(0),
            active_until: claim.active_until,
            eta: None,
            chance: None,
            sale_starts_at: None,
            draw: None,
        }))
    });
    room
}

#[actix_web::test]
async fn a_place_that_the_room_has_forgotten_is_given_back_by_its_token() {
    for (gives_back, shown) in [(Some(QueueStatus::Waiting), "waiting"), (Some(QueueStatus::Active), "active"), (None, "expired")] {
        let app = app_with(|parts| parts.room = Arc::new(forgetful(gives_back))).await;
        let until = (gives_back == Some(QueueStatus::Active)).then_some(60);
        let poll =
            request(Method::GET, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, until));
        let answer = send(&app, poll).await;
        assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some(shown)));
    }
    // Nothing is restored for a token that is not genuine.
    let app = app_with(|parts| {
        let mut room = MockWaitingRoom::new();
        room.expect_restore().never();
        parts.room = Arc::new(room);
    })
    .await;
    let forged = request(Method::GET, "/api/v1/queue").insert_header(bearer(&app, 2, false)).insert_header(queue_token(&app, 1, 3, None));
    assert_eq!(send(&app, forged).await.problem(), (403, "queue_token_invalid"));
}

#[actix_web::test]
async fn a_hold_and_leaving_give_a_forgotten_place_back_first() {
    let hold = json!({"date_id": Uuid::from_u128(5), "seats": [1]}).to_string();
    let app = app_with(|parts| parts.room = Arc::new(forgetful(Some(QueueStatus::Waiting)))).await;
    let post = request(Method::POST, "/api/v1/reservations")
        .insert_header(bearer(&app, 1, false))
        .insert_header(queue_token(&app, 1, 3, Some(60)))
        .insert_header(("Content-Type", "application/json"))
        .insert_header(("Idempotency-Key", "k"))
        .set_payload(hold);
    let refused = send(&app, post).await;
    assert_eq!(refused.problem(), (403, "queue_waiting"), "there was no turn to give back");
    assert_eq!(refused.body["queue"]["status"], "waiting");

    let left = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = left.clone();
    let app = app_with(move |parts| {
        let mut room = forgetful(Some(QueueStatus::Waiting));
        room.expect_leave().returning(move |_, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        parts.room = Arc::new(room);
    })
    .await;
    let leave = request(Method::DELETE, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, None));
    assert_eq!(send(&app, leave).await.status, 204);
    assert_eq!(left.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A ledger that waits for a permit before each commit.
struct Gated(tokio::sync::Semaphore);

#[async_trait::async_trait]
impl Ledger for Gated {
    async fn transact(&self, _: Batch, _: Guard, _: Deadline) -> Result<Committed, LedgerError> {
        self.0.acquire().await.map_err(|closed| LedgerError::Unavailable(closed.into()))?.forget();
        Ok(Committed { replies: Vec::new(), seats: Vec::new() })
    }

    async fn reply(&self, _: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        Ok(None)
    }
}

#[actix_web::test]
async fn leaving_goes_on_when_its_caller_goes_away() {
    let (ledger, left) = (Arc::new(Gated(tokio::sync::Semaphore::new(0))), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let (gated, counted) = (ledger.clone(), left.clone());
    let app = app_with(move |parts| {
        let mut queries = MockQueries::new();
        queries.expect_live_holds().returning(|_, _| Ok(vec![Uuid::from_u128(7).into()]));
        parts.returns = HoldReturns::new(gated, Arc::new(queries), parts.ids.clone(), parts.policy.clone());
        let mut room = forgetful(Some(QueueStatus::Waiting));
        room.expect_leave().returning(move |_, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        parts.room = Arc::new(room);
    })
    .await;
    let leave = request(Method::DELETE, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, None));
    let gone = tokio::time::timeout(std::time::Duration::from_millis(200), send(&app, leave)).await;
    assert!(gone.is_err(), "it waits for the holds");
    ledger.0.add_permits(1);
    let ended = async {
        while left.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("the place ends");
}

#[actix_web::test]
async fn readiness_names_what_the_locks_stand_on() {
    struct Nodes(usize);
    impl Probe for Nodes {
        fn name(&self) -> &'static str {
            "redlock"
        }

        fn check(&self) -> futures_util::future::BoxFuture<'_, Health> {
            Box::pin(async { Health::of_nodes(5, &["redis://a", "redis://b", "redis://c"][..self.0]) })
        }
    }
    for (down, status, ok) in [(0, 200, true), (2, 200, true), (3, 503, false)] {
        let app = app_with(|parts| parts.probes.push(Arc::new(Nodes(down)))).await;
        let ready = send(&app, request(Method::GET, "/health/ready")).await;
        let check = &ready.body["checks"][2];
        assert_eq!((ready.status, &check["name"], check["ok"] == true), (status, &json!("redlock"), ok), "{}", ready.body);
        assert_eq!(check["detail"].as_str().map(|detail| detail.contains("redis://b")), (down > 0).then_some(true), "{check}");
    }
}

#[actix_web::test]
async fn readiness_names_a_task_that_fails_again_and_again() {
    for (when_failing, status, ok) in [(WhenFailing::Impaired, 200, true), (WhenFailing::NotReady, 503, false)] {
        let app = app().await;
        let tasks: Arc<dyn Tasks> = app.tasks.clone();
        assert_eq!(send(&app, request(Method::GET, "/health/ready")).await.status, 200);
        let _kept = tasks.keep("relay.3", when_failing, || async { panic!("a defect") });
        let named = async {
            loop {
                let ready = send(&app, request(Method::GET, "/health/ready")).await;
                if let Some(check) =
                    ready.body["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == "task.relay.3"))
                {
                    return (ready.status, check["ok"] == true);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(5), named).await.unwrap(), (status, ok));
    }
}

/// A room where the entry of every token has its turn.
fn a_turn_for_each_entry() -> MockWaitingRoom {
    let place = |entry| Place {
        entry,
        user: Uuid::from_u128(1).into(),
        lane: Lane(0),
        status: QueueStatus::Active,
        arrival: 1,
        ahead: Some(0),
        active_until: None,
        eta: None,
        chance: None,
        sale_starts_at: None,
        draw: None,
    };
    let mut room = MockWaitingRoom::new();
    room.expect_place().returning(move |_, entry| Ok(Some(place(entry))));
    room.expect_touch().returning(move |_, entry| Ok(Some(place(entry))));
    room.expect_draw().returning(|_| Ok(None));
    room
}

/// The fields a 400 names.
fn at_fault(answer: &Answer) -> Vec<&str> {
    let errors = if answer.status == 400 { answer.body["errors"].as_array() } else { None };
    errors.into_iter().flatten().map(|error| error["field"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn each_bound_of_the_document_is_taken_and_one_beyond_is_refused() {
    let app = app_with(|parts| parts.room = Arc::new(a_turn_for_each_entry())).await;
    let document = serde_json::to_value(openapi()).unwrap();
    let (mut limits, mut keys) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        let uri = path.replace("{id}", &Uuid::from_u128(3).to_string());
        for (method, operation) in item.as_object().unwrap() {
            let send = async |query: &str, key: &str| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let request = request(method, &format!("{uri}{query}")).insert_header(bearer(&app, 1, true));
                let request = request.insert_header(queue_token(&app, 1, 3, Some(60))).insert_header(("Content-Type", "application/json"));
                send(&app, request.insert_header(("Idempotency-Key", key)).set_payload("{}")).await
            };
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                match parameter["name"].as_str().unwrap() {
                    "limit" => {
                        limits += 1;
                        let (low, high) = (schema["minimum"].as_u64().unwrap(), schema["maximum"].as_u64().unwrap());
                        for (limit, faults) in [(low, vec![]), (high, vec![]), (low - 1, vec!["limit"]), (high + 1, vec!["limit"])] {
                            let answer = send(&format!("?limit={limit}"), "k").await;
                            assert_eq!(at_fault(&answer), faults, "{method} {path} {limit}: {}", answer.body);
                        }
                    }
                    "Idempotency-Key" => {
                        keys += 1;
                        let longest = schema["maxLength"].as_u64().unwrap() as usize - 2;
                        let (long, beyond) = ("k".repeat(longest), "k".repeat(longest + 1));
                        for (key, is_refused) in
                            [("k", false), (long.as_str(), false), (&format!("\"{long}\""), false), ("\"\"", true), (&beyond, true)]
                        {
                            let answer = send("", key).await;
                            assert_eq!(at_fault(&answer) == ["Idempotency-Key"], is_refused, "{method} {path} {key}: {}", answer.body);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    let table = routes::table();
    let with = |needs: fn(&routes::Needs) -> bool| table.iter().filter(|entry| entry.documented && needs(&entry.needs)).count();
    assert_eq!((limits, keys), (with(|needs| needs.paged), with(|needs| needs.idempotency_key)));
    assert!(limits > 0 && keys > 0);
}

#[actix_web::test]
async fn text_that_a_store_cannot_hold_is_refused_with_its_field() {
    let app = app_with(|parts| parts.room = Arc::new(a_turn_for_each_entry())).await;
    let post = |path: &str, body: Value| {
        request(Method::POST, path)
            .insert_header(bearer(&app, 1, true))
            .insert_header(queue_token(&app, 1, 3, Some(60)))
            .insert_header(("Idempotency-Key", "k"))
            .insert_header(("Content-Type", "application/json"))
            .set_payload(body.to_string())
    };
    for wrong in ["a\0b", "a\nb", "\u{2028}", &"é".repeat(201)] {
        for (path, body, field) in [
            ("/api/v1/wallet/uses", json!({"amount": 1, "memo": wrong}), "memo"),
            ("/api/v1/dev/users", json!({"name": wrong}), "name"),
            ("/api/v1/dev/users", json!({"name": "Ann", "lane": wrong}), "lane"),
            ("/api/v1/reservations", json!({"date_id": Uuid::from_u128(5), "best": {"count": 1, "grade": wrong}}), "best.grade"),
        ] {
            let answer = send(&app, post(path, body)).await;
            assert_eq!(at_fault(&answer), [field], "{path} {wrong:?}: {}", answer.body);
        }
        let concert = json!({"key": wrong, "name": wrong, "venue": wrong, "time_zone": wrong, "dates": [
            {"key": wrong, "starts_at": "2027-03-05T10:00:00Z", "booking_opens_at": "2027-01-10T11:00:00Z",
             "booking_closes_at": "2027-03-05T09:00:00Z",
             "seats": [{"from": 1, "to": 2, "grade": wrong, "price": 1, "section": wrong, "row": wrong}]}]});
        let answer = send(&app, post("/api/v1/admin/concerts", concert)).await;
        let seats = "dates[0].seats[0]";
        let fields = ["key", "name", "venue", "time_zone", "dates[0].key"].map(str::to_owned).into_iter();
        let fields: Vec<_> = fields.chain(["grade", "section", "row"].map(|name| format!("{seats}.{name}"))).collect();
        assert_eq!(at_fault(&answer), fields, "{wrong:?}: {}", answer.body);
    }
}

#[actix_web::test]
async fn a_member_named_twice_is_refused_in_a_concert_document() {
    let app = app().await;
    let body = r#"{"key": "k", "name": "N", "venue": "V", "dates": [{"seats": [{"price": 1000, "price": 1}]}]}"#;
    let import = request(Method::POST, "/api/v1/admin/concerts").insert_header(bearer(&app, 1, true));
    let answer = send(&app, import.insert_header(("Content-Type", "application/json")).set_payload(body)).await;
    assert_eq!(at_fault(&answer), ["dates[0].seats[0].price"], "{}", answer.body);
}
