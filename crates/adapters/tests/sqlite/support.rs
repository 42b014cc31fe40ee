//! A fresh file in a temporary folder, and access to it from outside the store.

use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_ports::Clock;
use boxoffice_ports::contract::Fixture;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A migrated file, and the clock of the stores on it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) clock: Arc<SystemClock>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), clock: Arc::new(SystemClock::default()) };
        sqlite::migrate(&place.path()).expect("migrated");
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("boxoffice.db")
    }

    pub(crate) fn open(&self) -> Arc<SqliteStore> {
        self.open_with(self.clock.clone())
    }

    pub(crate) fn open_with(&self, clock: Arc<dyn Clock>) -> Arc<SqliteStore> {
        SqliteStore::open(SqliteOptions { path: self.path(), readers: 4 }, clock, &*boxoffice_ports::contract::supervisor())
            .expect("a store")
    }

    /// Another process's connection.
    pub(crate) fn outside(&self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(self.path().to_str().expect("a path")).expect("a connection");
        conn.batch_execute("PRAGMA busy_timeout = 5000").expect("a time-out");
        conn
    }
}

pub(crate) async fn fixture() -> Fixture {
    let place = Place::new();
    let store = place.open();
    let clock = place.clock.clone();
    Fixture { stores: store.stores(), advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(place) }
}
