//! The bridge: a statement's values encoded by diesel and sent by tokio-postgres, its rows received by tokio-postgres and
//! decoded by diesel.
//!
//! **Why diesel**: everything but the ledger's transactions runs through diesel-async (reads, imports, migrations), and
//! SQLite through diesel. One encoding of ids, JSON, states and instants, and one reading of a row into a record
//! ([`crate::sql`]), serve them all. A second set of `ToSql` and `FromSql` could differ from the first.
//!
//! **Why tokio-postgres, for the ledger**: a batch is three round trips at any size, and needs what diesel-async
//! does not offer:
//!
//! * *A whole round trip is sent before its first answer is read*, in a fixed order: that order is the lock order.
//!   diesel-async prepares a statement at its first use, so a later one could overtake it. A [`Session`] prepares all of
//!   them when it is made.
//! * *SQLSTATE*: the ledger tells deadlocks, lock time-outs and lost sessions apart. diesel passes on a few kinds only.
//! * *Deadlines*: a session whose answer is overdue is cut at once, by stopping the task that drives its connection. A
//!   client that is only dropped waits for the answers it is still owed.
//!
//! [`encode`] goes one way, [`decode`] the other; there is no other conversion. The bridge may go once the ledger reaches
//! the same figures on one of the two libraries alone (`--example postgres`, old and new in turn).
//!
//! [`Session`]: super::session::Session

use super::failure::Failure;
use crate::sql::statement::{Binds, Bound, Statement};
use diesel::deserialize::FromSqlRow;
use diesel::pg::{Pg, PgMetadataLookup, PgTypeMetadata, PgValue, TypeOidLookup};
use diesel::query_builder::QueryFragment;
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};
use std::num::NonZeroU32;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A statement's values, encoded by diesel, as tokio-postgres sends them.
pub(super) fn encode<S: Statement>(binds: impl Binds<Pg>) -> Result<Vec<Value>, Failure> {
    let mut collector = RawBytesBindCollector::<Pg>::new();
    let bound = Bound::<S, _>::new(binds);
    let collected = QueryFragment::<Pg>::collect_binds(&bound, &mut collector, &mut BuiltIn, &Pg);
    collected.map_err(|error| Failure::Data(error.to_string()))?;
    Ok(collector.binds.into_iter().map(Value).collect())
}

/// A received row, decoded by diesel.
pub(super) fn decode<S: Statement, R: FromSqlRow<S::Columns, Pg>>(row: tokio_postgres::Row) -> Result<R, Failure> {
    R::build_from_row(&Answer(row)).map_err(|error| Failure::Data(error.to_string()))
}

/// All bound types are PostgreSQL's own, so none is looked up.
struct BuiltIn;

impl PgMetadataLookup for BuiltIn {
    fn lookup_type(&mut self, _: &str, _: Option<&str>) -> PgTypeMetadata {
        PgTypeMetadata::new(0, 0)
    }
}

/// A value as diesel encoded it.
#[derive(Debug)]
pub(super) struct Value(Option<Vec<u8>>);

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

/// A row in the form that diesel decodes.
struct Answer(tokio_postgres::Row);

struct Column<'a>(Option<PgValue<'a>>);

/// Called only by types whose encoding depends on their number; none here does.
struct NotLookedUp;

impl TypeOidLookup for NotLookedUp {
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
        Some(Column(raw.map(|raw| PgValue::new(raw, &NotLookedUp))))
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
