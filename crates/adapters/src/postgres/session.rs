//! A ledger's connection: its statements are prepared when it is made, and everything for a round trip is sent before the
//! first answer is read.
//!
//! A future of [`Session::rows`] or [`Session::run`] is sent when it is first polled, so joined futures go out together,
//! in order, and the server runs them while their answers travel back. Every statement is prepared beforehand: preparing
//! in between would let a later statement overtake it.
//!
//! After a failure a session is rolled back; one that cannot roll back is closed and never used again.
//!
//! *Bounds.* A session is lent until a deadline, which bounds all its round trips but the commit. The outcome of a commit
//! is needed, so the transaction's task waits up to [`COMMIT_MAX`] for it.

use super::bridge::{Value, decode, encode};
use super::connect::Cut;
use super::failure::{Failure, timed_out};
use crate::sql::statement::{Binds, Statement, statements};
use boxoffice_ports::{Deadline, Traffic};
use diesel::deserialize::FromSqlRow;
use diesel::pg::Pg;
use diesel::sql_types::Bool;
use futures_util::TryStreamExt;
use futures_util::future::{BoxFuture, ready, try_join_all};
use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement as Prepared};

statements! {
    /// Whether a write would be refused here: on a standby, or in a database that was made read-only.
    SelectReadOnly -> Bool = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";
}

/// A statement that is prepared with the session: its identity and its text.
pub(super) type Known = (TypeId, &'static str);

pub(super) fn known<S: Statement>() -> Known {
    (TypeId::of::<S>(), S::SQL)
}

/// How long a commit may take before its outcome counts as unknown. A server that vanished is noticed earlier.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How long a roll-back may take.
const ROLLBACK_MAX: Duration = Duration::from_secs(2);

/// A statement's answer. Its values are encoded already; it is sent when this is first polled.
pub(super) type Answers<'s, T> = BoxFuture<'s, Result<T, Failure>>;

pub(super) struct Session {
    client: Client,
    made: Instant,
    prepared: HashMap<TypeId, Prepared>,
    traffic: Arc<Traffic>,
    until: Deadline,
    _cut: Cut,
}

impl Session {
    /// Prepares `all` in one round trip, on a connection that was requested at `made`.
    pub(super) async fn prepare(
        client: Client,
        cut: Cut,
        made: Instant,
        all: &[Known],
        traffic: Arc<Traffic>,
        until: Deadline,
    ) -> Result<Self, Failure> {
        let preparing = until.bound(try_join_all(all.iter().map(|(_, sql)| client.prepare(sql)))).await;
        let prepared = preparing.map_err(timed_out)??;
        let prepared = all.iter().map(|(id, _)| *id).zip(prepared).collect();
        Ok(Self { client, made, prepared, traffic, until, _cut: cut })
    }

    /// Sets the next transaction's deadline.
    pub(super) fn lend(&mut self, until: Deadline) {
        self.until = until;
    }

    pub(super) fn made(&self) -> Instant {
        self.made
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends joined statements together and waits for all their answers.
    pub(super) async fn round_trip<T>(&self, answers: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.until.bound(answers).await.unwrap_or_else(|overdue| Err(timed_out(overdue)))
    }

    /// All rows of a statement.
    pub(super) fn rows<'s, S, R>(&'s self, binds: impl Binds<Pg>) -> Answers<'s, Vec<R>>
    where
        S: Statement,
        R: FromSqlRow<S::Columns, Pg> + Send + 's,
    {
        let bound = self.bind::<S>(binds);
        Box::pin(async move {
            let (statement, values) = bound?;
            let stream = cause(self.client.query_raw(statement, values).await).await?;
            let mut stream = std::pin::pin!(stream);
            let mut rows = Vec::new();
            while let Some(row) = cause(stream.try_next().await).await? {
                rows.push(decode::<S, R>(row)?);
            }
            Ok(rows)
        })
    }

    /// Begins a transaction. A failed transaction that was left open refuses `BEGIN` itself, so its answer is the cause.
    pub(super) fn begin<S: Statement>(&self) -> Answers<'_, ()> {
        let bound = self.bind::<S>(());
        Box::pin(async move {
            let (statement, values) = bound?;
            self.client.execute_raw(statement, values).await?;
            Ok(())
        })
    }

    /// The number of rows that a statement changed.
    pub(super) fn run<S: Statement>(&self, binds: impl Binds<Pg>) -> Answers<'_, usize> {
        let bound = self.bind::<S>(binds);
        Box::pin(async move {
            let (statement, values) = bound?;
            let changed = cause(self.client.execute_raw(statement, values).await).await?;
            Ok(usize::try_from(changed).unwrap_or(usize::MAX))
        })
    }

    /// The rows of a statement that is sent only if `wanted`.
    pub(super) fn rows_if<'s, S, R>(&'s self, wanted: bool, binds: impl Binds<Pg>) -> Answers<'s, Vec<R>>
    where
        S: Statement,
        R: FromSqlRow<S::Columns, Pg> + Send + 's,
    {
        if wanted { self.rows::<S, R>(binds) } else { Box::pin(ready(Ok(Vec::new()))) }
    }

    /// The same for the number of rows changed.
    pub(super) fn run_if<S: Statement>(&self, wanted: bool, binds: impl Binds<Pg>) -> Answers<'_, usize> {
        if wanted { self.run::<S>(binds) } else { Box::pin(ready(Ok(0))) }
    }

    /// Runs a statement that must change all of `expected` rows; sends nothing for none.
    pub(super) fn write<S: Statement>(&self, what: &'static str, expected: usize, binds: impl Binds<Pg>) -> Answers<'_, ()> {
        let changed = self.run_if::<S>(expected > 0, binds);
        Box::pin(async move { Failure::check_count(what, changed.await?, expected) })
    }

    /// Call only after every earlier statement has succeeded. Past the deadline no commit begins: its callers have been
    /// answered.
    pub(super) async fn commit(&self) -> Result<(), Failure> {
        if self.until.is_over() {
            return Err(Failure::Unavailable("the deadline passed before the commit"));
        }
        self.traffic.statements(1);
        Deadline::after(COMMIT_MAX).bound(self.client.batch_execute("COMMIT")).await.map_err(timed_out)??;
        self.traffic.commit();
        Ok(())
    }

    /// Waits for the answers to earlier statements, too.
    pub(super) async fn rollback(&self) -> Result<(), Failure> {
        self.traffic.statements(1);
        let done = Deadline::after(ROLLBACK_MAX).bound(self.client.batch_execute("ROLLBACK")).await;
        Ok(done.map_err(timed_out)??)
    }

    fn bind<S: Statement>(&self, binds: impl Binds<Pg>) -> Result<(&Prepared, Vec<Value>), Failure> {
        self.traffic.statements(1);
        let Some(statement) = self.prepared.get(&TypeId::of::<S>()) else {
            return Err(Failure::Data(format!("not prepared: {}", S::SQL)));
        };
        Ok((statement, encode::<S>(binds)?))
    }
}

/// A statement's answer. One that only reports an earlier statement's failure never resolves: the earlier answer holds
/// the cause, may be polled later, and ends the round trip.
async fn cause<T>(answer: Result<T, tokio_postgres::Error>) -> Result<T, Failure> {
    match answer {
        Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => std::future::pending().await,
        answer => Ok(answer?),
    }
}
