//! The audit: every row in one snapshot, beside all other work. SQLite sorts what no index has in order, in
//! temporary files where it is much; the invariants are [`boxoffice_domain::audit`]'s.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{At, row, statements};
use crate::sql::audit::{self, Columns, Key, date_rows, entry_rows, payment_rows, reservation_rows, user_rows};
use async_trait::async_trait;
use boxoffice_domain::Timestamp;
use boxoffice_ports::{Audit, AuditReport, StoreError};
use diesel::connection::DefaultLoadingMode;
use diesel::dsl::sql;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::{Connection, RunQueryDsl, SqliteConnection};

type I = Nullable<Binary>;
type N = Nullable<BigInt>;
type T = Nullable<Text>;
type Types = (I, Integer, I, I, I, I, T, N, N, N, N, N, N, N, T, T);

/// What replies of success claim.
macro_rules! claims {
    () => {
        "SELECT user_id, command_id, body ->> '$.Ok.outcome' AS outcome, unhex(body ->> '$.Ok.entry.id', '-') AS entry,
                unhex(body ->> '$.Ok.entry.user', '-') AS owner, body ->> '$.Ok.entry.seq' AS seq, body ->> '$.Ok.entry.amount' AS amount,
                unhex(body ->> '$.Ok.reservation.id', '-') AS reservation, unhex(body ->> '$.Ok.payment.id', '-') AS payment
         FROM replies WHERE body ->> '$.Ok' IS NOT NULL"
    };
}

const PASSES: [(Key, &str); 5] = [
    (Key::User, user_rows!()),
    (Key::Payment, payment_rows!(claims!())),
    (Key::Reservation, reservation_rows!("seat_count", "NULL", claims!())),
    (Key::Date, date_rows!("seat_count")),
    (Key::Entry, entry_rows!(claims!())),
];

statements! {
    CountReplies -> BigInt = "SELECT count(*) FROM replies";
}

#[async_trait]
impl Audit for SqliteStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let clock = self.clock.clone();
        let read = self.readers.read(move |conn| {
            // The snapshot is taken by the first read; the clock is read before it, so no hold that ran out since
            // counts as live.
            conn.transaction(|conn| audit(conn, max_seats_per_user, clock.now()))
        });
        Ok(read.await?)
    }
}

fn audit(conn: &mut SqliteConnection, limit: u32, now: Timestamp) -> Result<AuditReport, Failure> {
    let mut audit = boxoffice_domain::audit::Audit::new(now, limit);
    for (key, text) in PASSES {
        for columns in sql::<Types>(text).load_iter::<Columns<At>, DefaultLoadingMode>(conn)? {
            audit.take(audit::row(key, columns?)?);
        }
    }
    let replies: Option<i64> = row::<CountReplies, _, _>(conn, ())?;
    Ok(audit.finish(replies.unwrap_or(0).unsigned_abs()))
}
