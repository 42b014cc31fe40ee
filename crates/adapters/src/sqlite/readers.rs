//! Connections for reading. Each read sees one snapshot of the log, everything committed before it began, and waits
//! for no writer.
//!
//! At most `readers` reads run at once, each on a thread of the runtime's blocking pool; the others wait for their turn
//! for [`WAIT_MAX`] and then fail as unavailable.

use super::failure::Failure;
use super::file::{Role, connect};
use diesel::SqliteConnection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

const WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<SqliteConnection>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, readers: usize) -> Self {
        Self { path, idle: Mutex::default(), turns: Arc::new(Semaphore::new(readers.max(1))) }
    }

    /// Runs `work` on a connection of its own. It goes on to its end when the caller goes away.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, Failure> + Send + 'static,
    {
        let turn = tokio::time::timeout(WAIT_MAX, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Failure::Gone("no reader was free in time"))?;
        let turn = turn.map_err(|_| Failure::Gone("the readers have stopped"))?;
        let readers = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut conn = match idle {
                Some(conn) => conn,
                None => connect(&readers.path, Role::Reader)?,
            };
            let read = work(&mut conn)?;
            // After an error the connection is not trusted: the next read opens another.
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            Ok(read)
        });
        read.await.map_err(|_| Failure::Gone("the read was interrupted"))?
    }
}
