//! SQL text as prepared once and run many times.
//!
//! diesel keeps a prepared statement only when its query has a static identity; its own `update`, upsert and
//! `sql_query` have none and are prepared on every use, which costs more than running them. A [`Statement`] is a type
//! for each SQL text, with `?` where values go, so the text is its identity and every run after the first hits
//! diesel's cache. Values are always bound, never written into the text.

use boxoffice_domain::{CommandId, ConcertId, DateId, EntryId, PaymentId, QueueEntryId, ReservationId, Timestamp, UserId};
use chrono::DateTime;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl, SqliteConnection};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::str::Split;
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
        $crate::sqlite::sql::statements! { $(#[$doc])* $name -> () = $sql; $($rest)* }
    };
    ($(#[$doc:meta])* $name:ident -> $columns:ty = $sql:expr; $($rest:tt)*) => {
        $(#[$doc])*
        struct $name;
        impl $crate::sqlite::sql::Statement for $name {
            const SQL: &'static str = $sql;
            type Columns = $columns;
        }
        $crate::sqlite::sql::statements! { $($rest)* }
    };
}
pub(super) use statements;

/// Runs a statement that changes rows; says how many.
pub(super) fn run<S: Statement>(conn: &mut SqliteConnection, binds: impl Binds) -> QueryResult<usize> {
    Bound::<S, _> { binds, statement: PhantomData }.execute(conn)
}

/// All rows.
pub(super) fn rows<'q, S: Statement, B: Binds + 'q, R>(conn: &mut SqliteConnection, binds: B) -> QueryResult<Vec<R>>
where
    Bound<S, B>: LoadQuery<'q, SqliteConnection, R>,
{
    Bound::<S, B> { binds, statement: PhantomData }.load(conn)
}

/// The first row, if there is one.
pub(super) fn row<'q, S: Statement, B: Binds + 'q, R>(conn: &mut SqliteConnection, binds: B) -> QueryResult<Option<R>>
where
    Bound<S, B>: LoadQuery<'q, SqliteConnection, R>,
{
    Bound::<S, B> { binds, statement: PhantomData }.get_result(conn).optional()
}

/// A statement with its values.
pub(super) struct Bound<S, B> {
    binds: B,
    statement: PhantomData<fn() -> S>,
}

impl<S: Statement, B> QueryId for Bound<S, B> {
    type QueryId = Bound<S, ()>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S: Statement, B: Binds> QueryFragment<Sqlite> for Bound<S, B> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let mut pass = Pass { out, text: S::SQL.split('?') };
        self.binds.push(&mut pass)?;
        if let Some(end) = pass.text.next() {
            pass.out.push_sql(end);
        }
        debug_assert!(pass.text.next().is_none(), "more places than values: {}", S::SQL);
        Ok(())
    }
}

impl<S: Statement, B> Query for Bound<S, B> {
    type SqlType = S::Columns;
}

impl<S, B> RunQueryDsl<SqliteConnection> for Bound<S, B> {}

/// diesel's walk over a query, beside the text between its values.
pub(super) struct Pass<'a, 'b> {
    out: AstPass<'a, 'b, Sqlite>,
    text: Split<'static, char>,
}

impl<'b> Pass<'_, 'b> {
    fn value<T, U>(&mut self, value: &'b U) -> QueryResult<()>
    where
        Sqlite: diesel::sql_types::HasSqlType<T>,
        U: ToSql<T, Sqlite> + ?Sized,
    {
        if let Some(text) = self.text.next() {
            self.out.push_sql(text);
        }
        self.out.push_bind_param::<T, U>(value)
    }
}

/// A value that can be bound.
pub(super) trait Bind {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()>;
}

impl Bind for i64 {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<BigInt, _>(self)
    }
}

impl Bind for bool {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<Bool, _>(self)
    }
}

impl Bind for &str {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<Text, str>(self)
    }
}

impl Bind for String {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<Text, str>(self)
    }
}

impl Bind for &[u8] {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<Binary, [u8]>(self)
    }
}

impl<T: Bind> Bind for Option<T> {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        static NULL: Option<i64> = None;
        match self {
            Some(value) => value.push(pass),
            None => pass.value::<Nullable<BigInt>, _>(&NULL),
        }
    }
}

macro_rules! bind_ids {
    ($($id:ty),*) => {$(
        impl Bind for $id {
            fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
                pass.value::<Binary, [u8]>(self.0.as_bytes().as_slice())
            }
        }
    )*};
}
bind_ids!(UserId, ConcertId, DateId, ReservationId, PaymentId, EntryId, QueueEntryId, CommandId);

/// The values of one run, in the order of the text.
pub(super) trait Binds {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()>;
}

macro_rules! bind_tuples {
    ($(($($at:tt $T:ident),*))*) => {$(
        impl<$($T: Bind),*> Binds for ($($T,)*) {
            fn push<'b>(&'b self, _pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
                $(self.$at.push(_pass)?;)*
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
}

/// 16 bytes.
impl<T: From<Uuid>> FromSql<Binary, Sqlite> for Id<T> {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.read_blob())?.into()))
    }
}

/// An instant as it is stored: microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromSqlRow)]
pub(super) struct At(pub(super) Timestamp);

impl FromSql<BigInt, Sqlite> for At {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        DateTime::from_timestamp_micros(value.read_long()).map(Self).ok_or_else(|| "an instant out of range".into())
    }
}

impl ToSql<BigInt, Sqlite> for At {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.timestamp_micros());
        Ok(IsNull::No)
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Bind for At {
    fn push<'b>(&'b self, pass: &mut Pass<'_, 'b>) -> QueryResult<()> {
        pass.value::<BigInt, _>(self)
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
