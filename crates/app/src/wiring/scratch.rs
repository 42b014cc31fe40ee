//! What the strategy lab needs of the services: a database and a command log of its own, and their versions.

use super::error::StartError;
use crate::config::{SecretUrl, Settings, StoreBackend, StrategyName};
#[cfg(feature = "kafka")]
use boxoffice_adapters::kafka;
#[cfg(feature = "postgres")]
use boxoffice_adapters::postgres;
#[cfg(feature = "rabbitmq")]
use boxoffice_adapters::rabbitmq;
#[cfg(feature = "redis")]
use boxoffice_adapters::redis::Redis;
#[cfg(feature = "sqlite")]
use boxoffice_adapters::sqlite;
use boxoffice_ports::Source;

/// The beginning of every such name; a random number follows.
const PREFIX: &str = "boxoffice_bench_";

/// A database on a server that has others. Dropping this value does not remove it; [`ScratchDatabase::remove`] does.
pub struct ScratchDatabase {
    name: String,
    /// The address of the server's own database, which is only connected to.
    server: SecretUrl,
}

impl ScratchDatabase {
    /// Makes one on the server that `store.postgres_url` names, and makes the settings name it instead.
    pub async fn create(settings: &mut Settings) -> Result<Self, StartError> {
        let server = settings.store.postgres_url.clone();
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        let url = create(server.expose(), &name).await.map_err(StartError::Scratch)?;
        settings.store.postgres_url = SecretUrl::new(url);
        Ok(Self { name, server })
    }

    /// Drops the database. One that cannot be dropped is named in the log, so that an operator can do it.
    pub async fn remove(self) {
        if let Err(error) = remove(self.server.expose(), &self.name).await {
            tracing::error!(error, database = self.name, "the database of this comparison could not be dropped");
        }
    }
}

#[cfg(feature = "postgres")]
async fn create(server: &str, name: &str) -> Result<String, Source> {
    Ok(postgres::create_database(server, name).await?)
}

#[cfg(feature = "postgres")]
async fn remove(server: &str, name: &str) -> Result<(), Source> {
    Ok(postgres::drop_database(server, name).await?)
}

#[cfg(not(feature = "postgres"))]
async fn create(_: &str, _: &str) -> Result<String, Source> {
    Err("this build lacks the feature `postgres`".into())
}

#[cfg(not(feature = "postgres"))]
async fn remove(_: &str, _: &str) -> Result<(), Source> {
    Ok(())
}

/// The command log of a strategy on brokers that have others. Dropping this value does not remove it;
/// [`ScratchLog::remove`] does.
pub struct ScratchLog {
    strategy: StrategyName,
    /// Names of the log's topics, group and queues.
    settings: Settings,
}

impl ScratchLog {
    /// Makes the settings name topics, a group and queues that are unique; `None` when the strategy keeps no log.
    pub fn name(settings: &mut Settings, strategy: StrategyName) -> Option<Self> {
        if !strategy.keeps_a_log() {
            return None;
        }
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        settings.kafka.commands_topic = name.clone();
        settings.kafka.group = name.clone();
        settings.rabbitmq.commands_queue = name;
        Some(Self { strategy, settings: settings.clone() })
    }

    /// Deletes what the servers have created, once they have stopped. A log that cannot be deleted is named in a log
    /// line, so that an operator can do it.
    pub async fn remove(self) {
        if let Err(error) = remove_log(self.strategy, &self.settings).await {
            tracing::error!(error, log = self.settings.kafka.commands_topic, "the command log of this comparison could not be deleted");
        }
    }
}

#[cfg_attr(not(any(feature = "kafka", feature = "rabbitmq")), allow(unused_variables, reason = "there is no log to name"))]
async fn remove_log(strategy: StrategyName, settings: &Settings) -> Result<(), Source> {
    match strategy {
        #[cfg(feature = "kafka")]
        StrategyName::Kafka => {
            let of = &settings.kafka;
            Ok(kafka::remove(&of.brokers, &of.commands_topic, &of.group).await?)
        }
        #[cfg(feature = "rabbitmq")]
        StrategyName::Rabbitmq => {
            let of = &settings.rabbitmq;
            Ok(rabbitmq::remove(of.url.expose(), &of.commands_queue, of.shards).await?)
        }
        _ => Ok(()),
    }
}

/// Name and version of the store and of the configured services. A service that does not report its version is left
/// out; for Kafka it is the client's version, because brokers do not report theirs.
pub async fn service_versions(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut versions = Vec::new();
    match settings.store.backend {
        StoreBackend::Memory => {}
        #[cfg(feature = "sqlite")]
        StoreBackend::Sqlite => versions.push(("SQLite", sqlite::version())),
        #[cfg(feature = "postgres")]
        StoreBackend::Postgres => {
            versions
                .extend(postgres::server_version(settings.store.postgres_url.expose()).await.ok().map(|version| ("PostgreSQL", version)));
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        _ => {}
    }
    versions.extend(redis_version(settings).await.map(|version| ("Redis", version)));
    #[cfg(feature = "kafka")]
    if !settings.kafka.brokers.is_empty() {
        versions.push(("librdkafka", kafka::client_version()));
    }
    #[cfg(feature = "rabbitmq")]
    if !settings.rabbitmq.url.is_empty() {
        versions.extend(rabbitmq::server_version(settings.rabbitmq.url.expose()).await.ok().flatten().map(|version| ("RabbitMQ", version)));
    }
    versions
}

#[cfg(feature = "redis")]
async fn redis_version(settings: &Settings) -> Option<String> {
    let urls = if settings.redis.urls.is_empty() { settings.redis.redlock_nodes.get(..1)? } else { settings.redis.urls.as_slice() };
    let urls: Vec<String> = urls.iter().map(|url| url.expose().to_owned()).collect();
    Redis::open(&urls, std::sync::Arc::default()).ok()?.version().await.ok()
}

#[cfg(not(feature = "redis"))]
async fn redis_version(_: &Settings) -> Option<String> {
    None
}
