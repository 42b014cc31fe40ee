//! Several servers on one PostgreSQL, with and without Redis.

use super::*;
use boxoffice_domain::{Actor, Command, CommandId, DateId, Decision, Fingerprint, FreshIds, Outcome, Reply, Request, UserId};
use boxoffice_engine::SeatStatus;
use boxoffice_ports::{Ids, Receipt};
use boxoffice_services::{Kafka, Postgres, RabbitMq, Redis};
use std::time::{Duration, Instant};

/// A hall of ten seats that is always on sale.
const HALL: &str = r#"{"key": "hall", "name": "Hall", "venue": "Hall", "dates": [{"key": "day", "starts_at": "2099-01-02T00:00:00Z",
    "booking_opens_at": "2020-01-01T00:00:00Z", "booking_closes_at": "2099-01-01T00:00:00Z",
    "seats": [{"from": 1, "to": 10, "grade": "R", "price": 100}]}]}"#;

fn database() -> String {
    format!("store.postgres_url={}", Postgres::shared().database().unwrap())
}

async fn instance(database: &str, set: &[&str]) -> Running {
    started(&[&["store.backend=postgres", database], set].concat()).await.unwrap()
}

async fn opened(running: &Running) -> DateId {
    let plans = crate::http::document::parse_file(HALL.as_bytes(), 1_000).unwrap();
    running.stores.catalog.import(plans, running.settings.default_admission()).await.unwrap()[0].dates[0].id
}

fn request(user: UserId, command: Command) -> Request {
    let id = SystemIds.fresh();
    Request {
        command_id: CommandId(id),
        actor: Actor::User(user),
        fingerprint: Some(Fingerprint([1; 32])),
        fresh: FreshIds { subject: id, entry: id, points: [id; 2] },
        command,
    }
}

/// A command that goes through a log may be answered with its acceptance; the same command again soon has its outcome.
async fn done(running: &Running, request: Request) -> Outcome {
    for _ in 0..10 {
        match running.executors.seat.execute(request.clone(), running.executors.deadline()).await.unwrap() {
            Receipt::Done(Reply { decision: Decision::Done(outcome), .. }) => return outcome,
            Receipt::Accepted(_) => {}
            other @ Receipt::Done(_) => panic!("{other:?}"),
        }
    }
    panic!("no outcome");
}

/// The time until `running` shows seat 1 as `status`.
async fn shown(running: &Running, date: DateId, status: SeatStatus) -> Duration {
    let since = Instant::now();
    loop {
        if running.seats.date(date).await.unwrap().unwrap().statuses[0] == status {
            return since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(10), "it never shows as {status:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Holds and releases a seat on one of two instances; returns how long the other one took to show each change.
async fn latencies(database: &str, set: &[&str]) -> Vec<Duration> {
    let (one, other) = (instance(database, set).await, instance(database, set).await);
    let date = opened(&one).await;
    shown(&other, date, SeatStatus::Available).await;
    let (user, mut latencies) = (UserId(SystemIds.fresh()), Vec::new());
    for _ in 0..10 {
        let hold = Command::HoldSeats { user, date, count: 1, choices: vec![vec![1]], best: false, last: true };
        let Outcome::Held { reservation, .. } = done(&one, request(user, hold)).await else { panic!("not held") };
        latencies.push(shown(&other, date, SeatStatus::Held).await);
        done(&one, request(user, Command::ReleaseHold { reservation: reservation.id })).await;
        latencies.push(shown(&other, date, SeatStatus::Available).await);
    }
    one.stop().await;
    other.stop().await;
    latencies.sort();
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_another_instance_show_by_reading_again() {
    let latencies = latencies(&database(), &[]).await;
    println!("without fan-out: median {:?}, longest {:?}", latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_an_instance_publishes_show_at_once_at_its_peers() {
    let mut redis = Redis::start().unwrap();
    let urls = format!("redis.urls=[\"{}\"]", redis.url());
    let database = database();
    let set = [urls.as_str()];
    let published = latencies(&database, &set).await;
    println!("with fan-out: median {:?}, longest {:?}", published[published.len() / 2], published[published.len() - 1]);
    // By a read every five seconds alone, twenty commits would take a hundred seconds.
    assert!(published[published.len() / 2] < Duration::from_secs(2), "no message arrived: {published:?}");
    // Redis is not required: while it is away, instances read twice a second, and not every five seconds.
    redis.kill().unwrap();
    let read = latencies(&database, &set).await;
    println!("with a fan-out that is down: median {:?}, longest {:?}", read[read.len() / 2], read[read.len() - 1]);
    assert!(read[read.len() / 2] < Duration::from_secs(3), "the failed fan-out was not noticed: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_start_at_once_migrate_once() {
    let database = database();
    let set = ["store.backend=postgres", database.as_str()];
    assert!(open_existing_stores(&settings(&set)).await.is_err(), "the schema is missing, and a reader creates none");
    let (one, other) = tokio::join!(started(&set), started(&set));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(migrate(&settings(&set)).await.unwrap(), [""; 0]);
    opened(&one).await;
    let beside = open_existing_stores(&settings(&set)).await.unwrap();
    assert_eq!(beside.queries.catalog().await.unwrap().len(), 1);
    assert_eq!(beside.audit.audit(4).await.unwrap().breaches, []);
    one.stop().await;
    other.stop().await;
}

/// Each strategy for all classes: a command, the readiness document, and the counters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_serves_on_postgres() {
    let urls = format!("redis.urls=[\"{}\"]", Redis::shared().url());
    let nodes: Vec<_> = (0..3).map(|_| Redis::start().unwrap()).collect();
    let listed = nodes.iter().map(|node| format!("\"{}\"", node.url())).collect::<Vec<_>>().join(",");
    let nodes_set = format!("redis.redlock_nodes=[{listed}]");
    let database = database();
    let brokers = format!("kafka.brokers={}", Kafka::shared().brokers());
    let rabbitmq = format!("rabbitmq.url={}", RabbitMq::shared().url());
    for name in StrategyName::ALL.map(StrategyName::name) {
        let [seat, wallet, payment] = ["seat", "wallet", "payment"].map(|class| format!("strategy.{class}={name}"));
        let running = instance(&database, &["queue.backend=redis", &urls, &nodes_set, &brokers, &rabbitmq, &seat, &wallet, &payment]).await;
        let date = opened(&running).await;
        let user = UserId(SystemIds.fresh());
        let hold = Command::HoldSeats { user, date, count: 1, choices: vec![vec![1]], best: false, last: true };
        let Outcome::Held { reservation, .. } = done(&running, request(user, hold)).await else { panic!("{name}: not held") };
        done(&running, request(user, Command::ReleaseHold { reservation: reservation.id })).await;
        let ready = get_body(running.address, "/health/ready").await.unwrap();
        assert!(ready.contains(&format!("\"seat\":\"{name}\"")) && ready.contains("\"queue\":\"redis\""), "{ready}");
        let (stats, traffic) = (&running.stats, running.traffic.counts());
        let has_no_lock = ["combining", "pessimistic", "optimistic", "kafka", "rabbitmq"].contains(&name);
        assert_eq!(stats.lock_waits.get() > 0, !has_no_lock, "{name}");
        assert_eq!(traffic.broker_messages > 0, ["kafka", "rabbitmq"].contains(&name), "{name}: {traffic:?}");
        assert!(traffic.statements > 0 && traffic.commits > 0, "{name}: {traffic:?}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_redlock_nodes_that_are_down() {
    let mut nodes: Vec<_> = (0..3).map(|_| Redis::start().unwrap()).collect();
    let listed = nodes.iter().map(|node| format!("\"{}\"", node.url())).collect::<Vec<_>>().join(",");
    let set = ["strategy.wallet=redlock".to_owned(), format!("redis.redlock_nodes=[{listed}]")];
    let running = instance(&database(), &set.each_ref().map(String::as_str)).await;
    assert!(get(running.address, "/health/ready").await.unwrap().contains("200"));
    for (down, status) in [(1, "200"), (2, "503")] {
        nodes[down].kill().unwrap();
        let since = Instant::now();
        let ready = get_body(running.address, "/health/ready").await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(5));
        assert!(ready.contains(nodes[down].url().trim_end_matches('/')) && ready.contains(status), "{ready}");
    }
    running.stop().await;
}
