//! The PostgreSQL cluster, the Redis nodes and the brokers that the tests of this process share, each started when it is
//! first needed. Tests that share one stay apart: by their own database, topics and queues, and by random keys.

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

/// The URL of the Redis node that tests share; their keys hold random ids.
///
/// # Panics
/// When Redis cannot be started here.
pub async fn redis() -> String {
    tokio::task::spawn_blocking(|| Redis::shared().url()).await.expect("Redis starts")
}

/// The address of the Kafka that tests share, each with topics of its own.
///
/// # Panics
/// When Kafka cannot be started here.
pub async fn kafka() -> String {
    tokio::task::spawn_blocking(|| Kafka::shared().brokers()).await.expect("Kafka starts")
}

/// The URL of the RabbitMQ that tests share, each with queues of its own.
///
/// # Panics
/// When RabbitMQ cannot be started here.
pub async fn rabbitmq() -> String {
    tokio::task::spawn_blocking(|| RabbitMq::shared().url()).await.expect("RabbitMQ starts")
}

/// The URLs of the Redlock nodes that tests share.
///
/// # Panics
/// When Redis cannot be started here.
pub async fn redlock_nodes() -> Vec<String> {
    static NODES_OF_ALL: OnceLock<Vec<Redis>> = OnceLock::new();
    let nodes = tokio::task::spawn_blocking(|| NODES_OF_ALL.get_or_init(|| redis_nodes(NODES))).await.expect("Redis starts");
    nodes.iter().map(Redis::url).collect()
}

/// `count` Redis nodes of the caller's own, started side by side. Blocks.
///
/// # Panics
/// When Redis cannot be started here.
pub fn redis_nodes(count: usize) -> Vec<Redis> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| Redis::start().expect("Redis starts"))).collect();
        starting.into_iter().map(|node| node.join().expect("Redis starts")).collect()
    })
}

/// `redis.redlock_nodes` set to `nodes`.
pub fn redlock_setting(nodes: &[String]) -> String {
    let quoted: Vec<_> = nodes.iter().map(|url| format!("{url:?}")).collect();
    format!("redis.redlock_nodes=[{}]", quoted.join(", "))
}
