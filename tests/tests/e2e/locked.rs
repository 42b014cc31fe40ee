//! A session outside of the server keeps a row of PostgreSQL locked: only callers that need the row wait.

use crate::brokers::Log;
use boxoffice_services::Postgres;
use boxoffice_tests::{Answer, OpenTransaction, Person, Server, Setup, at_once, eventually, seats};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// The promised time of a charge of another wallet, for 99 of 100.
const PROMISED: Duration = Duration::from_millis(250);
const OTHERS: usize = 50;
const ROUNDS: usize = 30;

/// Keeps a row locked from outside of the server, as an operator's open transaction does, until it is dropped.
async fn lock(server: &Server, row: String) -> OpenTransaction {
    let url = server.running.settings.store.postgres_url.expose().to_owned();
    spawn_blocking(move || OpenTransaction::begin(&url, &format!("SELECT FROM {row} FOR UPDATE"))).await.unwrap()
}

/// [`ROUNDS`] charges by each of `people`, and how long each took.
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
        // Through a log the first charge also waits for the readers to start.
        eventually("an account", async || {
            let answer = person.post("/wallet/charges", "first", json!({ "amount": 1 })).await;
            (answer.status == 201).then_some(())
        })
        .await;
    }
    let locked = lock(&server, format!("accounts WHERE user_id = '{}'", owner.id)).await;
    let kept: Vec<_> = (0..8)
        .map(|n| {
            let owner = owner.clone();
            tokio::spawn(async move { owner.post("/wallet/charges", &format!("kept-{n}"), json!({ "amount": 1 })).await })
        })
        .collect();
    let answers = charges(&people).await;
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
    drop(locked);
    // The same keys again, when the row is free: each has one effect.
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
    Server::audit_and_stop(vec![server]).await;
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

/// The sweep ends many holds in one batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_seat_keeps_no_other_hold_from_being_swept() {
    let server = Setup::default().on_postgres().await.with("hold.sweep_ms=100").start().await;
    let (concert, date) = server.one_date(seats(20, 1_000)).await;
    let people = server.people_with_a_turn(10, &concert).await;
    for (seat, person) in (1..).zip(&people) {
        person.hold("hold", &date, &[seat]).await.expect(201);
    }
    let locked = lock(&server, format!("seats WHERE date_id = '{date}' AND number = 1")).await;
    server.advance(600);
    let url = server.running.settings.store.postgres_url.expose().to_owned();
    let held = async || {
        let url = url.clone();
        let count = "SELECT count(*) FROM reservations WHERE status = 'held'";
        let count = spawn_blocking(move || Postgres::shared().sql_in(&url, count).expect("asked")).await.unwrap();
        count.trim().parse::<u32>().expect("a count")
    };
    eventually("the others are swept", async || (held().await == 1).then_some(())).await;
    drop(locked);
    eventually("all are swept", async || (held().await == 0).then_some(())).await;
    Server::audit_and_stop(vec![server]).await;
}
