//! SQL text as prepared once for each connection and run many times.
//!
//! diesel keeps a prepared statement only when its query has a static identity; its own `update`, upsert, `eq_any` on
//! lists and `sql_query` have none and are prepared on every use. A [`Statement`] is a type for each SQL text, with
//! `$1`, `$2`, … where values go, so the text is its identity. Values are always bound, never written into the text;
//! many rows go as one array for each column, for `unnest`.
//!
//! The same statements run in two ways: here on a pooled [`Conn`] through diesel-async, one after the other; and on a
//! ledger's [`Session`](super::session::Session), where a whole flight is sent before its first answer is read.

use super::failure::Failure;
use super::pool::Conn;
use boxoffice_domain::{CommandId, ConcertId, DateId, EntryId, PaymentId, QueueEntryId, ReservationId, Timestamp, UserId};
use diesel::QueryResult;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Array, BigInt, Binary, Bool, HasSqlType, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::Write;
use std::marker::PhantomData;
use uuid::Uuid;

pub(super) use crate::columns::{Id, Json, State, Word};

/// One SQL text.
pub(super) trait Statement: 'static {
    const SQL: &'static str;
    /// The SQL types of its columns.
    type Columns: 'static;
}

/// Declares statements: `Name = "…";`, or `Name -> (types of the columns) = "…";`.
macro_rules! statements {
    () => {};
    ($(#[$doc:meta])* $name:ident = $sql:expr; $($rest:tt)*) => {
        $crate::postgres::sql::statements! { $(#[$doc])* $name -> () = $sql; $($rest)* }
    };
    ($(#[$doc:meta])* $name:ident -> $columns:ty = $sql:expr; $($rest:tt)*) => {
        $(#[$doc])*
        pub(super) struct $name;
        impl $crate::postgres::sql::Statement for $name {
            const SQL: &'static str = $sql;
            type Columns = $columns;
        }
        $crate::postgres::sql::statements! { $($rest)* }
    };
}
pub(super) use statements;

/// Runs a statement that changes rows; says how many.
///
/// What these return is boxed: a future that names what it binds is not known to be `Send` by whoever awaits it.
pub(super) fn run<'c, S>(conn: &'c mut Conn, binds: impl Binds + 'c) -> BoxFuture<'c, Result<usize, Failure>>
where
    S: Statement,
{
    async move {
        let until = conn.asks();
        let run = until.bound(diesel_async::RunQueryDsl::execute(Bound::<S, _>::new(binds), conn.diesel())).await;
        conn.answered(run).await
    }
    .boxed()
}

/// All rows.
pub(super) fn rows<'c, S, B, R>(conn: &'c mut Conn, binds: B) -> BoxFuture<'c, Result<Vec<R>, Failure>>
where
    S: Statement,
    B: Binds + 'c,
    R: Send + 'c,
    Bound<S, B>: LoadQuery<'c, AsyncPgConnection, R>,
{
    async move {
        let until = conn.asks();
        let rows = until.bound(diesel_async::RunQueryDsl::load(Bound::<S, _>::new(binds), conn.diesel())).await;
        conn.answered(rows).await
    }
    .boxed()
}

/// The first row, if there is one.
pub(super) fn row<'c, S, B, R>(conn: &'c mut Conn, binds: B) -> BoxFuture<'c, Result<Option<R>, Failure>>
where
    S: Statement,
    B: Binds + 'c,
    R: Send + 'c,
    Bound<S, B>: LoadQuery<'c, AsyncPgConnection, R>,
{
    rows::<S, B, R>(conn, binds).map_ok(|rows| rows.into_iter().next()).boxed()
}

/// A statement with its values.
pub(super) struct Bound<S, B> {
    binds: B,
    statement: PhantomData<fn() -> S>,
}

impl<S, B> Bound<S, B> {
    pub(super) fn new(binds: B) -> Self {
        Self { binds, statement: PhantomData }
    }
}

impl<S: Statement, B> QueryId for Bound<S, B> {
    type QueryId = Bound<S, ()>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S: Statement, B: Binds> QueryFragment<Pg> for Bound<S, B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(S::SQL);
        self.binds.push(&mut out)
    }
}

impl<S: Statement, B> Query for Bound<S, B> {
    type SqlType = S::Columns;
}

impl<S, B> diesel::RunQueryDsl<AsyncPgConnection> for Bound<S, B> {}

/// A value that can be bound: one, or the array of a column.
pub(super) trait Bind: Send + Sync {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

/// What is bound as itself, by itself or within an array.
pub(super) trait Scalar: ToSql<Self::Sql, Pg> + Debug + Send + Sync {
    type Sql: 'static;
}

macro_rules! scalars {
    ($($(#[$lifetime:lifetime])? $type:ty => $sql:ty),* $(,)?) => {$(
        impl$(<$lifetime>)? Scalar for $type {
            type Sql = $sql;
        }

        impl$(<$lifetime>)? Bind for $type {
            fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                out.push_bind_param_value_only::<$sql, _>(self)
            }
        }
    )*};
}
scalars! {
    bool => Bool,
    i32 => Integer,
    i64 => BigInt,
    Uuid => SqlUuid,
    Timestamp => Timestamptz,
    String => Text,
    #['a] &'a str => Text,
    #['a] &'a [u8] => Binary,
}

/// Bound as the UUID it is. In arrays the bare UUIDs are bound.
macro_rules! bind_ids {
    ($($id:ty),*) => {$(
        impl Bind for $id {
            fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                out.push_bind_param_value_only::<SqlUuid, _>(&self.0)
            }
        }
    )*};
}
bind_ids!(UserId, ConcertId, DateId, ReservationId, PaymentId, EntryId, QueueEntryId, CommandId);

impl<T: Scalar> Scalar for Option<T>
where
    Option<T>: ToSql<Nullable<T::Sql>, Pg>,
{
    type Sql = Nullable<T::Sql>;
}

impl<T: Scalar> Bind for Option<T>
where
    Option<T>: ToSql<Nullable<T::Sql>, Pg>,
    Pg: HasSqlType<Nullable<T::Sql>>,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<Nullable<T::Sql>, _>(self)
    }
}

impl<T: Scalar> Bind for Vec<T>
where
    Pg: HasSqlType<T::Sql>,
    [T]: ToSql<Array<T::Sql>, Pg>,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<Array<T::Sql>, [T]>(self.as_slice())
    }
}

/// The values of one run: `$1` first.
pub(super) trait Binds: Send + Sync {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;
}

macro_rules! bind_tuples {
    ($(($($at:tt $T:ident),*))*) => {$(
        impl<$($T: Bind),*> Binds for ($($T,)*) {
            fn push<'b>(&'b self, _out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                $(self.$at.push(_out)?;)*
                Ok(())
            }
        }
    )*};
}
bind_tuples! {
    ()
    (0 A)
    (0 A, 1 B)
    (0 A, 1 B, 2 C)
    (0 A, 1 B, 2 C, 3 D)
    (0 A, 1 B, 2 C, 3 D, 4 E)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K, 11 L)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K, 11 L, 12 M)
    (0 A, 1 B, 2 C, 3 D, 4 E, 5 F, 6 G, 7 H, 8 I, 9 J, 10 K, 11 L, 12 M, 13 N)
}

impl<T: From<Uuid>> FromSql<SqlUuid, Pg> for Id<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.as_bytes())?.into()))
    }
}

/// Where a row lies: block and line. It stays there for as long as this transaction has it locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromSqlRow)]
pub(super) struct Tid([u8; 6]);

/// SQL type `tid`, by its fixed number and its array's.
#[derive(Clone, Copy, Debug, diesel::sql_types::SqlType, QueryId)]
#[diesel(postgres_type(oid = 27, array_oid = 1010))]
pub(super) struct TidType;

impl FromSql<TidType, Pg> for Tid {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(value.as_bytes().try_into()?))
    }
}

impl ToSql<TidType, Pg> for Tid {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&self.0)?;
        Ok(IsNull::No)
    }
}

scalars! { Tid => TidType }

impl<T: DeserializeOwned> FromSql<Text, Pg> for Json<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_slice(value.as_bytes())?))
    }
}

impl<T: Word> FromSql<Text, Pg> for State<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Self::of(value.as_bytes())
    }
}
