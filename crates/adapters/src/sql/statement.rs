//! SQL text that is prepared once for each connection and run many times.
//!
//! diesel keeps a prepared statement only when its query has a static identity; its own `update`, upsert, `eq_any` on
//! lists and `sql_query` have none and are prepared on every use, which costs more than running them. A [`Statement`] is
//! a type for each SQL text, with placeholders where values go, so the text is its identity and every run after the first
//! hits diesel's cache. Values are always bound, never written into the text.

use boxoffice_domain::{CommandId, ConcertId, DateId, EntryId, PaymentId, QueueEntryId, ReservationId, UserId};
use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use std::marker::PhantomData;
use uuid::Uuid;

/// One SQL text.
pub(crate) trait Statement: 'static {
    const SQL: &'static str;
    /// The SQL types of its columns.
    type Columns: 'static;
}

/// Declares statements: `Name = "…";`, or `Name -> (types of the columns) = "…";`.
macro_rules! statements {
    () => {};
    ($(#[$doc:meta])* $name:ident = $sql:expr; $($rest:tt)*) => {
        $crate::sql::statement::statements! { $(#[$doc])* $name -> () = $sql; $($rest)* }
    };
    ($(#[$doc:meta])* $name:ident -> $columns:ty = $sql:expr; $($rest:tt)*) => {
        $(#[$doc])*
        pub(super) struct $name;
        impl $crate::sql::statement::Statement for $name {
            const SQL: &'static str = $sql;
            type Columns = $columns;
        }
        $crate::sql::statement::statements! { $($rest)* }
    };
}
pub(crate) use statements;

/// A statement with its values.
pub(crate) struct Bound<S, B> {
    binds: B,
    statement: PhantomData<fn() -> S>,
}

impl<S, B> Bound<S, B> {
    pub(crate) fn new(binds: B) -> Self {
        Self { binds, statement: PhantomData }
    }
}

impl<S: Statement, B> QueryId for Bound<S, B> {
    type QueryId = Bound<S, ()>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<DB: Backend, S: Statement, B: Binds<DB>> QueryFragment<DB> for Bound<S, B> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let is_numbered = S::SQL.contains('$');
        debug_assert!(is_numbered || S::SQL.matches('?').count() == B::COUNT, "another number of values than of places: {}", S::SQL);
        out.push_sql(S::SQL);
        self.binds.push(&mut out)
    }
}

impl<S: Statement, B> Query for Bound<S, B> {
    type SqlType = S::Columns;
}

impl<S, B, C> diesel::RunQueryDsl<C> for Bound<S, B> {}

/// A value that can be bound.
pub(crate) trait Bind<DB: Backend>: Send + Sync {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>;
}

/// The values of one run, in the order of their placeholders.
pub(crate) trait Binds<DB: Backend>: Send + Sync {
    const COUNT: usize;

    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>;
}

macro_rules! bind_tuples {
    ($(($($at:tt $T:ident),*))*) => {$(
        impl<DB: Backend, $($T: Bind<DB>),*> Binds<DB> for ($($T,)*) {
            const COUNT: usize = {
                const AT: &[usize] = &[$($at),*];
                AT.len()
            };

            fn push<'b>(&'b self, _out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()> {
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

/// An id of the domain, each bound as the UUID it is.
pub(crate) trait DomainId: Send + Sync {
    fn uuid(&self) -> &Uuid;
}

macro_rules! domain_ids {
    ($($id:ty),*) => {$(
        impl DomainId for $id {
            fn uuid(&self) -> &Uuid {
                &self.0
            }
        }
    )*};
}
domain_ids!(UserId, ConcertId, DateId, ReservationId, PaymentId, EntryId, QueueEntryId, CommandId);
