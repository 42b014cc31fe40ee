//! The sections of the configuration, typed. What each key means is said in `deploy/boxoffice.toml`.

use super::values::{Secret, SecretUrl, Switch};
use crate::max_active::MaxActive;
use boxoffice_domain::money::Money;
use boxoffice_domain::waiting::{LaneTerms, SHARES};
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Policy};
use boxoffice_engine::RoomsSettings;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Readers of an SQLite file, unless it is said otherwise.
const SQLITE_READERS: usize = 4;
/// Connections of one instance to PostgreSQL beside those of the lanes, unless it is said otherwise: several instances
/// fit into the 100 that a server allows by default.
const POSTGRES_CONNECTIONS: usize = 16;
/// Commands that wait in a store of this process, at most, under strategies that decide one by one.
const COMMANDS_AT_ONCE: usize = 256;
/// Lanes on PostgreSQL, unless it is said otherwise: at most so many, and no more than cores. More gain nothing, and a
/// hot row that meets two connections is slower than with one.
const POSTGRES_LANES_MAX: usize = 4;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub store: StoreSettings,
    pub queue: QueueSettings,
    pub redis: RedisSettings,
    pub strategy: StrategySettings,
    pub kafka: KafkaSettings,
    pub rabbitmq: RabbitmqSettings,
    pub events: EventsSettings,
    pub money: MoneySettings,
    pub wallet: WalletSettings,
    pub reward: RewardSettings,
    pub hold: HoldSettings,
    pub idempotency: IdempotencySettings,
    pub demo: DemoSettings,
    pub admission: AdmissionSettings,
    pub presence: PresenceSettings,
    pub draw: DrawSettings,
    pub auth: AuthSettings,
    pub telemetry: TelemetrySettings,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// 0: one for each core.
    pub workers: usize,
    pub max_body_bytes: usize,
    /// 0: no limit.
    pub requests_per_second_per_user: u32,
    /// Beyond it health, figures and operators are served alone.
    pub connections_max: usize,
    /// Streams and sockets. 0: no limit, like the next ones.
    pub connections_per_user: u32,
    pub connections_per_address: u32,
    pub requests_in_flight_per_user: u32,
    pub head_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub write_timeout_ms: u64,
    /// What slower bodies and readers have beside their time-out.
    pub bytes_per_s_min: u64,
    /// Bytes of bodies that are waited for. 0: no limit, like the next ones.
    pub body_bytes_in_all: u64,
    pub body_bytes_per_user: u64,
    pub body_bytes_per_address: u64,
}

impl HttpSettings {
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 { self.workers } else { cores() }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreBackend {
    Sqlite,
    Postgres,
    Memory,
}

impl StoreBackend {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Memory => "memory",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub backend: StoreBackend,
    pub sqlite_path: PathBuf,
    pub postgres_url: SecretUrl,
    /// 0: as many as suit the store. Ask [`StoreSettings::connection_count`].
    pub connections: usize,
    pub migrate_on_start: bool,
}

impl StoreSettings {
    /// SQLite: connections that read, beside the one that writes. PostgreSQL: connections of one instance beside those
    /// of the lanes, half for reading, half for commands that are decided one by one.
    pub fn connection_count(&self) -> usize {
        match (self.connections, self.backend) {
            (0, StoreBackend::Postgres) => POSTGRES_CONNECTIONS,
            (0, StoreBackend::Sqlite | StoreBackend::Memory) => SQLITE_READERS,
            (count, _) => count,
        }
    }

    /// How many commands may be at the store at once under strategies that decide one by one. PostgreSQL: as many as
    /// there are connections for it, which is half of them. The others queue by themselves.
    pub fn commands_at_once(&self) -> usize {
        match self.backend {
            StoreBackend::Postgres => (self.connection_count() / 2).max(1),
            StoreBackend::Sqlite | StoreBackend::Memory => COMMANDS_AT_ONCE,
        }
    }

    /// Where the store is, without passwords.
    pub fn place(&self) -> String {
        match self.backend {
            StoreBackend::Sqlite => self.sqlite_path.display().to_string(),
            StoreBackend::Postgres => self.postgres_url.masked(),
            StoreBackend::Memory => "this process".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueBackend {
    /// Wherever the store keeps its rows.
    Store,
    Redis,
    Memory,
}

impl QueueBackend {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Redis => "redis",
            Self::Memory => "memory",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    pub backend: QueueBackend,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// One node, the Sentinels of one, or nodes of a cluster; empty: no Redis.
    pub urls: Vec<SecretUrl>,
    /// Nodes that know nothing of one another.
    pub redlock_nodes: Vec<SecretUrl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    Combining,
    Simple,
    Spin,
    Pubsub,
    Redlock,
    Pessimistic,
    Optimistic,
    Memory,
    Kafka,
    Rabbitmq,
}

impl StrategyName {
    pub const ALL: [Self; 10] = [
        Self::Combining,
        Self::Simple,
        Self::Spin,
        Self::Pubsub,
        Self::Redlock,
        Self::Pessimistic,
        Self::Optimistic,
        Self::Memory,
        Self::Kafka,
        Self::Rabbitmq,
    ];

    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Combining => "combining",
            Self::Simple => "simple",
            Self::Spin => "spin",
            Self::Pubsub => "pubsub",
            Self::Redlock => "redlock",
            Self::Pessimistic => "pessimistic",
            Self::Optimistic => "optimistic",
            Self::Memory => "memory",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }

    /// Whether commands wait in a log outside this process, and may be answered before they are decided.
    pub fn keeps_a_log(self) -> bool {
        matches!(self, Self::Kafka | Self::Rabbitmq)
    }

    /// Whether its locks are kept in the one Redis of `redis.urls`.
    pub fn locks_in_redis(self) -> bool {
        matches!(self, Self::Simple | Self::Spin | Self::Pubsub)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StrategySettings {
    pub seat: StrategyName,
    pub wallet: StrategyName,
    pub payment: StrategyName,
    pub wait_ms: u64,
    pub lease_ms: u64,
    pub batch_max: usize,
    /// 0: as many as the store can use. Ask [`Settings::lane_count`].
    pub lanes: usize,
    pub queue_max: usize,
    pub backlog_max: usize,
}

impl StrategySettings {
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The key of the first class that has this strategy.
    pub fn class_with(&self, name: StrategyName) -> Option<&'static str> {
        self.classes().into_iter().find(|(_, one)| *one == name).map(|(key, _)| key)
    }

    /// Each class of operations, as its key is called, with its strategy.
    pub fn classes(&self) -> [(&'static str, StrategyName); 3] {
        [("strategy.seat", self.seat), ("strategy.wallet", self.wallet), ("strategy.payment", self.payment)]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSinkName {
    None,
    /// Standard output.
    Log,
    Kafka,
    Rabbitmq,
}

impl EventSinkName {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Log => "log",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas; empty: no Kafka.
    pub brokers: String,
    pub commands_topic: String,
    pub events_topic: String,
    pub partitions: u32,
    pub group: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqSettings {
    /// Empty: no RabbitMQ. Several nodes of a cluster are separated by commas.
    pub url: SecretUrl,
    pub commands_queue: String,
    pub events_exchange: String,
    pub shards: u32,
    pub queue_type: QueueTypeName,
}

/// The type of the queues that keep commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueTypeName {
    /// Quorum queues where the address names several nodes, else what the virtual host has by default.
    Auto,
    Classic,
    Quorum,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventsSettings {
    pub sink: EventSinkName,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MoneySettings {
    /// ISO 4217.
    pub currency: String,
    pub amount_max: Money,
    pub balance_max: Money,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WalletSettings {
    /// Ask [`Settings::self_charge`].
    pub self_charge: Switch,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSettings {
    pub percent: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HoldSettings {
    pub ttl_s: u32,
    pub extensions_max: u32,
    pub max_seats_per_user: u32,
    pub sweep_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencySettings {
    pub ttl_s: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DemoSettings {
    /// Ask [`Settings::demo_season`].
    pub season: Switch,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSettings {
    pub max_active: MaxActive,
    pub stock_linked: bool,
    /// 0, like `per_interval_s`: no rate.
    pub per_interval_count: u32,
    pub per_interval_s: u32,
    pub tick_ms: u64,
    /// How long an answer that ends a turn waits for the room.
    pub room_wait_ms: u64,
    pub active_ttl_s: u32,
    pub extensions_max: u32,
    pub waiting_grace_s: u32,
    pub adaptive: bool,
    pub p99_target_ms: u32,
    pub lanes: Vec<LaneSettings>,
}

impl AdmissionSettings {
    pub fn room_wait(&self) -> Duration {
        Duration::from_millis(self.room_wait_ms)
    }
}

/// A line of its own for those whose bearer says so.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSettings {
    pub name: String,
    /// Of all promotions, while anybody waits in it.
    pub share: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceSettings {
    pub grace_s: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrawSettings {
    /// Empty: no beacon.
    pub beacon_url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// The server itself hands out users and tokens to whoever asks.
    Dev,
    Jwt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    HS256,
    RS256,
    ES256,
    EdDSA,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    pub mode: AuthMode,
    pub dev_force: bool,
    /// Empty: not checked.
    pub issuer: String,
    /// Empty: not checked.
    pub audience: String,
    pub leeway_s: u64,
    pub algorithm: JwtAlgorithm,
    pub hs256_secret: Secret,
    /// Empty: none.
    pub jwks_file: PathBuf,
    /// `kid:base64url secret`, the first one signs; empty: one kept in the store. Ask [`AuthSettings::queue_keys`].
    pub queue_keys: Vec<Secret>,
}

/// A key that queue tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueKey {
    pub kid: String,
    pub secret: Vec<u8>,
}

impl AuthSettings {
    pub fn issuer(&self) -> Option<&str> {
        Some(self.issuer.as_str()).filter(|issuer| !issuer.is_empty())
    }

    pub fn audience(&self) -> Option<&str> {
        Some(self.audience.as_str()).filter(|audience| !audience.is_empty())
    }

    pub fn jwks_file(&self) -> Option<&Path> {
        Some(self.jwks_file.as_path()).filter(|file| !file.as_os_str().is_empty())
    }

    /// The configured queue keys; those that cannot be read are what the check at start refuses.
    pub fn queue_keys(&self) -> Vec<QueueKey> {
        self.queue_keys.iter().filter_map(|key| QueueKey::parse(key.expose())).collect()
    }
}

impl QueueKey {
    /// `kid:base64url secret`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::Engine as _;
        let (kid, secret) = text.split_once(':')?;
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(secret.trim_end_matches('=')).ok()?;
        Some(Self { kid: kid.to_owned(), secret })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Directives such as `info,boxoffice=debug`.
    pub log: String,
    pub log_format: LogFormat,
}

impl Settings {
    /// What decisions obey.
    pub fn policy(&self) -> Policy {
        Policy {
            hold_ttl_s: self.hold.ttl_s,
            extensions_max: self.hold.extensions_max,
            max_seats_per_user: self.hold.max_seats_per_user,
            amount_max: self.money.amount_max,
            balance_max: self.money.balance_max,
            reward_percent: self.reward.percent,
            idempotency_ttl_s: self.idempotency.ttl_s,
        }
    }

    /// How a concert admits whose document does not say.
    pub fn default_admission(&self) -> Admission {
        let AdmissionSettings { max_active, per_interval_count: count, per_interval_s: seconds, adaptive, .. } = self.admission;
        let per_interval = (count > 0 && seconds > 0).then_some(PerInterval { count, seconds });
        let (max_active, auto) = max_active.parts();
        Admission { mode: AdmissionMode::Running, max_active, per_interval, auto, adaptive }
    }

    /// What every waiting room obeys.
    pub fn rooms(&self) -> RoomsSettings {
        let AdmissionSettings { active_ttl_s, extensions_max, waiting_grace_s, p99_target_ms, .. } = self.admission;
        // Rounded to what lanes count in; a check has refused what is not a share.
        let share = |share: f64| (share * f64::from(SHARES)).round() as u16;
        let lane = |lane: &LaneSettings| LaneTerms { name: lane.name.clone(), share: share(lane.share) };
        let lanes = self.admission.lanes.iter().map(lane).collect();
        RoomsSettings { active_ttl_s, extensions_max, grace_s: self.presence.grace_s, waiting_grace_s, p99_target_ms, lanes }
    }

    /// Commits that `combining` has in flight at once.
    pub fn lane_count(&self) -> usize {
        match (self.strategy.lanes, self.store.backend) {
            (0, StoreBackend::Postgres) => cores().min(POSTGRES_LANES_MAX),
            (0, StoreBackend::Sqlite | StoreBackend::Memory) => 1,
            (lanes, _) => lanes,
        }
    }

    /// How long a command may lie in a log: half as long as its reply is kept, so that one which is read again later
    /// still finds it.
    pub fn command_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.idempotency.ttl_s)) / 2
    }

    /// Whether users may charge their own wallets.
    pub fn self_charge(&self) -> bool {
        self.wallet.self_charge.resolve(self.auth.mode == AuthMode::Dev)
    }

    /// Whether an empty store is filled with the demo season.
    pub fn demo_season(&self) -> bool {
        self.demo.season.resolve(self.auth.mode == AuthMode::Dev && self.store.backend == StoreBackend::Sqlite)
    }
}
