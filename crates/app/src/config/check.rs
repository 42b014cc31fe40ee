//! The rules of a configuration that its types do not enforce: ranges, and settings that exclude one another.

use super::{AuthMode, EventSinkName, JwtAlgorithm, LaneSettings, QueueBackend, QueueKey, SecretUrl, Settings, StoreBackend, StrategyName};
use crate::http::LANE_NAME_MAX;
use boxoffice_domain::admission::{INTERVAL_S_MAX, MAX_ACTIVE_MAX};
use boxoffice_domain::concert::Fault;
use boxoffice_domain::text;
use boxoffice_domain::waiting::LANES_MAX;
use iso_currency::Currency;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The shortest secret a token may be signed with, bytes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// The largest integer that every JSON reader understands exactly, and so the highest balance.
const BALANCE_MAX: i64 = (1 << 53) - 1;
/// A lease is renewed at a third of its time, which must be long enough for a round trip to Redis; Redlock also subtracts
/// the drift of the clocks from it.
const LEASE_MS_MIN: i64 = 2_000;
/// How long a lock may outlive a holder that died.
const LEASE_MS_MAX: i64 = 120_000;
/// With fewer nodes a majority is all of them, which is less available than one.
const REDLOCK_NODES_MIN: usize = 3;
/// More bring no gain: a hot key is in a single partition or shard.
const PARTITIONS_MAX: i64 = 1_024;
const SHARDS_MAX: i64 = 256;
/// The longest name of a topic, group, queue or exchange: Kafka's own bound is 249, and suffixes are added.
const TOPIC_MAX: usize = 200;
/// Addresses in one list, at most.
const URLS_MAX: usize = 64;
/// Lanes count in thousandths.
const LANE_SHARE_MIN: f64 = 0.001;
/// The longest name of a queue key, characters; it is part of every queue token.
const KID_MAX: usize = 32;

/// Every fault, in the order of the sections.
pub(super) fn faults(settings: &Settings) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.ranges(settings);
    faults.money(settings);
    faults.store(settings);
    faults.redis(settings);
    faults.brokers(settings);
    faults.exclusions(settings);
    faults.auth(settings);
    faults.0
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.0.push(Fault { field: key.to_owned(), reason: reason.into() });
    }

    fn range(&mut self, key: &str, value: impl TryInto<i64>, allowed: RangeInclusive<i64>) {
        if !value.try_into().is_ok_and(|value| allowed.contains(&value)) {
            self.add(key, format!("must be from {} to {}", allowed.start(), allowed.end()));
        }
    }

    fn ranges(&mut self, settings: &Settings) {
        let Settings { http, store, strategy, hold, admission, .. } = settings;
        self.range("http.workers", http.workers, 0..=1_024);
        self.range("http.max_body_bytes", http.max_body_bytes, 1_024..=1 << 30);
        self.range("http.requests_per_second_per_user", http.requests_per_second_per_user, 0..=1_000_000);
        self.range("http.connections_per_user", http.connections_per_user, 0..=1_000_000);
        self.range("http.connections_per_address", http.connections_per_address, 0..=1_000_000);
        self.range("http.connections_max", http.connections_max, 1..=10_000_000);
        self.range("http.requests_in_flight_per_user", http.requests_in_flight_per_user, 0..=1_000_000);
        self.range("http.head_timeout_ms", http.head_timeout_ms, 100..=600_000);
        self.range("http.body_timeout_ms", http.body_timeout_ms, 100..=600_000);
        self.range("http.write_timeout_ms", http.write_timeout_ms, 100..=600_000);
        self.range("http.bytes_per_s_min", http.bytes_per_s_min, 1..=1 << 30);
        self.range("store.connections", store.connections, 0..=256);
        self.range("strategy.wait_ms", strategy.wait_ms, 1..=60_000);
        self.range("strategy.batch_max", strategy.batch_max, 1..=10_000);
        self.range("strategy.lanes", strategy.lanes, 0..=64);
        self.range("strategy.lease_ms", strategy.lease_ms, LEASE_MS_MIN..=LEASE_MS_MAX);
        self.range("strategy.queue_max", strategy.queue_max, 1..=1_000_000);
        self.range("strategy.backlog_max", strategy.backlog_max, 1..=1_000_000);
        self.range("kafka.partitions", settings.kafka.partitions, 1..=PARTITIONS_MAX);
        self.range("rabbitmq.shards", settings.rabbitmq.shards, 1..=SHARDS_MAX);
        self.range("reward.percent", settings.reward.percent, 0..=100);
        self.range("hold.ttl_s", hold.ttl_s, 1..=86_400);
        self.range("hold.extensions_max", hold.extensions_max, 0..=1_000);
        self.range("hold.max_seats_per_user", hold.max_seats_per_user, 1..=100);
        self.range("hold.sweep_ms", hold.sweep_ms, 10..=60_000);
        self.range("idempotency.ttl_s", settings.idempotency.ttl_s, 1..=31_536_000);
        self.range("admission.max_active", admission.max_active.parts().0, 1..=i64::from(MAX_ACTIVE_MAX));
        self.range("admission.per_interval_count", admission.per_interval_count, 0..=i64::from(MAX_ACTIVE_MAX));
        self.range("admission.per_interval_s", admission.per_interval_s, 0..=i64::from(INTERVAL_S_MAX));
        self.range("admission.tick_ms", admission.tick_ms, 10..=10_000);
        self.range("admission.room_wait_ms", admission.room_wait_ms, 0..=10_000);
        self.range("admission.active_ttl_s", admission.active_ttl_s, 1..=86_400);
        self.range("admission.extensions_max", admission.extensions_max, 0..=1_000);
        self.range("admission.waiting_grace_s", admission.waiting_grace_s, 1..=86_400);
        self.range("admission.p99_target_ms", admission.p99_target_ms, 1..=60_000);
        self.lanes(&admission.lanes);
        self.range("presence.grace_s", settings.presence.grace_s, 1..=86_400);
        self.beacon(&settings.draw.beacon_url);
        self.range("auth.leeway_s", settings.auth.leeway_s, 0..=300);
    }

    fn beacon(&mut self, url: &str) {
        let is_template = (url.starts_with("http://") || url.starts_with("https://")) && url.contains("{unix}");
        if !(url.is_empty() || is_template) {
            self.add("draw.beacon_url", "must be empty, or an http(s) address with {unix} in the place of the sale's start");
        }
    }

    fn lanes(&mut self, lanes: &[LaneSettings]) {
        const KEY: &str = "admission.lanes";
        if lanes.len() > LANES_MAX {
            self.add(KEY, format!("must be {LANES_MAX} at most"));
        }
        for (at, lane) in lanes.iter().enumerate() {
            if lane.name.is_empty() || text::fault(&lane.name, LANE_NAME_MAX).is_some() {
                self.add(KEY, format!("a name must have 1 to {LANE_NAME_MAX} characters, none of them a control character"));
            }
            if lanes[..at].iter().any(|other| other.name == lane.name) {
                self.add(KEY, format!("{:?} is there twice", lane.name));
            }
            if !(LANE_SHARE_MIN..1.0).contains(&lane.share) {
                self.add(KEY, format!("the share of {:?} must be from {LANE_SHARE_MIN} to less than 1", lane.name));
            }
        }
        if lanes.iter().map(|lane| lane.share).sum::<f64>() > 1.0 - LANE_SHARE_MIN {
            self.add(KEY, "the shares must leave something for users without a lane");
        }
    }

    fn money(&mut self, settings: &Settings) {
        let money = &settings.money;
        // The list of ISO 4217 also has gold and test codes, which have no minor unit to count amounts in.
        if Currency::from_code(&money.currency).and_then(Currency::exponent).is_none() {
            self.add("money.currency", format!("{:?} is no currency of ISO 4217 with a minor unit, such as \"EUR\"", money.currency));
        }
        self.range("money.amount_max", money.amount_max, 1..=BALANCE_MAX);
        self.range("money.balance_max", money.balance_max, 1..=BALANCE_MAX);
        if money.balance_max < money.amount_max {
            self.add("money.balance_max", "must not be less than money.amount_max");
        }
    }

    fn store(&mut self, settings: &Settings) {
        let Settings { store, strategy, .. } = settings;
        match store.backend {
            StoreBackend::Sqlite => {
                if store.sqlite_path.as_os_str().is_empty() {
                    self.add("store.sqlite_path", "must name a file");
                }
                if strategy.lanes > 1 {
                    self.add("strategy.lanes", "must be 0 or 1 with store.backend = \"sqlite\", which has one writer");
                }
            }
            StoreBackend::Postgres if !matches!(store.postgres_url.scheme(), Some("postgres" | "postgresql")) => {
                self.add("store.postgres_url", "must be a postgres:// address with store.backend = \"postgres\"");
            }
            StoreBackend::Postgres | StoreBackend::Memory => {}
        }
    }

    fn redis(&mut self, settings: &Settings) {
        let Settings { queue, redis, strategy, .. } = settings;
        self.addresses("redis.urls", &redis.urls);
        self.addresses("redis.redlock_nodes", &redis.redlock_nodes);
        if redis.urls.is_empty() {
            if queue.backend == QueueBackend::Redis {
                self.add("redis.urls", "must name a Redis with queue.backend = \"redis\"");
            }
            if let Some((key, name)) = strategy.classes().into_iter().find(|(_, name)| name.locks_in_redis()) {
                self.add("redis.urls", format!("must name a Redis with {key} = \"{}\"", name.name()));
            }
        }
        if let Some((key, _)) = strategy.classes().into_iter().find(|(_, name)| *name == StrategyName::Redlock)
            && redis.redlock_nodes.len() < REDLOCK_NODES_MIN
        {
            let reason = format!("must name at least {REDLOCK_NODES_MIN} nodes, best an odd number, with {key} = \"redlock\"");
            self.add("redis.redlock_nodes", reason);
        }
    }

    fn brokers(&mut self, settings: &Settings) {
        let Settings { strategy, events, kafka, rabbitmq, .. } = settings;
        let needed = |name: StrategyName, sink: EventSinkName| {
            let class = strategy.class_with(name).map(|key| format!("{key} = \"{}\"", name.name()));
            class.or_else(|| (events.sink == sink).then(|| format!("events.sink = \"{}\"", sink.name())))
        };
        let is_broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
                is_host && port.parse::<u16>().is_ok()
            })
        };
        match needed(StrategyName::Kafka, EventSinkName::Kafka) {
            Some(by) if kafka.brokers.is_empty() => self.add("kafka.brokers", format!("must name brokers with {by}")),
            _ if !kafka.brokers.is_empty() && !kafka.brokers.split(',').all(|broker| is_broker(broker.trim())) => {
                self.add("kafka.brokers", "must be addresses such as \"127.0.0.1:9092\", separated by commas");
            }
            _ => {}
        }
        for (key, name) in [
            ("kafka.commands_topic", &kafka.commands_topic),
            ("kafka.events_topic", &kafka.events_topic),
            ("kafka.group", &kafka.group),
            ("rabbitmq.commands_queue", &rabbitmq.commands_queue),
            ("rabbitmq.events_exchange", &rabbitmq.events_exchange),
        ] {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if name.is_empty() || name.len() > TOPIC_MAX || !name.bytes().all(is_plain) {
                self.add(key, format!("must be 1 to {TOPIC_MAX} letters, digits, ., _ or -"));
            }
        }
        if kafka.commands_topic == kafka.events_topic {
            self.add("kafka.events_topic", "must not be kafka.commands_topic");
        }
        match needed(StrategyName::Rabbitmq, EventSinkName::Rabbitmq) {
            Some(by) if rabbitmq.url.is_empty() => self.add("rabbitmq.url", format!("must name a RabbitMQ with {by}")),
            _ if !rabbitmq.url.is_empty() && rabbitmq.url.scheme() != Some("amqp") => {
                self.add("rabbitmq.url", "must be an address such as \"amqp://guest:guest@127.0.0.1:5672/%2f\"");
            }
            _ => {}
        }
        if strategy.classes().into_iter().any(|(_, name)| name.keeps_a_log()) && settings.command_retention() < strategy.wait() {
            self.add("idempotency.ttl_s", "must be at least twice strategy.wait_ms, or a command might outlive its reply in the log");
        }
    }

    /// A fault names an address by its position alone, because the address may hold a password.
    fn addresses(&mut self, key: &str, urls: &[SecretUrl]) {
        if urls.len() > URLS_MAX {
            self.add(key, format!("must be at most {URLS_MAX} addresses"));
        }
        let mut seen = HashSet::new();
        for (at, url) in urls.iter().enumerate() {
            if url.scheme().is_none() {
                self.add(&format!("{key}[{at}]"), "must be an address such as \"redis://127.0.0.1:6379\"");
            } else if !seen.insert(url.expose()) {
                self.add(&format!("{key}[{at}]"), "is listed twice");
            }
        }
    }

    fn exclusions(&mut self, settings: &Settings) {
        let Settings { http, admission, auth, .. } = settings;
        if (admission.per_interval_count == 0) != (admission.per_interval_s == 0) {
            self.add("admission.per_interval_count", "must be set together with admission.per_interval_s, or both be 0");
        }
        if auth.mode == AuthMode::Dev && !auth.dev_force && !http.listen.ip().is_loopback() {
            let reason = format!(
                "\"dev\" gives a token to every caller, and http.listen = \"{}\" can be reached from other machines; \
                 use \"jwt\", a loopback address, or auth.dev_force = true",
                http.listen
            );
            self.add("auth.mode", reason);
        }
        if let Err(error) = settings.telemetry.log.parse::<tracing_subscriber::filter::Targets>() {
            self.add("telemetry.log", error.to_string());
        }
    }

    fn auth(&mut self, settings: &Settings) {
        let auth = &settings.auth;
        if auth.mode == AuthMode::Jwt {
            let secret = auth.hs256_secret.expose();
            match auth.algorithm {
                JwtAlgorithm::HS256 if secret.len() < SECRET_BYTES_MIN => {
                    self.add("auth.hs256_secret", format!("must be at least {SECRET_BYTES_MIN} bytes with auth.algorithm = \"HS256\""));
                }
                JwtAlgorithm::HS256 => {}
                _ if auth.jwks_file().is_none() => {
                    self.add("auth.jwks_file", "must name a file, unless auth.algorithm is \"HS256\"");
                }
                _ => {}
            }
        }
        let mut kids = HashSet::new();
        for (at, text) in auth.queue_keys.iter().enumerate() {
            let key = format!("auth.queue_keys[{at}]");
            let Some(QueueKey { kid, secret }) = QueueKey::parse(text.expose()) else {
                self.add(&key, "must be \"kid:secret\" with the secret in base64url");
                continue;
            };
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if kid.is_empty() || kid.len() > KID_MAX || !kid.bytes().all(is_plain) {
                self.add(&key, format!("must begin with a name of 1 to {KID_MAX} letters, digits, - or _"));
            }
            if secret.len() < SECRET_BYTES_MIN {
                self.add(&key, format!("must have a secret of at least {SECRET_BYTES_MIN} bytes"));
            }
            if !kids.insert(kid) {
                self.add(&key, "has the same name as another one");
            }
        }
    }
}

#[cfg(test)]
mod tests;
