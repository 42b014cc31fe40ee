//! The audit: every row in one snapshot, beside all other work. The invariants are [`boxoffice_domain::audit`]'s.
//!
//! Each pass is a cursor, read a thousand rows at a time ([`Fetch`]), so a store of millions is never in this process.
//! PostgreSQL sorts, on disk where it is much: a million reservations are a matter of seconds.

use super::PostgresStore;
use super::failure::Failure;
use super::pool::{Conn, Isolation};
use super::queries::now;
use super::sql::{Statement, row, rows, run, statements};
use crate::sql::audit::{self, Columns, Key, date_rows, entry_rows, payment_rows, reservation_rows, user_rows};
use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_domain::audit::Audit as Invariants;
use boxoffice_ports::{Audit, AuditReport, StoreError};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};

type I = Nullable<SqlUuid>;
type N = Nullable<BigInt>;
type T = Nullable<Text>;
type Types = (I, Integer, I, I, I, I, T, N, N, N, N, N, N, Nullable<Timestamptz>, T, T);

/// What replies of success claim. `OFFSET 0` keeps the planner from parsing a body once for each column.
macro_rules! claims {
    () => {
        "SELECT user_id, command_id, done ->> 'outcome' AS outcome, (done #>> '{entry,id}')::uuid AS entry,
                (done #>> '{entry,user}')::uuid AS owner, (done #>> '{entry,seq}')::bigint AS seq,
                (done #>> '{entry,amount}')::bigint AS amount, (done #>> '{reservation,id}')::uuid AS reservation,
                (done #>> '{payment,id}')::uuid AS payment
         FROM (SELECT user_id, command_id, body::jsonb -> 'Ok' AS done FROM replies OFFSET 0) r WHERE done IS NOT NULL"
    };
}

macro_rules! cursor {
    ($rows:expr) => {
        concat!("DECLARE audited NO SCROLL CURSOR FOR ", $rows)
    };
}

statements! {
    /// For whole tables, sorted in memory as far as that goes and read to the end; and no more time than it takes. For
    /// this transaction alone.
    TakeTime -> (Text, Text, Text) =
        "SELECT set_config('statement_timeout', '0', true), set_config('work_mem', '64MB', true), set_config('cursor_tuple_fraction', '1', true)";
    ByUser = cursor!(user_rows!());
    ByPayment = cursor!(payment_rows!(claims!()));
    ByReservation = cursor!(reservation_rows!("cardinality(seats)", "array_to_json(seats)::text", claims!()));
    ByDate = cursor!(date_rows!("cardinality(seats)"));
    ByEntry = cursor!(entry_rows!(claims!()));
    /// The next rows of the pass; none at its end.
    Fetch -> Types = "FETCH 1000 FROM audited";
    Close = "CLOSE audited";
    CountReplies -> BigInt = "SELECT count(*) FROM replies";
}

#[async_trait]
impl Audit for PostgresStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let mut conn = self.conn().await?.patient();
        conn.begin(Isolation::ReadOnly).await?;
        let report = audit(&mut conn, max_seats_per_user, self.offset_us()).await?;
        conn.rollback().await?;
        Ok(report)
    }
}

async fn audit(conn: &mut Conn, limit: u32, offset_us: i64) -> Result<AuditReport, Failure> {
    rows::<TakeTime, _, (String, String, String)>(conn, ()).await?;
    // The clock is read within the snapshot, so a seat taken in it because its hold was over is right by then.
    let mut audit = Invariants::new(now(conn, offset_us).await?, limit);
    pass::<ByUser>(conn, Key::User, &mut audit).await?;
    pass::<ByPayment>(conn, Key::Payment, &mut audit).await?;
    pass::<ByReservation>(conn, Key::Reservation, &mut audit).await?;
    pass::<ByDate>(conn, Key::Date, &mut audit).await?;
    pass::<ByEntry>(conn, Key::Entry, &mut audit).await?;
    let replies: Option<i64> = row::<CountReplies, _, _>(conn, ()).await?;
    Ok(audit.finish(replies.unwrap_or(0).unsigned_abs()))
}

async fn pass<S: Statement>(conn: &mut Conn, key: Key, audit: &mut Invariants) -> Result<(), Failure> {
    run::<S>(conn, ()).await?;
    loop {
        let fetched: Vec<Columns<Timestamp>> = rows::<Fetch, _, _>(conn, ()).await?;
        if fetched.is_empty() {
            break;
        }
        for columns in fetched {
            audit.take(audit::row(key, columns)?);
        }
    }
    run::<Close>(conn, ()).await?;
    Ok(())
}
