//! The edge over a store in memory: the form of every error, the order of refusals, and what a token opens.

mod in_time;
mod input;
mod lost_places;
mod readiness;

use actix_web::App as ActixApp;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service, read_body};
use boxoffice_domain::{Lane, Place, QueueStatus};
use boxoffice_ports::MockQueries;
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
async fn unknown_paths_and_methods_are_refused_before_the_bearer_is_checked() {
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
        ("no bearer", request(Method::POST, "/api/v1/reservations").set_payload(large.clone()), (401, "unauthenticated")),
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
async fn a_write_is_replayed_to_its_owner_only() {
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
async fn an_unavailable_store_is_a_503_with_retry_after() {
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
