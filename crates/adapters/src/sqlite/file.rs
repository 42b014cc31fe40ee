//! The file: connections to it, its schema, and the lock that keeps a second server away.
//!
//! A connection reads and writes through the write-ahead log with `synchronous = FULL`: a commit returns when the log
//! is flushed, so an answered command survives a loss of power. The log is folded into the file every
//! [`CHECKPOINT_PAGES`] pages.

use super::failure::{Failure, SqliteError};
use boxoffice_ports::StoreError;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// How long a statement waits for another process's transaction, milliseconds.
const BUSY_TIMEOUT_MS: u32 = 5_000;
/// Bytes in a page. A commit writes whole pages, and idempotency keys fall on pages at random, so pages are small.
const PAGE_BYTES: u32 = 4_096;
/// The log's length at which a commit folds it in: 32 MiB.
const CHECKPOINT_PAGES: u32 = 8_192;
/// The size a log is cut back to after a long read has let it grow, bytes.
const LOG_BYTES_KEPT: u32 = 128 << 20;
/// Page cache of one connection, KiB. Small is fast: after a commit that has balanced a tree, SQLite walks the whole
/// cache (64 MiB took a fifth of the writer's time). Other pages are read from the map or the system's page cache.
const WRITER_CACHE_KIB: u32 = 8 << 10;
const READER_CACHE_KIB: u32 = 8 << 10;
/// How much of the file is mapped instead of read, bytes. Shared between connections by the operating system.
const MAPPED_BYTES: u32 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// Opens an existing file; only [`migrate`] creates one.
pub(super) fn connect(path: &Path, role: Role) -> Result<SqliteConnection, Failure> {
    if !path.is_file() {
        return Err(cannot_open(path, "there is no such file: run `boxoffice migrate`"));
    }
    let mut conn = establish(path)?;
    let (cache_kib, read_only) = match role {
        Role::Writer => (WRITER_CACHE_KIB, "OFF"),
        Role::Reader => (READER_CACHE_KIB, "ON"),
    };
    conn.batch_execute(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};
         PRAGMA mmap_size = {MAPPED_BYTES}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA query_only = {read_only};"
    ))
    .map_err(|error| cannot_open(path, error))?;
    Ok(conn)
}

fn establish(path: &Path) -> Result<SqliteConnection, Failure> {
    let text = path.to_str().ok_or_else(|| cannot_open(path, "the path is not UTF-8"))?;
    let mut conn = SqliteConnection::establish(text).map_err(|error| cannot_open(path, error))?;
    conn.batch_execute(&format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};")).map_err(|error| cannot_open(path, error))?;
    Ok(conn)
}

fn cannot_open(path: &Path, reason: impl ToString) -> Failure {
    Failure::Database(SqliteError::Open { path: path.display().to_string(), reason: reason.to_string() })
}

/// Fails unless every migration that this program knows was applied.
pub(super) fn check_schema(conn: &mut SqliteConnection) -> Result<(), Failure> {
    // A file that was never migrated lacks the migrations' table, which asking about pending ones would create.
    let applied = conn.batch_execute("SELECT 1 FROM __diesel_schema_migrations").is_ok()
        && !conn.has_pending_migration(MIGRATIONS).map_err(|error| Failure::Data(error.to_string()))?;
    if applied { Ok(()) } else { Err(Failure::Schema) }
}

/// Creates the file if there is none and brings its schema up to date, in one transaction. Returns the names of the
/// migrations that were applied, none when it was current. Of two processes one migrates and the other waits for it.
pub fn migrate(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut conn = establish(path)?;
    // Page size and journal mode cannot be set inside a transaction. The file keeps both from now on.
    conn.batch_execute(&format!("PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"))
        .map_err(Failure::from)?;
    let applied = conn.immediate_transaction(|conn| {
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| Failure::Data(error.to_string());
        let pending = conn.pending_migrations(MIGRATIONS).map_err(broken)?;
        conn.run_migrations(&pending).map_err(broken)?;
        Ok::<_, Failure>(pending.iter().map(|migration| migration.name().to_string()).collect())
    })?;
    Ok(applied)
}

/// Reverts the schema, newest migration first, and returns the reverted versions. All data is lost.
pub fn revert(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut conn = establish(path)?;
    let reverted = conn.immediate_transaction(|conn| {
        let reverted = conn.revert_all_migrations(MIGRATIONS).map_err(|error| Failure::Data(error.to_string()))?;
        Ok::<_, Failure>(reverted.iter().map(ToString::to_string).collect())
    })?;
    Ok(reverted)
}

/// Held by the one server of a file for as long as it runs. The operating system releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct ServingLock {
    _file: File,
    path: PathBuf,
}

impl ServingLock {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes this process the one server of the file at `path`, by an exclusive lock on `<path>.lock`. The waiting rooms
/// live in the server's memory, so a second server would admit beside the first. `import`, `audit` and `migrate` run
/// without the lock.
pub fn lock_for_serving(path: &Path) -> Result<ServingLock, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&lock_path);
    let file = file.map_err(|error| cannot_open(&lock_path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(ServingLock { _file: file, path: lock_path }),
        Err(TryLockError::WouldBlock) => {
            let reason = format!("another server is running on {}: stop it, or give this one its own file", path.display());
            Err(cannot_open(&lock_path, reason).into())
        }
        Err(TryLockError::Error(error)) => Err(cannot_open(&lock_path, error).into()),
    }
}
