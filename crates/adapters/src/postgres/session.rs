//! A ledger's connection: statements prepared when it is made, and whole flights sent before the first answer is read.
//!
//! What [`Session::rows`] and [`Session::run`] return is sent when it is first polled, so futures that are joined go out
//! together, in order, and the server works through them while their answers travel back. Every statement is prepared
//! beforehand: preparing in between would let a later one overtake.
//!
//! A session that failed is asked to roll back; one that cannot is cut, never used again.
//!
//! *Bounds.* A session is lent until a deadline, which bounds its flights together, but for the commit: its outcome is
//! wanted, so it is waited for, [`COMMIT_MAX`] at most, by whoever runs the transaction.

use super::connect::Cut;
use super::failure::{Failure, all};
use super::sql::{Binds, Bound, Statement};
use boxoffice_ports::{Deadline, Traffic};
use diesel::deserialize::FromSqlRow;
use diesel::pg::{Pg, PgMetadataLookup, PgTypeMetadata, PgValue, TypeOidLookup};
use diesel::query_builder::QueryFragment;
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};
use futures_util::TryStreamExt;
use futures_util::future::{BoxFuture, ready, try_join_all};
use std::any::TypeId;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement as Prepared};

/// A statement that is prepared with the session.
pub(super) type Known = (TypeId, &'static str);

/// How a list of them is written down.
pub(super) fn known<S: Statement>() -> Known {
    (TypeId::of::<S>(), S::SQL)
}

/// How long a commit may take before its outcome is taken for unknown. A server that vanished is noticed earlier.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How long a roll-back may take.
const ROLLBACK_MAX: Duration = Duration::from_secs(2);

/// What a statement will answer, encoded already and sent when it is first polled.
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
    /// Prepares `all` in one flight, on a connection that was asked for at `made`.
    pub(super) async fn prepare(
        client: Client,
        cut: Cut,
        made: Instant,
        all: &[Known],
        traffic: Arc<Traffic>,
        until: Deadline,
    ) -> Result<Self, Failure> {
        let preparing = until.bound(try_join_all(all.iter().map(|(_, sql)| client.prepare(sql)))).await;
        let prepared = preparing.map_err(Failure::Silent)??;
        let prepared = all.iter().map(|(id, _)| *id).zip(prepared).collect();
        Ok(Self { client, made, prepared, traffic, until, _cut: cut })
    }

    /// For the next transaction.
    pub(super) fn lend(&mut self, until: Deadline) {
        self.until = until;
    }

    pub(super) fn made(&self) -> Instant {
        self.made
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for all answers of what is sent together.
    pub(super) async fn flight<T>(&self, answers: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.until.bound(answers).await.unwrap_or_else(|overdue| Err(Failure::Silent(overdue)))
    }

    /// Everything that a statement gives.
    pub(super) fn rows<'s, S, R>(&'s self, binds: impl Binds) -> Answers<'s, Vec<R>>
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
                rows.push(R::build_from_row(&Answer(row)).map_err(|error| Failure::Data(error.to_string()))?);
            }
            Ok(rows)
        })
    }

    /// Begins a transaction. A failed one that was left behind refuses this itself, which no other answer explains.
    pub(super) fn begin<S: Statement>(&self) -> Answers<'_, ()> {
        let bound = self.bind::<S>(());
        Box::pin(async move {
            let (statement, values) = bound?;
            self.client.execute_raw(statement, values).await?;
            Ok(())
        })
    }

    /// How many rows a statement changed.
    pub(super) fn run<S: Statement>(&self, binds: impl Binds) -> Answers<'_, usize> {
        let bound = self.bind::<S>(binds);
        Box::pin(async move {
            let (statement, values) = bound?;
            let changed = cause(self.client.execute_raw(statement, values).await).await?;
            Ok(usize::try_from(changed).unwrap_or(usize::MAX))
        })
    }

    /// Nothing is sent unless it is `wanted`.
    pub(super) fn rows_if<'s, S, R>(&'s self, wanted: bool, binds: impl Binds) -> Answers<'s, Vec<R>>
    where
        S: Statement,
        R: FromSqlRow<S::Columns, Pg> + Send + 's,
    {
        if wanted { self.rows::<S, R>(binds) } else { Box::pin(ready(Ok(Vec::new()))) }
    }

    /// Nothing is sent unless it is `wanted`.
    pub(super) fn run_if<S: Statement>(&self, wanted: bool, binds: impl Binds) -> Answers<'_, usize> {
        if wanted { self.run::<S>(binds) } else { Box::pin(ready(Ok(0))) }
    }

    /// Runs a statement for `expected` rows, none of which it may miss; sends nothing for none.
    pub(super) fn write<S: Statement>(&self, what: &'static str, expected: usize, binds: impl Binds) -> Answers<'_, ()> {
        let changed = self.run_if::<S>(expected > 0, binds);
        Box::pin(async move { all(what, changed.await?, expected) })
    }

    /// To be called only when every statement before has succeeded. What has not begun by the deadline does not begin:
    /// its callers have been answered.
    pub(super) async fn commit(&self) -> Result<(), Failure> {
        if self.until.is_over() {
            return Err(Failure::Gone("the time was over before the commit"));
        }
        self.traffic.statements(1);
        Deadline::after(COMMIT_MAX).bound(self.client.batch_execute("COMMIT")).await.map_err(Failure::Silent)??;
        self.traffic.commit();
        Ok(())
    }

    /// Waits for what was sent before, too.
    pub(super) async fn rollback(&self) -> Result<(), Failure> {
        self.traffic.statements(1);
        let done = Deadline::after(ROLLBACK_MAX).bound(self.client.batch_execute("ROLLBACK")).await;
        Ok(done.map_err(Failure::Silent)??)
    }

    fn bind<S: Statement>(&self, binds: impl Binds) -> Result<(&Prepared, Vec<Value>), Failure> {
        self.traffic.statements(1);
        let Some(statement) = self.prepared.get(&TypeId::of::<S>()) else {
            return Err(Failure::Data(format!("not prepared: {}", S::SQL)));
        };
        let mut collector = RawBytesBindCollector::<Pg>::new();
        let bound = Bound::<S, _>::new(binds);
        bound.collect_binds(&mut collector, &mut BuiltIn, &Pg).map_err(|error| Failure::Data(error.to_string()))?;
        Ok((statement, collector.binds.into_iter().map(Value).collect()))
    }
}

/// An answer, unless it only says that an earlier statement of the flight has failed. That one's own answer says why; it
/// came before, but may be looked at later. So this one is waited for in vain, until the flight is over.
async fn cause<T>(answer: Result<T, tokio_postgres::Error>) -> Result<T, Failure> {
    match answer {
        Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => std::future::pending().await,
        answer => Ok(answer?),
    }
}

/// Types are PostgreSQL's own, so none has to be looked up.
struct BuiltIn;

impl PgMetadataLookup for BuiltIn {
    fn lookup_type(&mut self, _: &str, _: Option<&str>) -> PgTypeMetadata {
        PgTypeMetadata::new(0, 0)
    }
}

/// A value as diesel encoded it.
#[derive(Debug)]
struct Value(Option<Vec<u8>>);

impl ToSql for Value {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A row as diesel decodes it.
struct Answer(tokio_postgres::Row);

struct Column<'a>(Option<PgValue<'a>>);

/// Asked only by types whose encoding depends on it, of which there are none here.
struct Unasked;

impl TypeOidLookup for Unasked {
    fn lookup(&self) -> NonZeroU32 {
        NonZeroU32::MIN
    }
}

struct Raw<'a>(Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl RowSealed for Answer {}

impl<'a> Row<'a, Pg> for Answer {
    type Field<'f>
        = Column<'f>
    where
        'a: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        self.0.len()
    }

    fn get<'b, I>(&'b self, index: I) -> Option<Self::Field<'b>>
    where
        'a: 'b,
        Self: RowIndex<I>,
    {
        let at = self.idx(index)?;
        let Raw(raw) = self.0.try_get(at).ok()?;
        Some(Column(raw.map(|raw| PgValue::new(raw, &Unasked))))
    }

    fn partial_row(&self, range: std::ops::Range<usize>) -> PartialRow<'_, Self::InnerPartialRow> {
        PartialRow::new(self, range)
    }
}

impl RowIndex<usize> for Answer {
    fn idx(&self, at: usize) -> Option<usize> {
        (at < self.0.len()).then_some(at)
    }
}

impl<'a> RowIndex<&'a str> for Answer {
    fn idx(&self, name: &'a str) -> Option<usize> {
        self.0.columns().iter().position(|column| column.name() == name)
    }
}

impl<'a> Field<'a, Pg> for Column<'a> {
    fn field_name(&self) -> Option<&str> {
        None
    }

    fn value(&self) -> Option<PgValue<'_>> {
        self.0
    }
}
