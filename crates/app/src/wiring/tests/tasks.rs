//! Every long-lived task of a server is made to panic, and the server goes on.

use super::*;
use std::time::{Duration, Instant};

/// How long readiness may take to notice.
const BOUND: Duration = Duration::from_secs(5);

fn names(running: &Running) -> Vec<String> {
    running.tasks.figures().into_iter().map(|task| task.name).collect()
}

/// Makes all tasks but those `spared` panic at the same time, and waits until each runs again.
async fn strike(running: &Running, spared: impl Fn(&str) -> bool) {
    let before = running.tasks.figures();
    let struck: Vec<_> = before.into_iter().filter(|task| !spared(&task.name)).collect();
    for task in &struck {
        assert!(running.tasks.strike(&task.name) > 0, "{}", task.name);
    }
    let begun = Instant::now();
    loop {
        let figures = running.tasks.figures();
        let is_back = |name: &str, restarts| figures.iter().any(|task| task.name == name && task.up && task.restarts > restarts);
        let missing: Vec<_> = struck.iter().filter(|task| !is_back(&task.name, task.restarts)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(begun.elapsed() < 10 * BOUND, "these did not start again: {missing:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Strikes every task but the relay, and then the relay, whose shards end with it.
async fn strike_everything(running: &Running) {
    strike(running, |name| name == "relay").await;
    strike(running, |name| name != "relay").await;
    assert_eq!(running.tasks.failing(), [], "each has failed once");
    // Tasks that have just started connect again.
    let begun = Instant::now();
    while get(running.address, "/health/ready").await.unwrap() != "HTTP/1.1 200 OK" {
        assert!(begun.elapsed() < 10 * BOUND, "{}", get_body(running.address, "/health/ready").await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn expect(running: &Running, wanted: &[&str]) {
    let names = names(running);
    for wanted in wanted {
        assert!(names.iter().any(|name| name == wanted), "{wanted} in {names:?}");
    }
}

/// The tasks of every server.
const ALWAYS: [&str; 13] =
    ["admission", "catalogue", "fares", "gauge", "prune", "push", "relay", "relay.0", "relay.15", "relay.claim", "sweep", "time", "lane.0"];

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_of_the_embedded_default_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("store.sqlite_path={}", folder.path().join("shop.db").display());
    let running = started(&[&path, "demo.season=true"]).await.unwrap();
    expect(&running, &ALWAYS);
    expect(&running, &["sqlite.writer"]);
    strike_everything(&running).await;
    assert_eq!(running.stores.queries.catalog().await.unwrap().len(), 3);
    running.stop().await;
}

#[cfg(all(feature = "postgres", feature = "redis", feature = "kafka", feature = "rabbitmq"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_of_an_instance_among_many_is_started_again() {
    use boxoffice_services::{Kafka, Postgres, RabbitMq, Redis};
    let database = format!("store.postgres_url={}", Postgres::shared().database().unwrap());
    let redis = Redis::shared().url();
    // Three databases of one node: this test does not try the lock.
    let nodes = [1, 2, 3].map(|at| format!("{redis}/{at}"));
    let (urls, nodes) = (format!("redis.urls=[{redis:?}]"), format!("redis.redlock_nodes={nodes:?}"));
    let kafka = format!("kafka.brokers={:?}", Kafka::shared().brokers());
    let rabbitmq = format!("rabbitmq.url={:?}", RabbitMq::shared().url());
    let set = |more: &[&str]| {
        let common = ["store.backend=postgres", &database, "queue.backend=redis", &urls, &nodes, &kafka, &rabbitmq];
        [&common, more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let own = uuid::Uuid::from_u128(u128::from(std::process::id()));
    let (topic, queue) = (format!("kafka.commands_topic=tasks-{own}"), format!("rabbitmq.commands_queue=tasks-{own}"));
    for (more, wanted) in [
        (
            ["strategy.seat=combining", "strategy.wallet=pubsub", "strategy.payment=redlock", "events.sink=rabbitmq", &topic],
            &["redis.releases", "redlock.0", "siblings", "seats.read", "seats.listen", "rabbitmq.events"][..],
        ),
        (
            ["strategy.seat=kafka", "strategy.wallet=rabbitmq", "strategy.payment=combining", &queue, &topic],
            &[
                "kafka.append.0",
                "rabbitmq.append.0",
                "rabbitmq.commands",
                "rabbitmq.readers",
                "rabbitmq.publisher.3",
                "log.answers",
                "log.look",
                "log.others",
                "log.own",
                "log.readers",
            ][..],
        ),
    ] {
        let set = set(&more);
        let running = started(&set.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
        expect(&running, &ALWAYS);
        expect(&running, wanted);
        strike_everything(&running).await;
        running.stop().await;
    }
}
