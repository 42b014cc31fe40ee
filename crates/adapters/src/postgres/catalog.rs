//! Imports: plans are compared with the rows they name, and differences are written. All plans of a call share one
//! transaction: if one fails, nothing is written. The same plan again writes nothing.
//!
//! | step | statements | locks |
//! | --- | --- | --- |
//! | 1 | one import at a time | the advisory lock [`IMPORTS`], until the end |
//! | 2 | concerts and dates: read, inserted, updated | rows that only imports write |
//! | 3 | existing seats that the plans change | those rows, by date and number: the order of every batch |
//! | 4 | the clock; a seat that is held or sold by now fails the import | – |
//! | 5 | seats: inserted, updated; the totals of their dates | inserted rows |
//! | 6 | `COMMIT` | all are released |
//!
//! An earlier hold keeps its seat and its price; a concurrent one waits, and sees the new price. A range of seats goes to
//! the server as a range, however many seats it has. A crash before step 6 leaves nothing.

use super::PostgresStore;
use super::failure::Failure;
use super::pool::{Conn, Isolation};
use super::queries::now;
use super::rows::{StateWord, narrow, seat_state_of};
use super::sql::{Id, State, row, rows, run, statements};
use crate::clock::SystemIds;
use crate::import::changed;
use crate::sql::catalog::{DateTimes, FoundConcert, concert_columns, is_concert_as_planned, new_concert, planned_times};
use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, ConcertPlan, DateId, DatePlan, ReservationId, Timestamp};
use boxoffice_ports::{Catalog, CatalogError, Ids, ImportEffect, Imported, ImportedDate};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use std::collections::HashMap;
use uuid::Uuid;

/// The advisory lock that an import holds.
const IMPORTS: i64 = 0x0062_6f78_696d_706f;

/// Ranges of seats `r`, bound from `$1` on.
macro_rules! ranges {
    () => {
        "unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[]) \
         WITH ORDINALITY AS r (date_id, low, high, section, \"row\", grade, price, nth)"
    };
}
/// The seats `s` of those ranges that are not as planned.
macro_rules! differing {
    () => {
        "s.date_id = r.date_id AND s.number BETWEEN r.low AND r.high \
         AND (s.section, s.\"row\", s.grade, s.price) IS DISTINCT FROM (r.section, r.\"row\", r.grade, r.price)"
    };
}

statements! {
    // For another instance's import, or for a batch that has locked the seats.
    WaitLong -> Text = "SELECT set_config('lock_timeout', '30s', true)";
    LockImports -> Text = "SELECT pg_advisory_xact_lock($1)::text";
    SelectConcert -> (SqlUuid, Text, Text, Text, Nullable<Timestamptz>) =
        "SELECT id, name, venue, time_zone, sale_starts_at FROM concerts WHERE key = $1";
    InsertConcert = concat!(
        "INSERT INTO concerts (", concert_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    );
    UpdateConcert = "UPDATE concerts SET name = $2, venue = $3, time_zone = $4, sale_starts_at = $5 WHERE id = $1";
    SelectDates -> (Text, (SqlUuid, BigInt, (Timestamptz, Nullable<Timestamptz>, Timestamptz, Timestamptz, Timestamptz))) =
        "SELECT key, id, seats_total, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at
         FROM dates WHERE concert_id = $1";
    InsertDate =
        "INSERT INTO dates (id, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at, concert_id, key,
             seats_total, price_min, price_max, seats_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, 0)";
    UpdateDate =
        "UPDATE dates SET starts_at = $2, ends_at = $3, booking_opens_at = $4, booking_closes_at = $5, refund_closes_at = $6
         WHERE id = $1";
    LockSeats -> (BigInt, Integer, Text, Nullable<SqlUuid>, Nullable<Timestamptz>) = concat!(
        "SELECT r.nth, s.number, s.state, s.reservation_id, s.held_until FROM ", ranges!(), " JOIN seats s ON ", differing!(),
        " ORDER BY s.date_id, s.number FOR NO KEY UPDATE OF s"
    );
    InsertSeats -> (SqlUuid, BigInt) = concat!(
        "WITH written AS (
             INSERT INTO seats (date_id, number, section, \"row\", grade, price, state, version)
             SELECT r.date_id, n.number, r.section, r.\"row\", r.grade, r.price, 'available', 1
             FROM ", ranges!(), " CROSS JOIN generate_series(r.low, r.high) AS n (number)
             WHERE NOT EXISTS (SELECT 1 FROM seats s WHERE s.date_id = r.date_id AND s.number = n.number)
             RETURNING date_id)
         SELECT date_id, count(*) FROM written GROUP BY date_id"
    );
    UpdateSeats -> (SqlUuid, BigInt) = concat!(
        "WITH written AS (
             UPDATE seats s SET section = r.section, \"row\" = r.\"row\", grade = r.grade, price = r.price, version = s.version + 1,
                 changed_xid = pg_current_xact_id()
             FROM ", ranges!(), " WHERE ", differing!(), " RETURNING s.date_id)
         SELECT date_id, count(*) FROM written GROUP BY date_id"
    );
    // Only imports add seats to a date, so the catalogue's totals of them are counted here.
    UpdateTotals -> (SqlUuid, BigInt) =
        "UPDATE dates d SET (seats_total, price_min, price_max) =
             (SELECT count(*), min(s.price), max(s.price) FROM seats s WHERE s.date_id = d.id), seats_version = d.seats_version + 1
         WHERE d.id = ANY ($1) RETURNING d.id, d.seats_total";
}

/// A date as an import finds it: id, `seats_total` and its instants.
type FoundDate = (Id<DateId>, i64, DateTimes<Timestamp>);
type LockedColumns = (i64, i32, State<StateWord>, Option<Id<ReservationId>>, Option<Timestamp>);

#[async_trait]
impl Catalog for PostgresStore {
    async fn import(&self, plans: Vec<ConcertPlan>, admission: Admission) -> Result<Vec<Imported>, CatalogError> {
        let mut conn = self.conn().await?.patient();
        conn.begin(Isolation::ReadCommitted).await?;
        match import(&mut conn, &plans, admission, self.offset_us()).await {
            Ok(imported) => {
                conn.commit().await?;
                Ok(imported)
            }
            Err(failure) => {
                // The first failure is returned; a connection that cannot roll back is closed.
                let _ = conn.rollback().await;
                Err(failure.into())
            }
        }
    }
}

async fn import(conn: &mut Conn, plans: &[ConcertPlan], admission: Admission, offset_us: i64) -> Result<Vec<Imported>, Failure> {
    rows::<WaitLong, _, String>(conn, ()).await?;
    rows::<LockImports, _, String>(conn, (IMPORTS,)).await?;
    let mut imported = Vec::with_capacity(plans.len());
    let mut ranges = Vec::with_capacity(plans.len());
    for plan in plans {
        let found = import_concert(conn, plan, admission).await?;
        ranges.push(Ranges::of(plan, &found.dates)?);
        imported.push(found);
    }
    lock_seats(conn, plans, &ranges, offset_us).await?;
    for (imported, ranges) in imported.iter_mut().zip(&ranges) {
        import_seats(conn, imported, ranges).await?;
    }
    Ok(imported)
}

/// The concert and its dates, without their seats; the totals are those before the import.
async fn import_concert(conn: &mut Conn, plan: &ConcertPlan, admission: Admission) -> Result<Imported, Failure> {
    let found: Option<FoundConcert<Timestamp>> = row::<SelectConcert, _, _>(conn, (plan.key.as_str(),)).await?;
    let (id, mut effect) = match found {
        None => {
            let id = ConcertId(SystemIds.fresh());
            Failure::check_count("concerts", run::<InsertConcert>(conn, new_concert::<Timestamp>(id, plan, admission)).await?, 1)?;
            (id, ImportEffect::Created)
        }
        Some(found) if is_concert_as_planned(&found, plan) => (found.0.0, ImportEffect::Unchanged),
        Some((Id(id), ..)) => {
            let binds = (id, plan.name.as_str(), plan.venue.as_str(), plan.time_zone.as_str(), plan.sale_starts_at);
            Failure::check_count("concerts", run::<UpdateConcert>(conn, binds).await?, 1)?;
            (id, ImportEffect::Updated)
        }
    };
    let there: Vec<(String, FoundDate)> = rows::<SelectDates, _, _>(conn, (id,)).await?;
    let there: HashMap<String, FoundDate> = there.into_iter().collect();
    let mut dates = Vec::with_capacity(plan.dates.len());
    for date in &plan.dates {
        let (imported, is_changed) = import_date(conn, id, date, there.get(&date.key)).await?;
        if is_changed {
            effect = changed(effect);
        }
        dates.push(imported);
    }
    Ok(Imported { id, key: plan.key.clone(), effect, dates })
}

/// The date, and whether anything of it changed.
async fn import_date(
    conn: &mut Conn,
    concert: ConcertId,
    plan: &DatePlan,
    there: Option<&FoundDate>,
) -> Result<(ImportedDate, bool), Failure> {
    let planned = planned_times::<Timestamp>(plan);
    let (starts_at, ends_at, opens_at, closes_at, refund_closes_at) = planned;
    let (id, total, is_changed) = match there {
        None => {
            let id = DateId(SystemIds.fresh());
            let binds = (id, starts_at, ends_at, opens_at, closes_at, refund_closes_at, concert, plan.key.as_str());
            Failure::check_count("dates", run::<InsertDate>(conn, binds).await?, 1)?;
            (id, 0, true)
        }
        Some(&(Id(id), total, times)) => {
            if times != planned {
                let binds = (id, starts_at, ends_at, opens_at, closes_at, refund_closes_at);
                Failure::check_count("dates", run::<UpdateDate>(conn, binds).await?, 1)?;
            }
            (id, total, times != planned)
        }
    };
    let total = narrow("seats_total", total)?.into();
    Ok((ImportedDate { id, key: plan.key.clone(), starts_at, total }, is_changed))
}

/// Locks every seat that any of the plans would change, and fails if one of them is held or sold.
async fn lock_seats(conn: &mut Conn, plans: &[ConcertPlan], ranges: &[Ranges], offset_us: i64) -> Result<(), Failure> {
    let mut whole = Ranges::default();
    ranges.iter().for_each(|ranges| whole.append(ranges));
    let locked: Vec<LockedColumns> = rows::<LockSeats, _, _>(conn, whole.binds()).await?;
    if locked.is_empty() {
        return Ok(());
    }
    let now = now(conn, offset_us).await?;
    let mut taken: Option<(i64, i32)> = None;
    for (nth, number, state, reservation, until) in locked {
        let state = seat_state_of(state.0, reservation.map(|id| id.0), until)?;
        if !state.is_free(now) && taken.is_none_or(|first| (nth, number) < first) {
            taken = Some((nth, number));
        }
    }
    let Some((nth, number)) = taken else { return Ok(()) };
    Err(Failure::SeatTaken { field: field(plans, nth), seat: narrow("seat number", number)? })
}

/// The path of the `nth` range, counted from 1 over all plans, in its own document.
fn field(plans: &[ConcertPlan], nth: i64) -> String {
    let mut left = nth - 1;
    for (date_at, date) in plans.iter().flat_map(|plan| plan.dates.iter().enumerate()) {
        let ranges = date.seats.len() as i64;
        if left < ranges {
            return format!("dates[{date_at}].seats[{left}]");
        }
        left -= ranges;
    }
    "dates".to_owned()
}

/// Updates and inserts the seats of a plan. Existing ones that differ were locked before.
async fn import_seats(conn: &mut Conn, imported: &mut Imported, ranges: &Ranges) -> Result<(), Failure> {
    let mut written: Vec<(Id<DateId>, i64)> = rows::<UpdateSeats, _, _>(conn, ranges.binds()).await?;
    let inserted: Vec<(Id<DateId>, i64)> = rows::<InsertSeats, _, _>(conn, ranges.binds()).await?;
    written.extend(inserted);
    if written.is_empty() {
        return Ok(());
    }
    let mut dates: Vec<Uuid> = written.into_iter().map(|(date, _)| date.0.0).collect();
    dates.sort_unstable();
    dates.dedup();
    let expected = dates.len();
    let totals: Vec<(Id<DateId>, i64)> = rows::<UpdateTotals, _, _>(conn, (dates,)).await?;
    Failure::check_count("dates", totals.len(), expected)?;
    for (id, total) in totals {
        let total = narrow("seats_total", total)?;
        imported.dates.iter_mut().filter(|date| date.id == id.0).for_each(|date| date.total = total.into());
    }
    imported.effect = changed(imported.effect);
    Ok(())
}

/// Ranges of seats in the form they are bound: one array for each column.
#[derive(Default)]
struct Ranges {
    dates: Vec<Uuid>,
    low: Vec<i32>,
    high: Vec<i32>,
    section: Vec<Option<String>>,
    row: Vec<Option<String>>,
    grade: Vec<String>,
    price: Vec<i64>,
}

impl Ranges {
    /// The ranges of a plan, in its order; `dates` are the plan's.
    fn of(plan: &ConcertPlan, dates: &[ImportedDate]) -> Result<Self, Failure> {
        let mut ranges = Self::default();
        for (date, of) in plan.dates.iter().zip(dates) {
            for seats in &date.seats {
                let number = |number: u32| i32::try_from(number).map_err(|_| Failure::Data("a seat number is out of range".to_owned()));
                ranges.dates.push(of.id.0);
                ranges.low.push(number(seats.from)?);
                ranges.high.push(number(seats.to)?);
                ranges.section.push(seats.section.clone());
                ranges.row.push(seats.row.clone());
                ranges.grade.push(seats.grade.clone());
                ranges.price.push(seats.price);
            }
        }
        Ok(ranges)
    }

    fn append(&mut self, more: &Self) {
        self.dates.extend_from_slice(&more.dates);
        self.low.extend_from_slice(&more.low);
        self.high.extend_from_slice(&more.high);
        self.section.extend_from_slice(&more.section);
        self.row.extend_from_slice(&more.row);
        self.grade.extend_from_slice(&more.grade);
        self.price.extend_from_slice(&more.price);
    }

    #[expect(clippy::type_complexity, reason = "the columns, in the order they are bound")]
    fn binds(&self) -> (Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<Option<String>>, Vec<Option<String>>, Vec<String>, Vec<i64>) {
        (
            self.dates.clone(),
            self.low.clone(),
            self.high.clone(),
            self.section.clone(),
            self.row.clone(),
            self.grade.clone(),
            self.price.clone(),
        )
    }
}
