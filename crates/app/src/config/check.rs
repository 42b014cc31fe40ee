//! What types cannot say of a configuration: ranges, and settings that exclude one another.

use super::{AuthMode, JwtAlgorithm, QueueKey, Settings, StoreBackend};
use boxoffice_domain::admission::{INTERVAL_S_MAX, MAX_ACTIVE_MAX};
use boxoffice_domain::concert::Fault;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The shortest secret a token may be signed with, bytes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// The largest integer that every JSON reader understands exactly, and so the highest balance.
const BALANCE_MAX: i64 = (1 << 53) - 1;
/// The longest name of a queue key, characters; it is part of every queue token.
const KID_MAX: usize = 32;

/// Everything that is wrong, in the order of the sections.
pub(super) fn faults(settings: &Settings) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.ranges(settings);
    faults.money(settings);
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
        self.range("store.connections", store.connections, 1..=64);
        self.range("strategy.wait_ms", strategy.wait_ms, 1..=60_000);
        self.range("strategy.batch_max", strategy.batch_max, 1..=10_000);
        self.range("strategy.lanes", strategy.lanes, 1..=64);
        self.range("strategy.queue_max", strategy.queue_max, 1..=1_000_000);
        self.range("reward.percent", settings.reward.percent, 0..=100);
        self.range("hold.ttl_s", hold.ttl_s, 1..=86_400);
        self.range("hold.extensions_max", hold.extensions_max, 0..=1_000);
        self.range("hold.max_seats_per_user", hold.max_seats_per_user, 1..=100);
        self.range("hold.sweep_ms", hold.sweep_ms, 10..=60_000);
        self.range("idempotency.ttl_s", settings.idempotency.ttl_s, 1..=31_536_000);
        self.range("admission.max_active", admission.max_active, 1..=i64::from(MAX_ACTIVE_MAX));
        self.range("admission.per_interval_count", admission.per_interval_count, 0..=i64::from(MAX_ACTIVE_MAX));
        self.range("admission.per_interval_s", admission.per_interval_s, 0..=i64::from(INTERVAL_S_MAX));
        self.range("admission.tick_ms", admission.tick_ms, 10..=10_000);
        self.range("admission.active_ttl_s", admission.active_ttl_s, 1..=86_400);
        self.range("auth.leeway_s", settings.auth.leeway_s, 0..=300);
    }

    fn money(&mut self, settings: &Settings) {
        let money = &settings.money;
        if money.currency.len() != 3 || !money.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            self.add("money.currency", "must be three capital letters (ISO 4217), such as \"EUR\"");
        }
        self.range("money.amount_max", money.amount_max, 1..=BALANCE_MAX);
        self.range("money.balance_max", money.balance_max, 1..=BALANCE_MAX);
        if money.balance_max < money.amount_max {
            self.add("money.balance_max", "must not be less than money.amount_max");
        }
    }

    fn exclusions(&mut self, settings: &Settings) {
        let Settings { http, store, strategy, admission, auth, .. } = settings;
        if store.backend == StoreBackend::Sqlite {
            if store.sqlite_path.as_os_str().is_empty() {
                self.add("store.sqlite_path", "must name a file");
            }
            if strategy.lanes > 1 {
                self.add("strategy.lanes", "must be 1 with store.backend = \"sqlite\", which has one writer");
            }
        }
        if (admission.per_interval_count == 0) != (admission.per_interval_s == 0) {
            self.add("admission.per_interval_count", "must be set together with admission.per_interval_s, or both be 0");
        }
        if auth.mode == AuthMode::Dev && !auth.dev_force && !http.listen.ip().is_loopback() {
            let reason = format!(
                "\"dev\" gives a token to whoever asks, and http.listen = \"{}\" can be reached from other machines; \
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
mod tests {
    use crate::config::{Layers, Settings, load};

    fn keys_at_fault(assignments: &str) -> Vec<String> {
        let set = assignments.split(';').map(str::to_owned).collect();
        match load(&Layers { set, ..Layers::default() }) {
            Err(crate::config::ConfigError::Invalid(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
            Err(error) => panic!("{assignments}: {error}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn defaults_are_valid_and_derive_their_switches() {
        let settings = Settings::defaults().unwrap();
        assert!(settings.self_charge() && settings.demo_season());
        assert_eq!(settings.default_admission().per_interval, None);
        let set = ["auth.mode=jwt", "auth.hs256_secret=0123456789abcdef0123456789abcdef"].map(str::to_owned).to_vec();
        let settings = load(&Layers { set, ..Layers::default() }).unwrap();
        assert!(!settings.self_charge() && !settings.demo_season());
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        for (assignment, key) in [
            ("http.workers=2000", "http.workers"),
            ("http.max_body_bytes=1", "http.max_body_bytes"),
            ("store.connections=0", "store.connections"),
            ("store.sqlite_path=", "store.sqlite_path"),
            ("strategy.wait_ms=0", "strategy.wait_ms"),
            ("strategy.batch_max=0", "strategy.batch_max"),
            ("strategy.lanes=2", "strategy.lanes"),
            ("strategy.queue_max=0", "strategy.queue_max"),
            ("reward.percent=101", "reward.percent"),
            ("hold.ttl_s=0", "hold.ttl_s"),
            ("hold.max_seats_per_user=0", "hold.max_seats_per_user"),
            ("hold.sweep_ms=1", "hold.sweep_ms"),
            ("idempotency.ttl_s=0", "idempotency.ttl_s"),
            ("admission.max_active=0", "admission.max_active"),
            ("admission.per_interval_count=5", "admission.per_interval_count"),
            ("admission.per_interval_s=5", "admission.per_interval_count"),
            ("admission.tick_ms=0", "admission.tick_ms"),
            ("admission.active_ttl_s=0", "admission.active_ttl_s"),
            ("money.currency=won", "money.currency"),
            ("money.amount_max=0", "money.amount_max"),
            ("money.balance_max=10", "money.balance_max"),
            ("telemetry.log=a=loud", "telemetry.log"),
            ("http.listen=0.0.0.0:8080", "auth.mode"),
            ("http.listen=[::]:8080", "auth.mode"),
            ("auth.mode=jwt", "auth.hs256_secret"),
            ("auth.mode=jwt;auth.algorithm=ES256", "auth.jwks_file"),
            ("auth.queue_keys=[\"nonsense\"]", "auth.queue_keys[0]"),
            ("auth.queue_keys=[\"a:QUJD\"]", "auth.queue_keys[0]"),
        ] {
            assert_eq!(keys_at_fault(assignment), [key], "{assignment}");
        }
    }

    #[test]
    fn allowed_combinations_pass() {
        for assignments in [
            "http.listen=0.0.0.0:8080;auth.dev_force=true",
            "http.listen=[::1]:0",
            "store.backend=memory;strategy.lanes=4",
            "admission.per_interval_count=5;admission.per_interval_s=1",
            "auth.queue_keys=[\"a:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU\"]",
            "telemetry.log=warn,boxoffice=debug",
        ] {
            assert_eq!(keys_at_fault(assignments), Vec::<String>::new(), "{assignments}");
        }
    }

    #[test]
    fn secrets_are_hidden_wherever_settings_are_printed() {
        let secret = "0123456789abcdef0123456789abcdef";
        let set = vec![format!("auth.hs256_secret={secret}"), "auth.queue_keys=[\"a:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU\"]".into()];
        let settings = load(&Layers { set, ..Layers::default() }).unwrap();
        for printed in [format!("{settings:?}"), toml::to_string(&settings).unwrap(), serde_json::to_string(&settings).unwrap()] {
            assert!(!printed.contains(secret) && !printed.contains("QUJD") && printed.contains("(hidden)"), "{printed}");
        }
    }
}
