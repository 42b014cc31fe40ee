//! Every route, over ports of which one, or all, never answer: each request is answered within the bound.
//!
//! This fails for a new route that is not requested here ([`Shop::requests`]), and for a new method of a store's port that
//! does not pass the gate ([`gate`]).

mod gate;

use std::time::Duration;

use boxoffice_domain::waiting::Stock;
use boxoffice_domain::{CommandId, ConcertId, DateId, Fingerprint, IdempotencyKey, UserId};
use boxoffice_engine::SeatPreference;
use boxoffice_ports::Deadline;
use tokio::time::{Instant, sleep};

use super::super::accepted::Accepted;
use super::super::idempotency::Keyed;
use super::super::routes;
use super::*;
use crate::wiring::parts_over;
use gate::{ALL, Gate, Gated, NONE, Port};

/// How long a request may take beyond `strategy.wait_ms`.
const LATER: Duration = Duration::from_millis(500);
const ME: u128 = 1;
const OPERATOR: u128 = 2;
/// A concert that does not exist.
const UNKNOWN: Uuid = Uuid::from_u128(77);

/// How a request to a route is answered while all ports hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum While {
    /// 503 `store_unavailable`, soon after its deadline.
    Refused,
    /// From memory.
    Answered,
}

/// An application with a concert on sale, a gate, and a buyer in their turn with a payment and a held seat.
struct Shop {
    app: Data<App>,
    gate: Arc<Gate>,
    strategy: &'static str,
    /// Numbers keys and documents.
    fresh: u32,
    concert: String,
    date: String,
    token: String,
    held: String,
    payment: String,
    ticket: String,
}

impl Shop {
    async fn open(strategy: &'static str) -> Self {
        let gate = Gate::open();
        let shut = gate.clone();
        let parts = parts_over(strategy, move |stores, room_log| {
            macro_rules! behind {
                ($port:expr) => {
                    Arc::new(Gated { port: $port, gate: shut.clone() })
                };
            }
            stores.ledger = behind!(stores.ledger.clone());
            stores.queries = behind!(stores.queries.clone());
            stores.catalog = behind!(stores.catalog.clone());
            stores.upkeep = behind!(stores.upkeep.clone());
            stores.outbox = behind!(stores.outbox.clone());
            stores.audit = behind!(stores.audit.clone());
            stores.secrets = behind!(stores.secrets.clone());
            stores.mirror = behind!(stores.mirror.clone());
            *room_log = behind!(room_log.clone());
        });
        let app = Data::new(App::build(parts.await).await.unwrap());
        let empty = String::new;
        let mut shop = Self {
            app,
            gate,
            strategy,
            fresh: 0,
            concert: empty(),
            date: empty(),
            token: empty(),
            held: empty(),
            payment: empty(),
            ticket: empty(),
        };
        shop.sell().await;
        shop
    }

    fn as_user(&self, user: u128, method: Method, path: &str, body: Value) -> TestRequest {
        let request = request(method, path).insert_header(bearer(&self.app, user, user == OPERATOR));
        let request = request.insert_header(("Content-Type", "application/json")).set_payload(body.to_string());
        if self.token.is_empty() { request } else { request.insert_header(("Queue-Token", self.token.clone())) }
    }

    /// With a fresh key.
    fn keyed(&mut self, user: u128, path: &str, body: Value) -> TestRequest {
        self.fresh += 1;
        self.as_user(user, Method::POST, path, body).insert_header(("Idempotency-Key", format!("key-{}", self.fresh)))
    }

    async fn done(&self, request: TestRequest) -> Value {
        let answer = send(&self.app, request).await;
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        answer.body
    }

    fn document(&self, key: &str) -> Value {
        let at = |hours| (self.app.clock.now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
        json!({
            "key": key, "name": "Moonlight Tour", "venue": "Olympic Hall",
            "dates": [{
                "key": "day", "starts_at": at(30), "booking_opens_at": at(-1), "booking_closes_at": at(20),
                "seats": [{ "from": 1, "to": 50, "grade": "R", "price": 1_000 }],
            }],
        })
    }

    async fn sell(&mut self) {
        let text = |value: &Value, at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("{at} {value}")).to_owned();
        let import = self.as_user(OPERATOR, Method::POST, "/api/v1/admin/concerts", self.document("sale"));
        let made = self.done(import).await;
        (self.concert, self.date) = (text(&made, "/id"), text(&made, "/dates/0/id"));
        // Its room is empty, so a read goes to its log.
        let quiet = self.as_user(OPERATOR, Method::POST, "/api/v1/admin/concerts", self.document("quiet"));
        self.done(quiet).await;
        let charge = self.keyed(ME, "/api/v1/wallet/charges", json!({ "amount": 10_000 }));
        self.done(charge).await;
        let join = self.as_user(ME, Method::POST, &format!("/api/v1/concerts/{}/queue", self.concert), Value::Null);
        self.token = text(&self.done(join).await, "/token");
        let concert = ConcertId(self.concert.parse().unwrap());
        self.app.room.tick(concert, Stock { obtainable: 50, linked: true }).await.unwrap();
        let polled = self.done(self.as_user(ME, Method::GET, "/api/v1/queue", Value::Null)).await;
        assert_eq!(text(&polled, "/status"), "active");
        self.token = text(&polled, "/token");
        let mut held = Vec::new();
        for seat in [1, 2] {
            let hold = self.keyed(ME, "/api/v1/reservations", json!({ "date_id": self.date, "seats": [seat] }));
            held.push(text(&self.done(hold).await, "/id"));
        }
        self.held = held.remove(0);
        let pay = self.keyed(ME, "/api/v1/payments", json!({ "reservation_id": held.remove(0) }));
        let paid = self.done(pay).await;
        (self.payment, self.ticket) = (text(&paid, "/id"), text(&paid, "/tickets/0/code"));
        // Longer than any state in memory counts as fresh.
        tokio::time::advance(Duration::from_secs(10)).await;
    }

    fn accepted(&self) -> String {
        let key = IdempotencyKey { user: UserId(Uuid::from_u128(ME)), command: CommandId(Uuid::from_u128(5)) };
        let deadline = Deadline::after(Duration::ZERO);
        let keyed = Keyed { key, fingerprint: Fingerprint([0; 32]), prefers_async: false, deadline };
        let response = Accepted::now(&self.app, keyed).response(&self.app).unwrap();
        response.headers().get("location").unwrap().to_str().unwrap().to_owned()
    }

    /// The requests to a route, and how each is answered.
    fn requests(&mut self, method: &Method, path: &str) -> Vec<(TestRequest, While)> {
        use While::{Answered, Refused};
        let of_mine = path.replace(
            "{id}",
            match path {
                path if path.contains("/concerts/") => &self.concert,
                path if path.contains("/dates/") => &self.date,
                path if path.contains("/reservations/") => &self.held,
                path if path.contains("/payments/") => &self.payment,
                _ => "00000000-0000-0000-0000-000000000001",
            },
        );
        let elsewhere = path.replace("{id}", &UNKNOWN.to_string());
        let get = |path: &str| self.as_user(ME, Method::GET, path, Value::Null);
        let as_operator = |method: &Method, path: &str, body| self.as_user(OPERATOR, method.clone(), path, body);
        let unknown = queue_token(&self.app, ME, UNKNOWN.as_u128(), None);
        match (method.as_str(), path) {
            (_, "/" | "/api/docs" | "/api/openapi.json" | "/health/live" | "/metrics") => vec![(get(path), Answered)],
            (_, "/api/docs/{file:.*}") => vec![(get("/api/docs/index.html"), Answered)],
            (_, "/health/ready") => vec![(get(path), Refused)],
            ("POST", "/api/v1/dev/users") => vec![(self.as_user(ME, Method::POST, path, json!({ "name": "Ann" })), Answered)],
            ("GET", "/api/v1/concerts") => vec![(get(path), Answered)],
            ("GET", "/api/v1/concerts/{id}") => vec![(get(&of_mine), Answered), (get(&elsewhere), Refused)],
            ("GET", "/api/v1/concerts/{id}/draw" | "/api/v1/concerts/{id}/draw/entries") => vec![(get(&elsewhere), Refused)],
            ("GET", "/api/v1/concerts/{id}/dates" | "/api/v1/dates/{id}/seats") => {
                vec![(get(&of_mine), Refused), (get(&elsewhere), Refused)]
            }
            ("POST", "/api/v1/concerts/{id}/queue") => {
                let join = |path: &str| self.as_user(OPERATOR, Method::POST, path, Value::Null);
                vec![(join(&of_mine), Refused), (join(&elsewhere), Refused)]
            }
            ("GET", "/api/v1/queue") => vec![(get(path), Answered), (self.with_token(path, unknown), Refused)],
            ("GET", "/api/v1/queue/stream") => vec![(self.with_token(path, unknown), Refused)],
            ("GET", "/api/v1/queue/socket") => {
                let request =
                    self.with_token(path, unknown).insert_header(("Connection", "Upgrade")).insert_header(("Upgrade", "websocket"));
                let request =
                    request.insert_header(("Sec-WebSocket-Version", "13")).insert_header(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="));
                vec![(request, Refused)]
            }
            ("POST", "/api/v1/queue/extend") => vec![(self.as_user(ME, Method::POST, path, Value::Null), Refused)],
            ("DELETE", "/api/v1/queue" | "/api/v1/reservations/{id}") => {
                vec![(self.as_user(ME, Method::DELETE, &of_mine, Value::Null), Refused)]
            }
            ("POST", "/api/v1/reservations") => {
                let body = |choice: Value| json!({ "date_id": self.date, "seats": choice.get("seats"), "best": choice.get("best") });
                let (seats, best) = (body(json!({ "seats": [9] })), body(json!({ "best": { "count": 2 } })));
                vec![(self.keyed(ME, path, seats), Refused), (self.keyed(ME, path, best), Refused)]
            }
            ("POST", "/api/v1/reservations/{id}/extend") | ("POST", "/api/v1/payments/{id}/refund") => {
                vec![(self.keyed(ME, &of_mine, Value::Null), Refused)]
            }
            ("POST", "/api/v1/payments") => vec![(self.keyed(ME, path, json!({ "reservation_id": self.held })), Refused)],
            ("GET", "/api/v1/commands/{command_id}") => vec![(get(&self.accepted()), Refused)],
            (
                "GET",
                "/api/v1/reservations"
                | "/api/v1/reservations/{id}"
                | "/api/v1/payments"
                | "/api/v1/payments/{id}"
                | "/api/v1/wallet"
                | "/api/v1/wallet/entries"
                | "/api/v1/rewards",
            ) => vec![(get(&of_mine), Refused)],
            ("POST", "/api/v1/wallet/charges" | "/api/v1/wallet/uses") => vec![(self.keyed(ME, path, json!({ "amount": 1 })), Refused)],
            ("POST", "/api/v1/admin/users/{id}/wallet/charges") => vec![(self.keyed(OPERATOR, &of_mine, json!({ "amount": 1 })), Refused)],
            ("POST", "/api/v1/admin/concerts") => {
                self.fresh += 1;
                vec![(self.as_user(OPERATOR, Method::POST, path, self.document(&format!("later-{}", self.fresh))), Refused)]
            }
            ("GET", "/api/v1/admin/concerts/{id}/admission" | "/api/v1/admin/concerts/{id}/stats") => {
                vec![(as_operator(method, &of_mine, Value::Null), Refused), (as_operator(method, &elsewhere, Value::Null), Refused)]
            }
            ("PATCH", "/api/v1/admin/concerts/{id}/admission") => {
                vec![(as_operator(method, &of_mine, json!({ "max_active": 7 })), Refused)]
            }
            ("GET", "/api/v1/admin/tickets/{code}") => {
                vec![(as_operator(method, &format!("/api/v1/admin/tickets/{}", self.ticket), Value::Null), Refused)]
            }
            _ => panic!("add the requests to {method} {path}, and how they are answered while all ports hang"),
        }
    }

    fn with_token(&self, path: &str, token: (&'static str, String)) -> TestRequest {
        request(Method::GET, path).insert_header(bearer(&self.app, ME, false)).insert_header(token)
    }

    /// The answer, within the bound.
    async fn in_time(&self, what: &str, request: TestRequest) -> Answer {
        let (bound, began) = (self.app.settings.strategy.wait() + LATER, Instant::now());
        let answer = tokio::time::timeout(bound * 10, send(&self.app, request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what} with {} is never answered", self.strategy));
        assert!(began.elapsed() <= bound, "{what} with {}: {} after {:?}", self.strategy, answer.status, began.elapsed());
        answer
    }
}

#[actix_web::test]
async fn every_route_is_answered_in_time_while_all_ports_hang() {
    tokio::time::pause();
    for strategy in ["combining", "pessimistic", "optimistic", "memory"] {
        let mut shop = Shop::open(strategy).await;
        for route in routes::table() {
            let what = format!("{} {}", route.method, route.path);
            for (request, expected) in shop.requests(&route.method, route.path) {
                shop.gate.hang(ALL);
                let answer = shop.in_time(&what, request).await;
                match expected {
                    While::Answered => assert!(answer.status < 400, "{what}: {} {}", answer.status, answer.body),
                    While::Refused => {
                        assert_eq!(answer.status, 503, "{what} {}", answer.body);
                        assert!(answer.body["code"].is_null() || answer.body["code"] == "store_unavailable", "{what} {}", answer.body);
                    }
                }
                shop.gate.hang(NONE);
            }
        }
    }
}

/// Because the other ports answer, a request gets beyond the first port that it needs.
#[actix_web::test]
async fn every_route_is_answered_in_time_while_any_one_port_hangs() {
    use Port::*;
    tokio::time::pause();
    for port in [Ledger, Queries, Catalog, Upkeep, Outbox, Audit, Secrets, Mirror, RoomLog] {
        let mut shop = Shop::open("combining").await;
        for route in routes::table() {
            let what = format!("{} {} without {port:?}", route.method, route.path);
            for (request, _) in shop.requests(&route.method, route.path) {
                shop.gate.hang(port as u8);
                let answer = shop.in_time(&what, request).await;
                // A stream finds no connection to detach.
                assert!(answer.status != 500 || route.path.contains("/queue/s"), "{what}: {}", answer.body);
                shop.gate.hang(NONE);
            }
        }
    }
}

/// The import continues, and the same document finds it.
#[actix_web::test]
async fn an_import_that_outlasts_its_request_goes_on() {
    tokio::time::pause();
    let shop = Shop::open("combining").await;
    let document = shop.document("later");
    let import = || shop.as_user(OPERATOR, Method::POST, "/api/v1/admin/concerts", document.clone());
    shop.gate.hang(Port::Catalog as u8);
    assert_eq!(shop.in_time("an import", import()).await.problem(), (503, "store_unavailable"));
    shop.gate.hang(NONE);
    let shown = async {
        while send(&shop.app, request(Method::GET, "/api/v1/concerts")).await.body["items"].as_array().map(Vec::len) != Some(3) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shown).await.expect("the import is shown");
    assert_eq!(send(&shop.app, import()).await.status, 200, "the concert exists already");
}

/// A search does not get the whole time again: earlier steps have used a part.
#[actix_web::test]
async fn a_search_for_seats_uses_the_remaining_time_of_its_request() {
    tokio::time::pause();
    let mut shop = Shop::open("combining").await;
    let wait = shop.app.settings.strategy.wait();
    // All free seats are offered to another buyer.
    let preference = SeatPreference { count: 48, grade: None, adjacent: false };
    let app = shop.app.clone();
    let mut other = app.seats.search(DateId(shop.date.parse().unwrap()), preference, Instant::now() + wait * 10);
    let offered = other.next().await.unwrap().expect("the seats are free");
    let wanted = json!({ "date_id": shop.date, "best": { "count": 1 } });
    let hold = shop.keyed(ME, "/api/v1/reservations", wanted);
    shop.gate.hang(Port::RoomLog as u8);
    let began = Instant::now();
    let slow = async {
        sleep(wait / 2).await;
        shop.gate.hang(NONE);
    };
    let (answer, ()) = tokio::join!(send(&shop.app, hold), slow);
    assert_eq!(answer.problem(), (503, "overloaded"), "after {:?}", began.elapsed());
    assert!(began.elapsed() < wait + Duration::from_millis(100), "{:?}", began.elapsed());
    drop(offered);
}
