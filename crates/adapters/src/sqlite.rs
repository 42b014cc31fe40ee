//! The embedded default: one SQLite file, nothing else to run.
//!
//! Invariant: an answered command is on the disk (`synchronous = FULL`), and a read that begins after an answer sees it.
//! One [`writer`] thread owns the only connection that writes; [`readers`] read snapshots beside it. Other processes
//! (`import`, `audit`, `migrate`) may use the file at the same time: they and the writer wait for each other's
//! transactions up to a time-out, then fail as unavailable. [`lock_for_serving`] keeps a second server away.
//!
//! # Layout
//!
//! * [`mod@file`]: opening, migrating, locking. [`writer`], [`readers`]: the connections and what runs on them.
//! * [`sql`], [`rows`]: statements that stay prepared, and the SQL types of records.
//! * [`failure`]: errors, and how they are classed.
//! * One file for each port: [`ledger`], [`queries`], [`catalog`], [`upkeep`], [`outbox`], [`audit`], [`secrets`],
//!   [`room_mirror`], [`mod@room_log`].

mod audit;
mod catalog;
mod failure;
mod file;
mod ledger;
mod outbox;
mod queries;
mod readers;
mod room_log;
mod room_mirror;
mod rows;
mod secrets;
mod sql;
mod upkeep;
mod writer;

pub use file::{ServingLock, lock_for_serving, migrate, revert};

use crate::stores::stores;
use boxoffice_ports::{Clock, StoreError, Stores, Tasks};
use file::{Role, check_schema, connect};
use readers::Readers;
use std::path::PathBuf;
use std::sync::Arc;
use writer::Writer;

/// SQLite's version.
pub fn version() -> String {
    libsqlite3_sys::SQLITE_VERSION.to_string_lossy().into_owned()
}

/// Where the file is, and how many reads may run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    pub path: PathBuf,
    pub readers: usize,
}

/// One open file. The writer's thread ends with the last handle.
pub struct SqliteStore {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
}

impl SqliteStore {
    /// Opens a file that [`migrate`] has brought up to date; fails as unavailable, with the reason, if it is missing or not
    /// current. `tasks` restarts the writer's thread. Must be called in a runtime.
    pub fn open(options: SqliteOptions, clock: Arc<dyn Clock>, tasks: &dyn Tasks) -> Result<Arc<Self>, StoreError> {
        let mut conn = connect(&options.path, Role::Writer)?;
        check_schema(&mut conn)?;
        drop(conn);
        let writer = Arc::new(Writer::start(&options.path, clock.clone(), tasks)?);
        let readers = Arc::new(Readers::new(options.path, options.readers));
        Ok(Arc::new(Self { writer, readers, clock }))
    }

    /// The file behind each port.
    pub fn stores(self: &Arc<Self>) -> Stores {
        stores(self)
    }
}
