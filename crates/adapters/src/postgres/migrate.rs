//! The schema: applied, checked, reverted.
//!
//! A migration holds an advisory lock of the database: of several instances that start together one migrates, and the
//! others find the schema current. diesel's migrations block, so they run on a thread of their own with its own runtime;
//! the caller needs none.

use super::connect::Address;
use super::failure::{Failure, PostgresError};
use super::pool::{Conn, establish};
use super::sql::{row, statements};
use boxoffice_ports::StoreError;
use diesel::pg::Pg;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// The advisory lock's number, reserved for migrations of this schema.
const LOCK: i64 = 0x626f_786f_6666_6963;

statements! {
    CountApplied -> BigInt = "SELECT count(*) FROM __diesel_schema_migrations";
    FindTable -> BigInt = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('__diesel_schema_migrations')";
}

/// Brings the schema of the database at `url` up to date. Returns the names of the migrations that were applied, none
/// when it was current. May be called on any thread, with or without a runtime; blocks until it has finished.
pub fn migrate(url: &str) -> Result<Vec<String>, StoreError> {
    Ok(alone(url, |harness| {
        let pending = harness.pending_migrations(MIGRATIONS)?;
        harness.run_migrations(&pending)?;
        Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
    })?)
}

/// Reverts the schema, newest migration first, and returns the reverted versions. All data is lost.
pub fn revert(url: &str) -> Result<Vec<String>, StoreError> {
    Ok(alone(url, |harness| Ok(harness.revert_all_migrations(MIGRATIONS)?.iter().map(ToString::to_string).collect()))?)
}

/// Runs `work` under the lock, on a thread of its own.
fn alone<F>(url: &str, work: F) -> Result<Vec<String>, Failure>
where
    F: FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<Vec<String>, boxoffice_ports::Source> + Send,
{
    let address = Address::parse(url)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("migrate".to_owned()).spawn_scoped(scope, move || {
            // The harness blocks one worker of the runtime; the connection needs another.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.map_err(|_| Failure::Unavailable("no runtime could be started"))?;
            runtime.block_on(async {
                let connection = locked(&address).await?;
                tokio::task::block_in_place(|| work(&mut AsyncMigrationHarness::new(connection)))
                    .map_err(|error| Failure::Data(error.to_string()))
            })
        });
        let thread = thread.map_err(|_| Failure::Unavailable("no thread could be started"))?;
        thread.join().map_err(|_| Failure::Unavailable("the migration was interrupted"))?
    })
}

/// A connection that holds the lock until it ends.
async fn locked(address: &Address) -> Result<AsyncPgConnection, Failure> {
    let mut connection = establish(address).await?;
    // Another instance's migration may take long: wait for the lock without a bound.
    let lock = format!("SET lock_timeout = 0; SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK})");
    connection.batch_execute(&lock).await.map_err(PostgresError::Diesel)?;
    Ok(connection)
}

/// Fails unless every migration that this program knows was applied.
pub(super) async fn check_schema(conn: &mut Conn) -> Result<(), Failure> {
    let found: Option<i64> = row::<FindTable, _, _>(conn, ()).await?;
    if found != Some(1) {
        return Err(Failure::Schema);
    }
    let known = diesel::migration::MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(|error| Failure::Data(error.to_string()))?;
    let applied: Option<i64> = row::<CountApplied, _, _>(conn, ()).await?;
    if applied >= i64::try_from(known.len()).ok() { Ok(()) } else { Err(Failure::Schema) }
}
