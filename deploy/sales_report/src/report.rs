//! The report and the events it was made from, in one SQLite file: both change in one transaction, or neither does.

use anyhow::{Context, Result};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
// SQLite itself is built in.
use libsqlite3_sys as _;
use std::fmt::Write as _;
use std::path::Path;

use crate::event::{Change, read};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS sales (
        concert TEXT PRIMARY KEY, seats_sold INTEGER NOT NULL, payments INTEGER NOT NULL, taken INTEGER NOT NULL,
        refunds INTEGER NOT NULL, refunded INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS seen (source TEXT, id TEXT, at INTEGER NOT NULL DEFAULT (unixepoch()), PRIMARY KEY (source, id)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS seen_at ON seen (at);
    CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL);
";
/// How long an event's id is kept: longer than any broker keeps the event, so that even reading everything again from the
/// beginning changes nothing. Counted from the event's arrival, because it may be old by then.
const REMEMBERED_S: i64 = 30 * 86_400;
/// The most ids that one transaction deletes: more than it adds, so that old ones do not pile up.
const FORGOTTEN_MAX: i64 = 2_000;

/// See the module's opening.
pub(crate) struct Report {
    file: SqliteConnection,
}

#[derive(QueryableByName)]
struct Position {
    #[diesel(sql_type = Nullable<BigInt>)]
    next: Option<i64>,
}

/// A concert's figures; money in minor units.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub(crate) struct Sales {
    #[diesel(sql_type = Text)]
    pub(crate) concert: String,
    #[diesel(sql_type = BigInt)]
    pub(crate) seats_sold: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) payments: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) taken: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) refunds: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) refunded: i64,
}

impl Report {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = SqliteConnection::establish(&path.display().to_string()).with_context(|| path.display().to_string())?;
        file.batch_execute(SCHEMA).with_context(|| path.display().to_string())?;
        Ok(Self { file })
    }

    /// Where reading continues; `None` before the first event.
    pub(crate) fn position(&mut self) -> Result<Option<u64>> {
        let found: Position = diesel::sql_query("SELECT max(next) AS next FROM position").get_result(&mut self.file)?;
        Ok(found.next.map(u64::try_from).transpose()?)
    }

    /// Counts the events that were not counted before, and stores the position with them; whether the figures changed.
    /// After an error nothing has changed.
    pub(crate) fn apply(&mut self, events: &[Vec<u8>], position: Option<u64>) -> Result<bool> {
        self.file.immediate_transaction(|file| {
            let mut changed = false;
            for bytes in events {
                let (event, change) = read(bytes)?;
                let Some(change) = change else { continue };
                let stored = diesel::sql_query("INSERT INTO seen (source, id) VALUES (?, ?) ON CONFLICT DO NOTHING")
                    .bind::<Text, _>(event.source)
                    .bind::<Text, _>(event.id)
                    .execute(file)?;
                if stored == 1 {
                    count(file, &change)?;
                    changed = true;
                }
            }
            diesel::sql_query(
                "DELETE FROM seen WHERE (source, id) IN (SELECT source, id FROM seen WHERE at < unixepoch() - ? ORDER BY at LIMIT ?)",
            )
            .bind::<BigInt, _>(REMEMBERED_S)
            .bind::<BigInt, _>(FORGOTTEN_MAX)
            .execute(file)?;
            if let Some(next) = position {
                diesel::sql_query("INSERT INTO position VALUES (1, ?) ON CONFLICT DO UPDATE SET next = excluded.next")
                    .bind::<BigInt, _>(i64::try_from(next)?)
                    .execute(file)?;
            }
            Ok(changed)
        })
    }

    /// By concert.
    pub(crate) fn sales(&mut self) -> Result<Vec<Sales>> {
        Ok(diesel::sql_query("SELECT * FROM sales ORDER BY concert").load(&mut self.file)?)
    }

    /// The figures as a table.
    pub(crate) fn text(&mut self) -> Result<String> {
        let mut text =
            format!("{:<36} {:>10} {:>10} {:>14} {:>8} {:>14}", "concert", "seats sold", "payments", "taken", "refunds", "refunded");
        for one in self.sales()? {
            let Sales { concert, seats_sold, payments, taken, refunds, refunded } = one;
            write!(text, "\n{concert:<36} {seats_sold:>10} {payments:>10} {taken:>14} {refunds:>8} {refunded:>14}")?;
        }
        Ok(text)
    }
}

/// Adds, so that the order of events of different keys makes no difference.
fn count(file: &mut SqliteConnection, change: &Change) -> Result<()> {
    diesel::sql_query(
        "INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (concert) DO UPDATE SET
             seats_sold = seats_sold + excluded.seats_sold, payments = payments + excluded.payments, taken = taken + excluded.taken,
             refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded",
    )
    .bind::<Text, _>(&change.concert)
    .bind::<BigInt, _>(change.seats_sold)
    .bind::<BigInt, _>(change.payments)
    .bind::<BigInt, _>(change.taken)
    .bind::<BigInt, _>(change.refunds)
    .bind::<BigInt, _>(change.refunded)
    .execute(file)?;
    Ok(())
}
