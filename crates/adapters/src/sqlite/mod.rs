//! The embedded default: one SQLite file, nothing else to run.
//!
//! Invariant: what was answered is on the disk (`synchronous = FULL`), and a read that begins after an answer sees it.
//! One [`writer`] thread owns the only connection that writes; [`readers`] read snapshots beside it. Other processes
//! (`import`, `audit`, `migrate`) may use the file at the same time: they and the writer wait for each other's
//! transactions up to a time-out, then fail as unavailable. A second server is kept away by [`lock_for_serving`].
//!
//! # Layout
//!
//! * [`mod@file`]: opening, migrating, locking. [`writer`], [`readers`]: who runs what on which connection.
//! * [`sql`], [`rows`]: statements that stay prepared, and rows as the domain knows them.
//! * [`failure`]: what went wrong, and what each port calls it.
//! * [`ledger`], [`queries`], [`catalog`], [`upkeep`], [`audit`], [`mod@room_log`]: the ports.

mod audit;
mod catalog;
mod failure;
mod file;
mod ledger;
mod mirror;
mod queries;
mod readers;
mod room_log;
mod rows;
mod sql;
mod upkeep;
mod writer;

pub use file::{ServingLock, lock_for_serving, migrate, revert};

use boxoffice_ports::{Clock, StoreError, Stores, Tasks};
use failure::Failure;
use file::{Role, check_schema, connect};
use readers::Readers;
use std::path::PathBuf;
use std::sync::Arc;
use writer::Writer;

/// The library's version.
pub fn version() -> String {
    libsqlite3_sys::SQLITE_VERSION.to_string_lossy().into_owned()
}

/// Where the file is, and how many reads may run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    pub path: PathBuf,
    pub readers: usize,
}

/// One file, open. The writer's thread, which `tasks` keeps, ends with the last handle.
pub struct SqliteStore {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens a file that [`migrate`] has brought up to date; fails as unavailable, saying why, if it is missing or not
    /// current. Must be called in a runtime.
    pub fn open(options: SqliteOptions, clock: Arc<dyn Clock>, tasks: &dyn Tasks) -> Result<Arc<Self>, StoreError> {
        let mut conn = connect(&options.path, Role::Writer)?;
        check_schema(&mut conn)?;
        drop(conn);
        let writer = Arc::new(Writer::start(&options.path, clock.clone(), tasks)?);
        let readers = Arc::new(Readers::new(options.path, options.readers));
        Ok(Arc::new(Self { writer, readers, clock }))
    }

    /// The file through each port.
    pub fn stores(self: &Arc<Self>) -> Stores {
        Stores {
            ledger: self.clone(),
            queries: self.clone(),
            catalog: self.clone(),
            upkeep: self.clone(),
            outbox: self.clone(),
            audit: self.clone(),
            secrets: self.clone(),
            mirror: self.clone(),
        }
    }
}
