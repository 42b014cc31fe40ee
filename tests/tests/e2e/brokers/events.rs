//! A listener to events ends up with what the ledger holds, though the broker and an instance are killed while buyers
//! hold, pay and refund.

use super::report::{Report, Sale, Taken, Wallet};
use super::{Bases, Load, Log, OwnBroker, PAUSE, reading, through_each_log};
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
/// The least number of rounds of each visitor; they go on until the killed parts are back.
const ROUNDS: usize = 10;
/// More seats than all visitors may buy.
const SEATS: u32 = 100;
/// How many answers there are before each kill.
const BEFORE: usize = 250;
/// How long the last holds and events may take: the lease of a dead instance must end before another takes over.
const REST_MAX: Duration = Duration::from_secs(120);

/// A buyer of seats that others want, too: pays, refunds, releases, or lets the hold expire.
struct Visitor {
    person: Person,
    number: usize,
    load: Arc<Load>,
}

impl Visitor {
    /// Sends a command to one instance after the other, until there is an outcome.
    async fn post(&self, what: &str, round: usize, path: &str, body: Value) -> Answer {
        let key = format!("{what}-{round}");
        self.load.outcome(&self.person, self.number + round, |person| person.writing(path, &key, &body)).await
    }

    /// Joins at the instance that is not killed, until the turn has come: again, where a payment has just ended the turn.
    async fn enter(&mut self, concert: &str) {
        let deadline = Instant::now() + REST_MAX;
        loop {
            self.person.join(concert).await;
            let answer = self.person.status().await;
            if answer.text("status") == "active" {
                return;
            }
            assert!(Instant::now() < deadline, "timed out waiting for the turn: {answer:?}");
            sleep(PAUSE).await;
        }
    }

    async fn visit(mut self, concert: String, date: String) {
        for round in 0.. {
            if round >= ROUNDS && !self.load.goes_on() {
                return;
            }
            self.enter(&concert).await;
            self.post("charge", round, "/wallet/charges", json!({ "amount": 3_000 })).await.expect(201);
            self.post("use", round, "/wallet/uses", json!({ "amount": 10 })).await.expect(201);
            let first = ((self.number * 7 + round * 13) % (SEATS as usize - 1) + 1) as u32;
            let wanted: Vec<u32> = (first..=first + (round % 2) as u32).collect();
            let held = self.post("hold", round, "/reservations", json!({ "date_id": date, "seats": wanted })).await;
            match (held.status, held.code()) {
                (201, _) => self.decide(round, held.text("id")).await,
                (409, "seat_unavailable") | (422, "seat_limit_exceeded") => {}
                // A payment has just ended the turn.
                (403, "queue_token_expired" | "queue_waiting") => {}
                _ => panic!("{held:?}"),
            }
        }
    }

    /// Pays, releases or leaves a hold, which may have expired meanwhile.
    async fn decide(&self, round: usize, held: String) {
        match (self.number + round) % 4 {
            0 => {}
            1 => {
                let path = format!("/reservations/{held}");
                let released = self.load.outcome(&self.person, self.number, |person| person.request(Method::DELETE, &path)).await;
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

/// Like [`boxoffice_tests::eventually`], with more patience.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + REST_MAX;
    while !condition().await {
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        sleep(PAUSE).await;
    }
}

/// Waits until no hold is left and every event is published.
async fn rest(server: &Server, date: Uuid) {
    let stores = &server.running.stores;
    until("every hold has ended", async || {
        let seats = stores.queries.seats(date.into()).await.expect("seats");
        seats.iter().all(|row| !matches!(row.seat.state, SeatState::Held { .. }))
            && stores.audit.audit(4).await.expect("the audit runs").overdue_holds == 0
    })
    .await;
    until("every event is published", async || stores.outbox.backlog().await.expect("a count").count == 0).await;
}

async fn events(log: Log, server: &Server) -> Vec<Value> {
    let settings = &server.running.settings;
    match log {
        Log::Kafka => reading::kafka_events(&settings.kafka.brokers, &settings.kafka.events_topic).await,
        Log::RabbitMq => {
            // All other events are published: the next one is the last.
            let last = server.person().await;
            let entry = last.post("/wallet/charges", "last", json!({ "amount": 1 })).await.expect(201).text("id");
            let (url, stream) = (settings.rabbitmq.url.expose(), &settings.rabbitmq.events_exchange);
            reading::rabbitmq_events(url, stream, |event| event["data"]["entry"] == entry.as_str()).await
        }
    }
}

/// The report made from events has what the ledger holds.
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
        let reported = report.wallets.get(&user).copied().unwrap_or_default();
        assert_eq!(reported, Wallet { balance: wallet.balance, points: wallet.points }, "{user}");
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
    assert_eq!(kinds.len(), 4, "each end of a reservation occurred: {kinds:?}");
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

/// Each change is an event, in order for each seat, though the broker was away (I7).
pub(super) async fn a_listener_to_events_ends_up_with_what_the_ledger_holds(log: Log) {
    let mut broker = OwnBroker::start(log).await;
    let setup = broker.serve(Setup::default().on_postgres().await);
    let setup = setup.with(&format!("events.sink={}", log.name())).with("admission.max_active=1000").with("admission.stock_linked=false");
    // Holds expire within the run, and points can be spent.
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
    killed.shows(&concert).await;
    let load = Arc::new(Load::new(Bases::new([server.base.clone(), killed.base.clone()])));
    let visitors = people.iter().cloned().enumerate().map(|(number, person)| Visitor { person, number, load: load.clone() });
    let visits: Vec<_> = visitors.map(|visitor| visitor.visit(concert.clone(), day.clone())).collect();
    let killing = async {
        load.answers(BEFORE).await;
        broker.kill_and_restart();
        load.answers(BEFORE).await;
        killed.kill().await.expect("killed");
        load.answers(BEFORE).await;
        let again = start().await;
        again.shows(&concert).await;
        load.bases.set(1, &again.base);
        load.answers(BEFORE).await;
        load.end();
        again
    };
    let (_, again) = tokio::join!(at_once(visits), killing);
    let date = day.parse().unwrap();
    rest(&server, date).await;
    let events = events(log, &server).await;
    let report = Report::of(&events);
    println!("{}: {} events, {} repetitions", log.name(), report.events(), report.repeated);
    compare(&server, date, &users, &report).await;
    assert!(again.terminate().await.unwrap().success());
    Server::audit_and_stop(vec![server]).await;
}

through_each_log! {
    a_listener_to_events_ends_up_with_what_the_ledger_holds
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_the_log_is_an_event() {
    let folder = TempDir::new().unwrap();
    let mut server = Process::start_printing_events(&folder.path().join("b.db"), &[]).await.unwrap();
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
