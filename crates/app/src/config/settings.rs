//! The sections of the configuration, typed. What each key means is said in `deploy/boxoffice.toml`.

use boxoffice_domain::money::Money;
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Policy};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub store: StoreSettings,
    pub queue: QueueSettings,
    pub strategy: StrategySettings,
    pub events: EventsSettings,
    pub money: MoneySettings,
    pub wallet: WalletSettings,
    pub reward: RewardSettings,
    pub hold: HoldSettings,
    pub idempotency: IdempotencySettings,
    pub demo: DemoSettings,
    pub admission: AdmissionSettings,
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
}

impl HttpSettings {
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 { self.workers } else { std::thread::available_parallelism().map_or(1, NonZero::get) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreBackend {
    Sqlite,
    Memory,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub backend: StoreBackend,
    pub sqlite_path: PathBuf,
    /// Connections that read, beside the one that writes.
    pub connections: usize,
    pub migrate_on_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueBackend {
    /// Wherever the store keeps its rows.
    Store,
    Memory,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    pub backend: QueueBackend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    Combining,
    Memory,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StrategySettings {
    pub seat: StrategyName,
    pub wallet: StrategyName,
    pub payment: StrategyName,
    pub wait_ms: u64,
    pub batch_max: usize,
    pub lanes: usize,
    pub queue_max: usize,
}

impl StrategySettings {
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSinkName {
    None,
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
    pub max_active: u32,
    pub stock_linked: bool,
    /// 0, like `per_interval_s`: no rate.
    pub per_interval_count: u32,
    pub per_interval_s: u32,
    pub tick_ms: u64,
    pub active_ttl_s: u32,
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
        let AdmissionSettings { max_active, per_interval_count: count, per_interval_s: seconds, .. } = self.admission;
        let per_interval = (count > 0 && seconds > 0).then_some(PerInterval { count, seconds });
        Admission { mode: AdmissionMode::Running, max_active, per_interval }
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

/// On, off, or whatever fits the rest of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    Auto,
    On,
    Off,
}

impl Switch {
    pub fn resolve(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(if on { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Switch, E> {
                match name {
                    "auto" => Ok(Switch::Auto),
                    "true" => Ok(Switch::On),
                    "false" => Ok(Switch::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

/// A value that is never printed: not by `Debug`, not by `boxoffice config`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn mask(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "(hidden)" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.mask())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.mask())
    }
}
