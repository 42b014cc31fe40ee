//! Events of a chaotic run: whoever listens knows what the ledger knows, though the broker and an instance were killed
//! while everybody held, paid and gave back.

use super::report::{Report, Sale, Taken, Wallet};
use super::{Course, Doors, Log, OwnBroker, PAUSE, reading, through_each_log};
use boxoffice_domain::{ReservationChange, ReservationStatus, SeatState, UserId};
use boxoffice_tests::{Answer, Person, Process, Server, Setup, at_once, seats};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const VISITORS: usize = 20;
/// By each visitor at least, and more until the trouble is over.
const ROUNDS: usize = 10;
/// More than all visitors may buy.
const SEATS: u32 = 100;
/// How many answers there are before each trouble.
const BEFORE: usize = 250;
/// How long the shop may take to come to rest: what a dead instance had claimed is somebody else's only after a while.
const REST_MAX: Duration = Duration::from_secs(120);

/// Somebody who holds seats that others want, too: pays, refunds, releases, or lets them go by themselves.
struct Visitor {
    person: Person,
    who: usize,
    course: Arc<Course>,
}

impl Visitor {
    /// At one instance, then at the other, until there is an outcome.
    async fn post(&self, what: &str, round: usize, path: &str, body: Value) -> Answer {
        let key = format!("{what}-{round}");
        self.course.outcome(&self.person, self.who + round, |person| person.writing(path, &key, &body)).await
    }

    /// At the instance that never dies, until the turn has come: anew, when the room has only now learned of a payment.
    async fn enter(&mut self, concert: &str) {
        let deadline = Instant::now() + REST_MAX;
        loop {
            self.person.join(concert).await;
            let told = self.person.status().await;
            if told.text("status") == "active" {
                return;
            }
            assert!(Instant::now() < deadline, "the turn never came: {told:?}");
            sleep(PAUSE).await;
        }
    }

    async fn visit(mut self, concert: String, date: String) {
        for round in 0.. {
            if round >= ROUNDS && !self.course.goes_on() {
                return;
            }
            self.enter(&concert).await;
            self.post("charge", round, "/wallet/charges", json!({ "amount": 3_000 })).await.expect(201);
            self.post("use", round, "/wallet/uses", json!({ "amount": 10 })).await.expect(201);
            let first = ((self.who * 7 + round * 13) % (SEATS as usize - 1) + 1) as u32;
            let wanted: Vec<u32> = (first..=first + (round % 2) as u32).collect();
            let held = self.post("hold", round, "/reservations", json!({ "date_id": date, "seats": wanted })).await;
            match (held.status, held.code()) {
                (201, _) => self.decide(round, held.text("id")).await,
                (409, "seat_unavailable") | (422, "seat_limit_exceeded") => {}
                // The turn was over, and the room learned of the payment only now.
                (403, "queue_token_expired" | "queue_waiting") => {}
                _ => panic!("{held:?}"),
            }
        }
    }

    /// What becomes of a hold; it may have ended meanwhile.
    async fn decide(&self, round: usize, held: String) {
        match (self.who + round) % 4 {
            0 => {}
            1 => {
                let path = format!("/reservations/{held}");
                let released = self.course.outcome(&self.person, self.who, |person| person.request(Method::DELETE, &path)).await;
                assert!(released.status == 204 || released.code() == "hold_expired", "{released:?}");
            }
            turn => {
                let points = Some(self.person.get("/rewards").await.number("points").min(20)).filter(|points| *points > 0);
                let paid = self.post("pay", round, "/payments", json!({ "reservation_id": held, "points": points })).await;
                if paid.code() == "hold_expired" {
                    return;
                }
                let payment = paid.expect(201).text("id");
                if turn == 2 {
                    self.post("refund", round, &format!("/payments/{payment}/refund"), json!(null)).await.expect(200);
                }
            }
        }
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + REST_MAX;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never came: {what}");
        sleep(PAUSE).await;
    }
}

/// Until no hold is left and everything is told.
async fn rest(server: &Server, date: Uuid) {
    let stores = &server.running.stores;
    until("every hold has ended", async || {
        let seats = stores.queries.seats(date.into()).await.expect("seats");
        seats.iter().all(|row| !matches!(row.seat.state, SeatState::Held { .. }))
            && stores.audit.audit(4).await.expect("the audit runs").overdue_holds == 0
    })
    .await;
    until("everything is told", async || stores.outbox.backlog().await.expect("a count").count == 0).await;
}

async fn events(log: Log, server: &Server) -> Vec<Value> {
    let settings = &server.running.settings;
    match log {
        Log::Kafka => reading::kafka_events(&settings.kafka.brokers, &settings.kafka.events_topic).await,
        Log::RabbitMq => {
            // Everything else is told: what comes now is the last.
            let last = server.person().await;
            let entry = last.post("/wallet/charges", "last", json!({ "amount": 1 })).await.expect(201).text("id");
            let (url, stream) = (settings.rabbitmq.url.expose(), &settings.rabbitmq.events_exchange);
            reading::rabbitmq_events(url, stream, |event| event["data"]["entry"] == entry.as_str()).await
        }
    }
}

/// What the ledger holds is what was told.
async fn compare(server: &Server, date: Uuid, people: &[UserId], report: &Report) {
    let queries = &server.running.stores.queries;
    let rows = queries.seats(date.into()).await.expect("seats");
    let taken = |state: SeatState| match state {
        SeatState::Available => None,
        SeatState::Held { reservation, .. } => Some(Taken::Held(reservation)),
        SeatState::Sold { reservation } => Some(Taken::Sold(reservation)),
    };
    let seats: BTreeMap<_, _> =
        rows.iter().filter_map(|row| Some(((row.seat.key.date, row.seat.key.number), taken(row.seat.state)?))).collect();
    assert_eq!(report.seats, seats);
    let (mut reservations, mut payments) = (BTreeMap::new(), BTreeMap::new());
    for &user in people {
        let wallet = queries.wallet(user).await.expect("a wallet");
        let told = report.wallets.get(&user).copied().unwrap_or_default();
        assert_eq!(told, Wallet { balance: wallet.balance, points: wallet.points }, "{user}");
        let page = queries.reservations(user, None, 1_000).await.expect("reservations");
        assert!(!page.more);
        reservations.extend(page.items.into_iter().map(|reservation| (reservation.id, change_of(reservation.status))));
        let page = queries.payments(user, None, 1_000).await.expect("payments");
        let sale = |row: boxoffice_ports::PaymentRow| {
            let refunded = row.payment.refund.as_ref().map(|refund| refund.amount);
            (row.payment.id, Sale { amount: row.payment.amount, refunded })
        };
        payments.extend(page.items.into_iter().map(sale));
    }
    assert_eq!(report.reservations, reservations);
    assert_eq!(report.payments, payments);
    let kinds: std::collections::HashSet<_> = reservations.values().collect();
    assert_eq!(kinds.len(), 4, "each end of a reservation came about: {kinds:?}");
}

fn change_of(status: ReservationStatus) -> ReservationChange {
    match status {
        ReservationStatus::Held => ReservationChange::Held,
        ReservationStatus::Confirmed => ReservationChange::Confirmed,
        ReservationStatus::Released => ReservationChange::Released,
        ReservationStatus::Expired => ReservationChange::Expired,
        ReservationStatus::Cancelled => ReservationChange::Cancelled,
    }
}

pub(super) async fn whoever_listens_knows_what_the_ledger_knows(log: Log) {
    let mut broker = OwnBroker::start(log).await;
    let setup = broker.serve(Setup::default().on_postgres().await);
    let setup = setup.with(&format!("events.sink={}", log.name())).with("admission.max_active=1000").with("admission.stock_linked=false");
    // Holds end by themselves within the run, and points can be spent.
    let setup = setup.with("hold.ttl_s=2").with("hold.sweep_ms=200").with("reward.percent=5");
    let folder = TempDir::new().unwrap();
    let start = async || {
        let set: Vec<_> = setup.settings().iter().map(String::as_str).collect();
        Process::start(&folder.path().join("unused.db"), &set).await.expect("the instance starts")
    };
    let server = setup.clone().start().await;
    let killed = start().await;
    let (concert, day) = server.one_date(seats(SEATS, 1_000)).await;
    let mut people = Vec::new();
    for _ in 0..VISITORS {
        people.push(server.person().await);
    }
    let users: Vec<UserId> = people.iter().map(|person| person.id.parse::<Uuid>().unwrap().into()).collect();
    let shows = async |base: &str| {
        let (anybody, path) = (people[0].clone().at(base), format!("/concerts/{concert}"));
        until("the concert shows", async || anybody.get(&path).await.status == 200).await;
    };
    shows(&killed.base).await;
    let course = Arc::new(Course::new(Doors::new([server.base.clone(), killed.base.clone()])));
    let visitors = people.iter().cloned().enumerate().map(|(who, person)| Visitor { person, who, course: course.clone() });
    let visits: Vec<_> = visitors.map(|visitor| visitor.visit(concert.clone(), day.clone())).collect();
    let trouble = async {
        course.answers(BEFORE).await;
        broker.kill_and_restart();
        course.answers(BEFORE).await;
        killed.kill().await.expect("killed");
        course.answers(BEFORE).await;
        let again = start().await;
        shows(&again.base).await;
        course.doors.moved(1, &again.base);
        course.answers(BEFORE).await;
        course.is_over();
        again
    };
    let (_, again) = tokio::join!(at_once(visits), trouble);
    let date = day.parse().unwrap();
    rest(&server, date).await;
    let events = events(log, &server).await;
    let report = Report::of(&events);
    println!("{}: {} events, {} of them told again", log.name(), report.events(), report.repeated);
    compare(&server, date, &users, &report).await;
    server.audit().await;
    assert!(again.terminate().await.unwrap().success());
    server.running.stop().await;
}

through_each_log! {
    whoever_listens_knows_what_the_ledger_knows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_the_log_is_an_event() {
    let folder = TempDir::new().unwrap();
    let mut server = Process::start_telling_events(&folder.path().join("b.db"), &[]).await.unwrap();
    let owner = server.person(false).await;
    let mut entries = Vec::new();
    for n in 0..5 {
        let charge = owner.writing("/wallet/charges", &format!("k{n}"), &json!({ "amount": 10 }));
        entries.push(Answer::to(charge).await.expect(201).text("id"));
    }
    let mut events = Vec::new();
    for _ in &entries {
        let line = tokio::time::timeout(REST_MAX, server.line()).await.expect("an event").unwrap();
        events.push(serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
    }
    let report = Report::of(&events);
    assert_eq!((report.events(), report.repeated), (5, 0));
    assert_eq!(events.iter().map(|event| event["data"]["entry"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(), entries);
    assert_eq!(report.wallets.values().map(|wallet| wallet.balance).collect::<Vec<_>>(), [50]);
    assert!(server.terminate().await.unwrap().success());
}
