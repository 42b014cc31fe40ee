//! Statements on a connection of this thread, and values as SQLite keeps them.

use crate::sql::statement::{Bind, Binds, Bound, DomainId};
use boxoffice_domain::Timestamp;
use chrono::DateTime;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::query_builder::AstPass;
use diesel::query_dsl::methods::LoadQuery;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl, SqliteConnection};
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub(super) use crate::sql::columns::{Id, Json, State, Word};
pub(super) use crate::sql::statement::{Statement, statements};

/// Runs a statement that changes rows, and returns how many.
pub(super) fn run<S: Statement>(conn: &mut SqliteConnection, binds: impl Binds<Sqlite>) -> QueryResult<usize> {
    Bound::<S, _>::new(binds).execute(conn)
}

/// All rows.
pub(super) fn rows<'q, S: Statement, B: Binds<Sqlite> + 'q, R>(conn: &mut SqliteConnection, binds: B) -> QueryResult<Vec<R>>
where
    Bound<S, B>: LoadQuery<'q, SqliteConnection, R>,
{
    Bound::<S, B>::new(binds).load(conn)
}

/// The first row, if there is one.
pub(super) fn row<'q, S: Statement, B: Binds<Sqlite> + 'q, R>(conn: &mut SqliteConnection, binds: B) -> QueryResult<Option<R>>
where
    Bound<S, B>: LoadQuery<'q, SqliteConnection, R>,
{
    Bound::<S, B>::new(binds).get_result(conn).optional()
}

macro_rules! binds {
    ($($type:ty => $sql:ty),*) => {$(
        impl Bind<Sqlite> for $type {
            fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
                out.push_bind_param_value_only::<$sql, _>(self)
            }
        }
    )*};
}
binds!(i64 => BigInt, bool => Bool, &str => Text, &[u8] => Binary, At => BigInt);

impl<T: Bind<Sqlite>> Bind<Sqlite> for Option<T> {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        static NULL: Option<i64> = None;
        match self {
            Some(value) => value.push(out),
            None => out.push_bind_param_value_only::<Nullable<BigInt>, _>(&NULL),
        }
    }
}

/// 16 bytes.
impl<T: DomainId> Bind<Sqlite> for T {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_bind_param_value_only::<Binary, [u8]>(self.uuid().as_bytes().as_slice())
    }
}

impl<T: From<Uuid>> FromSql<Binary, Sqlite> for Id<T> {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.read_blob())?.into()))
    }
}

/// An instant as it is stored: microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromSqlRow)]
pub(super) struct At(pub(super) Timestamp);

impl From<Timestamp> for At {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<At> for Timestamp {
    fn from(at: At) -> Self {
        at.0
    }
}

impl FromSql<BigInt, Sqlite> for At {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        DateTime::from_timestamp_micros(value.read_long()).map(Self).ok_or_else(|| "an instant is out of range".into())
    }
}

impl ToSql<BigInt, Sqlite> for At {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.timestamp_micros());
        Ok(IsNull::No)
    }
}

impl<T: DeserializeOwned> FromSql<Text, Sqlite> for Json<T> {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_str(value.read_text())?))
    }
}

impl<T: Word> FromSql<Text, Sqlite> for State<T> {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Self::of(value.read_text().as_bytes())
    }
}
