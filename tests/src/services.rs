//! The PostgreSQL cluster, the Redis nodes and the brokers of this test process, each started when it is first asked for.

use std::sync::OnceLock;

use boxoffice_services::{Kafka, Postgres, RabbitMq, Redis};

/// How many independent nodes Redlock is tested with.
const NODES: usize = 5;
/// A database with the current schema, copied for each test.
const TEMPLATE: &str = "boxoffice";

/// The URL of a fresh database with the current schema.
///
/// # Panics
/// When PostgreSQL cannot be started here.
pub async fn database() -> String {
    let made = tokio::task::spawn_blocking(|| {
        let cluster = Postgres::shared();
        let migrate = |url: &str| drop(boxoffice_adapters::postgres::migrate(url).expect("the migrations run"));
        cluster.template(TEMPLATE, migrate).and_then(|()| cluster.database_like(TEMPLATE))
    });
    made.await.expect("no panic").expect("a database")
}

/// The URL of a Redis node that every test uses: keys are random enough to keep them apart.
///
/// # Panics
/// When Redis cannot be started here.
pub async fn redis() -> String {
    tokio::task::spawn_blocking(|| Redis::shared().url()).await.expect("Redis starts")
}

/// Where the Kafka is that every test uses: each with topics of its own.
///
/// # Panics
/// When Kafka cannot be started here.
pub async fn kafka() -> String {
    tokio::task::spawn_blocking(|| Kafka::shared().brokers()).await.expect("Kafka starts")
}

/// The URL of the RabbitMQ that every test uses: each with queues of its own.
///
/// # Panics
/// When RabbitMQ cannot be started here.
pub async fn rabbitmq() -> String {
    tokio::task::spawn_blocking(|| RabbitMq::shared().url()).await.expect("RabbitMQ starts")
}

/// The URLs of the nodes of a Redlock.
///
/// # Panics
/// When Redis cannot be started here.
pub async fn redlock_nodes() -> Vec<String> {
    static NODES_OF_ALL: OnceLock<Vec<Redis>> = OnceLock::new();
    let start = || (0..NODES).map(|_| Redis::start().expect("Redis starts")).collect();
    let nodes = tokio::task::spawn_blocking(move || NODES_OF_ALL.get_or_init(start)).await.expect("Redis starts");
    nodes.iter().map(Redis::url).collect()
}
