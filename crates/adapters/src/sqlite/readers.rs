//! Connections for reading. Each read sees one snapshot of the log, with everything committed before it began, and waits
//! for no writer.
//!
//! At most `readers` reads run at once, each on a thread of the runtime's blocking pool. Further reads wait up to
//! [`WAIT_MAX`] for a free connection and then fail as unavailable.

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
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, readers: usize) -> Self {
        Self { path, idle: Mutex::default(), permits: Arc::new(Semaphore::new(readers.max(1))) }
    }

    /// Runs `work` on a connection of its own, to its end even if the caller goes away.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> Result<T, Failure> + Send + 'static,
    {
        let permit = tokio::time::timeout(WAIT_MAX, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Failure::Unavailable("timed out waiting for a free reader"))?;
        let permit = permit.map_err(|_| Failure::Unavailable("the readers have stopped"))?;
        let readers = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut conn = match idle {
                Some(conn) => conn,
                None => connect(&readers.path, Role::Reader)?,
            };
            let read = work(&mut conn)?;
            // After an error the connection is dropped, and the next read opens another.
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            Ok(read)
        });
        read.await.map_err(|_| Failure::Unavailable("the read was interrupted"))?
    }
}
