//! The one writer: a thread that owns the one connection that writes, fed through a bounded queue. The supervisor
//! restarts it: if the thread ends, another takes over the queue, on a fresh connection.
//!
//! SQLite allows one writing transaction at a time, so more writers would only wait for each other's locks. After each
//! commit the thread takes everything queued into its next transaction: any number of small pieces of work (room records,
//! outbox deletions, pruning) and at most one ledger batch. One flush then serves them all.
//!
//! Queued work runs to its end even if its caller goes away. The exception is a batch that has not begun by its deadline,
//! because another process kept the file locked. When a piece of work fails by its own fault, the transaction is rolled
//! back and every piece runs again alone, so each gets its own answer; so work must be repeatable. Nothing is answered
//! before its commit is flushed. A crash loses only work that was not answered.

use super::failure::Failure;
use super::file::{Role, connect};
use boxoffice_domain::Timestamp;
use boxoffice_ports::{Clock, Deadline, Source, Tasks, WhenFailing};
use diesel::SqliteConnection;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// How many pieces of work may wait. Further callers wait, in order, for a free place in the queue.
const QUEUE_MAX: usize = 4_096;
/// How many pieces of work share one transaction.
const MERGE_MAX: usize = 1_024;

/// The connection that work runs on, inside a transaction that has begun.
pub(super) struct Session {
    pub(super) conn: SqliteConnection,
    pub(super) clock: Arc<dyn Clock>,
    /// The last outbox id given out, see [`Session::outbox_id`].
    pub(super) outbox_id: i64,
}

/// How a piece of work may share a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// With any other.
    Small,
    /// Not with another of these, and not begun later than this.
    Batch(Deadline),
}

impl Share {
    fn is_batch(self) -> bool {
        matches!(self, Self::Batch(_))
    }

    fn is_late(self) -> bool {
        matches!(self, Self::Batch(deadline) if deadline.is_over())
    }
}

pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Work>>,
}

impl Writer {
    /// Starts the thread, restarted by `tasks`. It ends when the last handle is dropped and all queued work is done.
    pub(super) fn start(path: &Path, clock: Arc<dyn Clock>, tasks: &dyn Tasks) -> Result<Self, Failure> {
        let mut first = Some(connect(path, Role::Writer)?);
        let (queue, works) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared { path: path.to_owned(), clock, works: Mutex::new(Works { queue: works, outbox_id: 0 }) });
        let run = move || {
            let (shared, conn) = (shared.clone(), first.take());
            let (end, ended) = oneshot::channel();
            let thread = std::thread::Builder::new().name("sqlite-writer".to_owned());
            let started = thread.spawn(move || end.send(shared.serve(conn)));
            async move {
                drop(started?);
                // Dropped unsent: the thread has panicked.
                ended.await.unwrap_or_else(|_| Err("the writer's thread has panicked".into()))
            }
        };
        tasks.keep("sqlite.writer", WhenFailing::NotReady, run).detach();
        Ok(Self { queue })
    }

    /// Runs `work` in a transaction and answers when its commit is durable.
    pub(super) async fn write<T, F>(&self, share: Share, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnMut(&mut Session) -> Result<T, Failure> + Send + 'static,
    {
        let (piece, answered) = Piece::boxed(share, work);
        match self.queue.try_send(piece) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return Err(STOPPED),
            Err(TrySendError::Full(piece)) => {
                // In a task of its own, so that the work is queued even if the caller goes away meanwhile.
                let queue = self.queue.clone();
                tokio::spawn(async move { queue.send(piece).await });
            }
        }
        answered.wait().await
    }
}

const STOPPED: Failure = Failure::Unavailable("the writer has stopped");

/// The answer to a queued piece of work.
pub(super) struct Answer<T>(oneshot::Receiver<Result<T, Failure>>);

impl<T> Answer<T> {
    pub(super) async fn wait(self) -> Result<T, Failure> {
        self.0.await.map_err(|_| STOPPED)?
    }
}

/// A queued piece of work of any result type.
pub(super) trait Work: Send {
    fn share(&self) -> Share;
    fn run(&mut self, session: &mut Session) -> Result<(), Failure>;
    /// Answers the caller with the last run's result, which is durable now, or with the failure.
    fn answer(self: Box<Self>, outcome: Result<(), Failure>);
}

struct Piece<T, F> {
    share: Share,
    work: F,
    value: Option<T>,
    answer: oneshot::Sender<Result<T, Failure>>,
}

impl<T, F> Piece<T, F>
where
    T: Send + 'static,
    F: FnMut(&mut Session) -> Result<T, Failure> + Send + 'static,
{
    fn boxed(share: Share, work: F) -> (Box<dyn Work>, Answer<T>) {
        let (answer, answered) = oneshot::channel();
        (Box::new(Self { share, work, value: None, answer }), Answer(answered))
    }
}

impl<T: Send, F: FnMut(&mut Session) -> Result<T, Failure> + Send> Work for Piece<T, F> {
    fn share(&self) -> Share {
        self.share
    }

    fn run(&mut self, session: &mut Session) -> Result<(), Failure> {
        // Checked here, under the write lock: the wait for that lock may have been long.
        self.value = if self.share.is_late() { None } else { Some((self.work)(session)?) };
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        let Self { value, answer, .. } = *self;
        let outcome = outcome.and_then(|()| value.ok_or(Failure::Unavailable("timed out waiting for the file's write lock")));
        // Fails if the caller went away; its work is done all the same.
        let _ = answer.send(outcome);
    }
}

/// State that outlives a thread of the writer.
struct Shared {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Locked by the one running thread.
    works: Mutex<Works>,
}

struct Works {
    queue: mpsc::Receiver<Box<dyn Work>>,
    /// The last outbox id given out by any thread.
    outbox_id: i64,
}

impl Shared {
    /// Runs queued work until the last handle is dropped. While the database cannot be opened, queued work is answered
    /// with that failure.
    fn serve(&self, conn: Option<SqliteConnection>) -> Result<(), Source> {
        let works = &mut *self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = conn.map_or_else(|| connect(&self.path, Role::Writer), Ok).and_then(|conn| {
            let mut session = Session { conn, clock: self.clock.clone(), outbox_id: works.outbox_id };
            let served = session.serve_all(&self.path, &mut works.queue);
            works.outbox_id = session.outbox_id;
            served
        });
        let Err(failure) = opened else { return Ok(()) };
        while let Ok(work) = works.queue.try_recv() {
            work.answer(Err(failure.clone()));
        }
        Err(failure.into())
    }
}

/// The work that shares the next transaction: everything up to the second batch.
fn take_group(waiting: &mut Vec<Box<dyn Work>>) -> Vec<Box<dyn Work>> {
    let batches = waiting.iter().enumerate().filter(|(_, work)| work.share().is_batch());
    let end = batches.map(|(at, _)| at).nth(1).unwrap_or(waiting.len());
    waiting.drain(..end).collect()
}

impl Session {
    /// Fails when the database cannot be opened again.
    fn serve_all(&mut self, path: &Path, queue: &mut mpsc::Receiver<Box<dyn Work>>) -> Result<(), Failure> {
        let mut waiting = Vec::new();
        while queue.blocking_recv_many(&mut waiting, MERGE_MAX) > 0 {
            while !waiting.is_empty() {
                let group = take_group(&mut waiting);
                if catch_unwind(AssertUnwindSafe(|| self.serve(group))).is_ok() {
                    continue;
                }
                // A defect, which the panic hook has logged. Its callers get "the writer has stopped"; the transaction ends
                // with the connection, and the next piece of work runs on a fresh one.
                tracing::error!("the writer starts again after a panic");
                match connect(path, Role::Writer) {
                    Ok(conn) => self.conn = conn,
                    Err(failure) => {
                        waiting.into_iter().for_each(|work| work.answer(Err(failure.clone())));
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self, mut group: Vec<Box<dyn Work>>) {
        let outcome = self.transact(&mut group);
        let alone = group.len() == 1 || !outcome.as_ref().is_err_and(Failure::is_own);
        for mut work in group {
            let outcome = if alone { outcome.clone() } else { self.transact(std::slice::from_mut(&mut work)) };
            work.answer(outcome);
        }
    }

    /// Runs all of `group` in one transaction. Without a change the commit writes and flushes nothing.
    fn transact(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), Failure> {
        AnsiTransactionManager::begin_transaction_sql(&mut self.conn, "BEGIN IMMEDIATE")?;
        let ran = group.iter_mut().try_for_each(|work| work.run(self));
        match ran {
            Ok(()) => Ok(AnsiTransactionManager::commit_transaction(&mut self.conn)?),
            Err(failure) => {
                AnsiTransactionManager::rollback_transaction(&mut self.conn)?;
                Err(failure)
            }
        }
    }

    /// The next outbox id of a transaction that began at `now`. Ids ascend in commit order and are never given twice,
    /// although rows are deleted once sent. They follow the clock's microseconds, so a later process starts above them.
    pub(super) fn outbox_id(&mut self, now: Timestamp) -> i64 {
        self.outbox_id = (self.outbox_id + 1).max(now.timestamp_micros());
        self.outbox_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::sqlite::failure::SqliteError;
    use boxoffice_ports::contract::supervisor;
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    #[tokio::test]
    async fn a_writer_that_cannot_reopen_its_file_fails_fast_and_recovers_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("boxoffice.db"), folder.path().join("away.db"));
        crate::sqlite::migrate(&path).unwrap();
        let tasks = supervisor();
        let writer = Writer::start(&path, Arc::new(SystemClock::default()), &*tasks).unwrap();
        let (from, to) = (path.clone(), away.clone());
        let defect = move |_: &mut Session| -> Result<(), Failure> {
            std::fs::rename(&from, &to).unwrap();
            panic!("a defect")
        };
        assert!(writer.write(Share::Small, defect).await.is_err());
        let refused = timeout(Duration::from_secs(5), writer.write(Share::Small, |_| Ok(()))).await.expect("an answer in time");
        assert!(matches!(refused, Err(Failure::Database(SqliteError::Open { .. }))), "{refused:?}");
        let counted = async {
            while tasks.failures("sqlite.writer") == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), counted).await.expect("the supervisor counts its end");
        std::fs::rename(&away, &path).unwrap();
        let writes = async {
            while writer.write(Share::Small, |_| Ok(())).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), writes).await.expect("it writes again");
    }
}
