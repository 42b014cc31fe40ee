//! A row of PostgreSQL that a session outside of the server keeps locked: its own callers wait, and no one else.

use crate::brokers::Log;
use boxoffice_services::Postgres;
use boxoffice_tests::{Answer, Person, Server, Setup, at_once, eventually, seats};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the row stays locked.
const LOCKED: Duration = Duration::from_secs(8);
/// What a charge of another wallet is promised for 99 of 100.
const PROMISED: Duration = Duration::from_millis(250);
const OTHERS: usize = 50;
const ROUNDS: usize = 30;

/// `psql` with a transaction that keeps a row, as a person leaves it open.
struct Session(tokio::task::JoinHandle<()>);

impl Session {
    async fn keeping(server: &Server, row: String) -> Self {
        let url = server.running.settings.store.postgres_url.expose().to_owned();
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        let kept = format!("BEGIN; SELECT FROM {row} FOR UPDATE; SELECT pg_sleep({}); COMMIT", LOCKED.as_secs());
        let session = Self(tokio::task::spawn_blocking(move || drop(Postgres::shared().sql_in(&url, &kept).expect("kept"))));
        let sleeps = format!("SELECT 1 FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'");
        eventually("a locked row", async || {
            let sleeps = sleeps.clone();
            let found = tokio::task::spawn_blocking(move || Postgres::shared().sql(&sleeps).expect("asked")).await.unwrap();
            (!found.trim().is_empty()).then_some(())
        })
        .await;
        session
    }

    fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

/// Rounds of charges by each of `people`, and how long each took.
async fn charges(people: &[Person]) -> Vec<(Answer, Duration)> {
    let callers = people.iter().cloned().map(|person| async move {
        let mut answers = Vec::with_capacity(ROUNDS);
        for n in 0..ROUNDS {
            let begun = Instant::now();
            let answer = person.post("/wallet/charges", &format!("round-{n}"), json!({ "amount": 1 })).await;
            answers.push((answer, begun.elapsed()));
        }
        answers
    });
    at_once(callers).await.into_iter().flatten().collect()
}

async fn a_locked_wallet_delays_only_its_own_callers(setup: Setup, what: &str) {
    let server = setup.start().await;
    let owner = server.person().await;
    let mut people = Vec::with_capacity(OTHERS);
    for _ in 0..OTHERS {
        people.push(server.person().await);
    }
    for person in people.iter().chain([&owner]) {
        // Through a log the first one waits for its readers, too.
        eventually("an account", async || {
            let answer = person.post("/wallet/charges", "first", json!({ "amount": 1 })).await;
            (answer.status == 201).then_some(())
        })
        .await;
    }
    let session = Session::keeping(&server, format!("accounts WHERE user_id = '{}'", owner.id)).await;
    let kept: Vec<_> = (0..8)
        .map(|n| {
            let owner = owner.clone();
            tokio::spawn(async move { owner.post("/wallet/charges", &format!("kept-{n}"), json!({ "amount": 1 })).await })
        })
        .collect();
    let answers = charges(&people).await;
    assert!(!session.is_over(), "the row was locked all the time");
    let refused = answers.iter().filter(|(answer, _)| answer.status != 201).count();
    let mut took: Vec<_> = answers.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let part = |parts: usize| took[(took.len() - 1) * parts / 100];
    println!(
        "{what}: {} charges beside a locked row: {refused} refused, p50 {:?}, p99 {:?}, longest {:?}",
        took.len(),
        part(50),
        part(99),
        part(100)
    );
    assert_eq!(refused, 0);
    assert!(part(99) < 10 * PROMISED, "p99 {:?}", part(99));
    for caller in kept {
        let answer = caller.await.unwrap();
        assert!([503, 202, 409].contains(&answer.status), "{answer:?}");
    }
    // The same keys again, once the row is free: each has one effect.
    for n in 0..8 {
        eventually("the row", async || {
            let answer = owner.post("/wallet/charges", &format!("kept-{n}"), json!({ "amount": 1 })).await;
            (answer.status == 201).then_some(())
        })
        .await;
    }
    assert_eq!(owner.balance().await, 9);
    for person in &people {
        assert_eq!(person.balance().await, 1 + ROUNDS as i64);
    }
    server.audit().await;
    server.running.stop().await;
}

async fn with(strategy: &str) {
    let setup = Setup::default().on_postgres().await.with(&format!("strategy.wallet={strategy}"));
    Box::pin(a_locked_wallet_delays_only_its_own_callers(setup, strategy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_with_combining() {
    with("combining").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_with_pessimistic() {
    with("pessimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_with_optimistic() {
    with("optimistic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_under_a_lock() {
    with("spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_through_kafka() {
    let setup = Log::Kafka.setup().await.with("kafka.partitions=1");
    Box::pin(a_locked_wallet_delays_only_its_own_callers(setup, "kafka")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_wallet_delays_only_its_own_callers_through_rabbitmq() {
    let setup = Log::RabbitMq.setup().await.with("rabbitmq.shards=1");
    Box::pin(a_locked_wallet_delays_only_its_own_callers(setup, "rabbitmq")).await;
}

/// The sweep is the system's own, and has many holds in one batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_seat_keeps_no_other_hold_from_being_swept() {
    let server = Setup::default().on_postgres().await.with("hold.sweep_ms=100").start().await;
    let (concert, date) = server.one_date(seats(20, 1_000)).await;
    let people = server.people_with_a_turn(10, &concert).await;
    for (seat, person) in (1..).zip(&people) {
        person.hold("hold", &date, &[seat]).await.expect(201);
    }
    let session = Session::keeping(&server, format!("seats WHERE date_id = '{date}' AND number = 1")).await;
    server.advance(600);
    let url = server.running.settings.store.postgres_url.expose().to_owned();
    let held = async || {
        let url = url.clone();
        let count = "SELECT count(*) FROM reservations WHERE status = 'held'";
        let count = tokio::task::spawn_blocking(move || Postgres::shared().sql_in(&url, count).expect("asked")).await.unwrap();
        count.trim().parse::<u32>().expect("a count")
    };
    eventually("the others are swept", async || (held().await == 1).then_some(())).await;
    assert!(!session.is_over());
    eventually("all are swept", async || (held().await == 0).then_some(())).await;
    server.audit().await;
    server.running.stop().await;
}
