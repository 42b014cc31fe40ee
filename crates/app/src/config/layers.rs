//! Where values come from: defaults, then a file, then the environment, then the command line; the later one wins.
//!
//! Values of the environment and the command line are read as TOML. They are bare text if they are no TOML, or if the
//! default is text: a secret that looks like a number stays text. Every failure names the origin and the key.

use super::error::ConfigError;
use super::settings::Settings;
use config::{Config, File, FileFormat};
use std::ffi::OsString;
use std::path::PathBuf;
use toml::{Table, Value};

/// Every key, with its default and what it is for.
pub const DEFAULTS: &str = include_str!("../../../../deploy/boxoffice.toml");

const ENVIRONMENT_PREFIX: &str = "BOXOFFICE__";

/// The layers over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    pub file: Option<PathBuf>,
    /// Variables of the process; those without the prefix are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// `section.key=value`.
    pub set: Vec<String>,
}

impl Layers {
    /// A file and `--set` options, over this process's environment.
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), set }
    }

    pub(super) fn merge(&self) -> Result<Settings, ConfigError> {
        let known = table(DEFAULTS, "deploy/boxoffice.toml")?;
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = &self.file {
            let unreadable = |error: std::io::Error| ConfigError::Unreadable { path: path.clone(), reason: error.to_string() };
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            let origin = path.display().to_string();
            refuse_unknown(&known, &table(&text, &origin)?, &origin)?;
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        for (origin, key, text) in self.environment()?.into_iter().chain(self.assignments()?) {
            let value = value(&known, &key, &text).ok_or_else(|| unknown(&known, origin.clone(), key.clone()))?;
            let malformed = |error: config::ConfigError| ConfigError::Malformed { origin: origin.clone(), reason: error.to_string() };
            builder = builder.set_override(&key, to_config(value)).map_err(malformed)?;
        }
        let whole = |error: config::ConfigError| ConfigError::Malformed { origin: "configuration".to_owned(), reason: error.to_string() };
        let merged: Value = builder.build().and_then(Config::try_deserialize).map_err(whole)?;
        // Through TOML's own types, which refuse a number that does not fit; `config` would truncate it.
        serde_path_to_error::deserialize(merged).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Value { key, reason: error.into_inner().message().to_owned() }
        })
    }

    /// Origin, key and text of every variable with the prefix, in a fixed order.
    fn environment(&self) -> Result<Vec<(String, String, String)>, ConfigError> {
        let mut found = Vec::new();
        for (name, text) in &self.environment {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let Some(text) = text.to_str() else {
                return Err(ConfigError::Malformed { origin: name.to_owned(), reason: "is not UTF-8".to_owned() });
            };
            found.push((name.to_owned(), key.to_ascii_lowercase().replace("__", "."), text.to_owned()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn assignments(&self) -> Result<Vec<(String, String, String)>, ConfigError> {
        let split = |assignment: &String| {
            let Some((key, text)) = assignment.split_once('=') else {
                let reason = "must be section.key=value".to_owned();
                return Err(ConfigError::Malformed { origin: format!("--set {assignment}"), reason });
            };
            Ok(("--set".to_owned(), key.trim().to_owned(), text.trim().to_owned()))
        };
        self.set.iter().map(split).collect()
    }
}

fn table(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| ConfigError::Malformed {
        origin: origin.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

/// The default of `section.key`.
fn default<'a>(known: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    known.get(section)?.get(name)
}

fn refuse_unknown(known: &Table, given: &Table, origin: &str) -> Result<(), ConfigError> {
    for (section, content) in given {
        let Some(content) = content.as_table().filter(|_| known.contains_key(section)) else {
            return Err(unknown(known, origin.to_owned(), section.clone()));
        };
        for name in content.keys() {
            let key = format!("{section}.{name}");
            if default(known, &key).is_none() {
                return Err(unknown(known, origin.to_owned(), key));
            }
        }
    }
    Ok(())
}

fn unknown(known: &Table, origin: String, key: String) -> ConfigError {
    let section = key.split('.').next().unwrap_or_default();
    let names = known.get(section).and_then(Value::as_table).unwrap_or(known);
    let hint = format!("; known keys are {}", names.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
    ConfigError::UnknownKey { origin, key, hint }
}

/// The value that `text` gives a key; `None` when there is no such key.
fn value(known: &Table, key: &str, text: &str) -> Option<Value> {
    let default = default(known, key)?;
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    Some(match parsed {
        Some(value) if !default.is_str() || value.is_str() => value,
        _ => Value::String(text.to_owned()),
    })
}

fn to_config(value: Value) -> config::Value {
    let kind = match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(on) => on.into(),
        Value::Datetime(at) => at.to_string().into(),
        Value::Array(items) => config::ValueKind::Array(items.into_iter().map(to_config).collect()),
        Value::Table(table) => config::ValueKind::Table(table.into_iter().map(|(key, value)| (key, to_config(value))).collect()),
    };
    config::Value::new(None, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{StrategyName, Switch};
    use std::io::Write;

    fn set(assignments: &[&str]) -> Layers {
        Layers { set: assignments.iter().map(|assignment| (*assignment).to_owned()).collect(), ..Layers::default() }
    }

    fn refusal(layers: &Layers) -> String {
        layers.merge().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "[strategy]\nwait_ms = 1\nbatch_max = 2\nqueue_max = 3").unwrap();
        let layers = Layers {
            file: Some(file.path().to_owned()),
            environment: vec![
                ("BOXOFFICE__STRATEGY__BATCH_MAX".into(), "20".into()),
                ("BOXOFFICE__STRATEGY__QUEUE_MAX".into(), "30".into()),
                ("PATH".into(), "/bin".into()),
            ],
            set: vec!["strategy.queue_max=300".into(), "strategy.seat = memory".into()],
        };
        let strategy = layers.merge().unwrap().strategy;
        assert_eq!((strategy.wait_ms, strategy.batch_max, strategy.queue_max), (1, 20, 300));
        assert_eq!((strategy.seat, strategy.wallet, strategy.lanes), (StrategyName::Memory, StrategyName::Combining, 0));
    }

    #[test]
    fn values_are_toml_and_bare_text_otherwise() {
        let settings = set(&[
            "store.sqlite_path=/srv/box office.db",
            "auth.issuer=\"https://id.example\"",
            "auth.hs256_secret=12345678901234567",
            "auth.queue_keys=[\"a:QUJD\", \"b:REVG\"]",
            "demo.season=false",
            "wallet.self_charge=auto",
            "admission.stock_linked=false",
        ])
        .merge()
        .unwrap();
        assert_eq!(settings.store.sqlite_path.to_str(), Some("/srv/box office.db"));
        assert_eq!(settings.auth.issuer(), Some("https://id.example"));
        assert_eq!(settings.auth.hs256_secret.expose(), "12345678901234567");
        assert_eq!(settings.auth.queue_keys().into_iter().map(|key| key.secret).collect::<Vec<_>>(), [b"ABC".to_vec(), b"DEF".to_vec()]);
        assert_eq!((settings.demo.season, settings.wallet.self_charge), (Switch::Off, Switch::Auto));
        assert!(!settings.admission.stock_linked);
    }

    #[test]
    fn refusals_name_the_key_and_the_allowed_values() {
        for (assignment, wanted) in [
            ("strategy.sea=combining", &["strategy.sea", "seat"][..]),
            ("strategies.seat=combining", &["strategies.seat", "strategy"]),
            (
                "strategy.seat=fastest",
                &["strategy.seat", "fastest", "combining", "simple", "spin", "pubsub", "redlock", "pessimistic", "optimistic", "memory"],
            ),
            ("store.backend=mysql", &["store.backend", "sqlite", "postgres", "memory"]),
            ("queue.backend=kafka", &["queue.backend", "store", "redis", "memory"]),
            ("admission.max_active=many", &["admission.max_active", "a whole number or \"auto\""]),
            ("admission.adaptive=1", &["admission.adaptive", "boolean"]),
            ("admission.lanes=[{ name = \"fans\" }]", &["admission.lanes", "share"]),
            ("hold.ttl_s=4294967297", &["hold.ttl_s", "4294967297"]),
            ("hold.ttl_s=-1", &["hold.ttl_s", "-1"]),
            ("hold.ttl_s=1.5", &["hold.ttl_s"]),
            ("http.listen=nowhere", &["http.listen"]),
            ("demo.season=perhaps", &["demo.season", "auto"]),
            ("auth.algorithm=none", &["auth.algorithm", "HS256", "EdDSA"]),
            ("wait_ms", &["--set wait_ms", "section.key=value"]),
        ] {
            let refusal = refusal(&set(&[assignment]));
            assert!(wanted.iter().all(|part| refusal.contains(part)), "{assignment}: {refusal}");
        }
    }

    #[test]
    fn files_and_variables_are_named_in_refusals() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "[hold]\nttl = 3").unwrap();
        let of_file = |path: &std::path::Path| refusal(&Layers { file: Some(path.to_owned()), ..Layers::default() });
        let refused = of_file(file.path());
        assert!(refused.contains("`hold.ttl`") && refused.contains(file.path().to_str().unwrap()), "{refused}");
        assert!(of_file(std::path::Path::new("no-such.toml")).starts_with("no-such.toml cannot be read"));
        let environment = vec![("BOXOFFICE__HOLD__TTL".into(), "3".into())];
        let refused = refusal(&Layers { environment, ..Layers::default() });
        assert!(refused.starts_with("BOXOFFICE__HOLD__TTL: unknown key `hold.ttl`"), "{refused}");
    }
}
