//! Where the facts and the waiting rooms are kept.

use crate::config::values::SecretUrl;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Default number of connections that read an SQLite file.
const SQLITE_READERS: usize = 4;
/// Default number of connections of one instance to PostgreSQL, beside those of the lanes: several instances fit into
/// the 100 that a server allows by default.
const POSTGRES_CONNECTIONS: usize = 16;
/// Commands that may be at a store in this process at the same time, under strategies that decide one by one.
const COMMANDS_AT_ONCE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreBackend {
    Sqlite,
    Postgres,
    Memory,
}

impl StoreBackend {
    /// Its name in the configuration.
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
    /// 0: as many as suit the store. Use [`StoreSettings::connection_count`].
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

    /// How many commands may be at the store at the same time under strategies that decide one by one. PostgreSQL: as
    /// many as there are connections for them, which is half of all. The other commands wait in this process.
    pub fn commands_at_once(&self) -> usize {
        match self.backend {
            StoreBackend::Postgres => (self.connection_count() / 2).max(1),
            StoreBackend::Sqlite | StoreBackend::Memory => COMMANDS_AT_ONCE,
        }
    }

    /// The file or the address of the store, without passwords.
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
    /// In the store, beside its rows.
    Store,
    Redis,
    Memory,
}

impl QueueBackend {
    /// Its name in the configuration.
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
