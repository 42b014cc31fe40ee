//! Statements on a pooled [`Conn`], one after the other, and values as PostgreSQL keeps them.
//!
//! Placeholders are `$1`, `$2`, …; many rows go as one array for each column, for `unnest`. A ledger's
//! [`Session`](super::session::Session) runs the same statements, a whole round trip at a time.

use super::failure::Failure;
use super::pool::Conn;
use crate::sql::statement::{Bind, Binds, Bound, DomainId};
use boxoffice_domain::Timestamp;
use diesel::QueryResult;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::{AstPass, QueryId};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Array, BigInt, Binary, Bool, HasSqlType, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::Write;
use uuid::Uuid;

pub(super) use crate::sql::columns::{Id, Json, State, Word};
pub(super) use crate::sql::statement::{Statement, statements};

/// Runs a statement that changes rows, and returns how many.
///
/// The futures are boxed: the compiler cannot show that a future which names its bound values is `Send`.
pub(super) fn run<'c, S>(conn: &'c mut Conn, binds: impl Binds<Pg> + 'c) -> BoxFuture<'c, Result<usize, Failure>>
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
    B: Binds<Pg> + 'c,
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
    B: Binds<Pg> + 'c,
    R: Send + 'c,
    Bound<S, B>: LoadQuery<'c, AsyncPgConnection, R>,
{
    rows::<S, B, R>(conn, binds).map_ok(|rows| rows.into_iter().next()).boxed()
}

/// A value that is bound as itself, alone or within the array of a column.
pub(super) trait Scalar: ToSql<Self::Sql, Pg> + Debug + Send + Sync {
    type Sql: 'static;
}

macro_rules! scalars {
    ($($(#[$lifetime:lifetime])? $type:ty => $sql:ty),* $(,)?) => {$(
        impl$(<$lifetime>)? Scalar for $type {
            type Sql = $sql;
        }

        impl$(<$lifetime>)? Bind<Pg> for $type {
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
    Tid => TidType,
}

/// In arrays the bare UUIDs are bound.
impl<T: DomainId> Bind<Pg> for T {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<SqlUuid, _>(self.uuid())
    }
}

impl<T: Scalar> Scalar for Option<T>
where
    Option<T>: ToSql<Nullable<T::Sql>, Pg>,
{
    type Sql = Nullable<T::Sql>;
}

impl<T: Scalar> Bind<Pg> for Option<T>
where
    Option<T>: ToSql<Nullable<T::Sql>, Pg>,
    Pg: HasSqlType<Nullable<T::Sql>>,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<Nullable<T::Sql>, _>(self)
    }
}

impl<T: Scalar> Bind<Pg> for Vec<T>
where
    Pg: HasSqlType<T::Sql>,
    [T]: ToSql<Array<T::Sql>, Pg>,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<Array<T::Sql>, [T]>(self.as_slice())
    }
}

impl<T: From<Uuid>> FromSql<SqlUuid, Pg> for Id<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.as_bytes())?.into()))
    }
}

/// A row's place, block and line (`ctid`), which stays the same for as long as this transaction has the row locked.
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
