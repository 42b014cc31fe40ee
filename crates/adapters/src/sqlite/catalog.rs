//! Imports: a plan is compared with the rows it names, and differences are written. All plans of a call share one
//! transaction: if one fails, nothing is written. The same plan again writes nothing.

use super::SqliteStore;
use super::failure::Failure;
use super::rows::{SeatColumns, SeatTypes, narrow, seat, seat_columns};
use super::sql::{At, Id, row, rows, run, statements};
use super::writer::Share;
use crate::clock::SystemIds;
use crate::import::{changed, is_seat_as_planned};
use crate::sql::catalog::{DateTimes, FoundConcert, concert_columns, is_concert_as_planned, new_concert, planned_times};
use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, ConcertPlan, DateId, DatePlan, Seat, SeatNumber, Timestamp};
use boxoffice_ports::{Catalog, CatalogError, Ids, ImportEffect, Imported, ImportedDate};
use diesel::SqliteConnection;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use std::collections::HashMap;

statements! {
    SelectConcert -> (Binary, Text, Text, Text, Nullable<BigInt>) =
        "SELECT id, name, venue, time_zone, sale_starts_at FROM concerts WHERE key = ?";
    InsertConcert = concat!("INSERT INTO concerts (", concert_columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    UpdateConcert = "UPDATE concerts SET name = ?, venue = ?, time_zone = ?, sale_starts_at = ? WHERE id = ?";
    SelectDate -> (Binary, BigInt, (BigInt, Nullable<BigInt>, BigInt, BigInt, BigInt)) =
        "SELECT id, seats_total, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at
         FROM dates WHERE concert_id = ? AND key = ?";
    InsertDate = "INSERT INTO dates (starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at, id, concert_id, key,
        seats_total, price_min, price_max, seats_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)";
    UpdateDate = "UPDATE dates SET starts_at = ?, ends_at = ?, booking_opens_at = ?, booking_closes_at = ?, refund_closes_at = ?
        WHERE id = ?";
    SelectSeats -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats WHERE date_id = ?");
    InsertSeat = "INSERT INTO seats (section, \"row\", grade, price, version, date_id, number, state)
        VALUES (?, ?, ?, ?, 1, ?, ?, 'available')";
    UpdateSeat = "UPDATE seats SET section = ?, \"row\" = ?, grade = ?, price = ?, version = version + 1
        WHERE date_id = ? AND number = ?";
    // Only imports add seats to a date, so the catalogue's totals of them are counted here.
    UpdateTotals = "UPDATE dates SET (seats_total, price_min, price_max) =
        (SELECT count(*), min(price), max(price) FROM seats WHERE date_id = dates.id), seats_version = seats_version + 1
        WHERE id = ?";
    SelectTotal -> BigInt = "SELECT seats_total FROM dates WHERE id = ?";
}

#[async_trait]
impl Catalog for SqliteStore {
    async fn import(&self, plans: Vec<ConcertPlan>, admission: Admission) -> Result<Vec<Imported>, CatalogError> {
        let import = self.writer.write(Share::Small, move |session| {
            let now = session.clock.now();
            plans.iter().map(|plan| import_concert(&mut session.conn, plan, admission, now)).collect::<Result<Vec<_>, _>>()
        });
        Ok(import.await?)
    }
}

fn import_concert(conn: &mut SqliteConnection, plan: &ConcertPlan, admission: Admission, now: Timestamp) -> Result<Imported, Failure> {
    let found: Option<FoundConcert<At>> = row::<SelectConcert, _, _>(conn, (plan.key.as_str(),))?;
    let (id, mut effect) = match found {
        None => {
            let id = ConcertId(SystemIds.fresh());
            Failure::check_count("concerts", run::<InsertConcert>(conn, new_concert::<At>(id, plan, admission))?, 1)?;
            (id, ImportEffect::Created)
        }
        Some(found) if is_concert_as_planned(&found, plan) => (found.0.0, ImportEffect::Unchanged),
        Some((Id(id), ..)) => {
            let binds = (plan.name.as_str(), plan.venue.as_str(), plan.time_zone.as_str(), plan.sale_starts_at.map(At), id);
            Failure::check_count("concerts", run::<UpdateConcert>(conn, binds)?, 1)?;
            (id, ImportEffect::Updated)
        }
    };
    let mut dates = Vec::with_capacity(plan.dates.len());
    for (at, date) in plan.dates.iter().enumerate() {
        let (imported, is_changed) = import_date(conn, id, at, date, now)?;
        if is_changed {
            effect = changed(effect);
        }
        dates.push(imported);
    }
    Ok(Imported { id, key: plan.key.clone(), effect, dates })
}

/// The date, and whether anything of it changed.
fn import_date(
    conn: &mut SqliteConnection,
    concert: ConcertId,
    at: usize,
    plan: &DatePlan,
    now: Timestamp,
) -> Result<(ImportedDate, bool), Failure> {
    let key = plan.key.as_str();
    let found: Option<(Id<DateId>, i64, DateTimes<At>)> = row::<SelectDate, _, _>(conn, (concert, key))?;
    let planned = planned_times::<At>(plan);
    let (starts_at, ends_at, opens_at, closes_at, refund_closes_at) = planned;
    let (id, mut total, mut is_changed) = match found {
        None => {
            let id = DateId(SystemIds.fresh());
            let binds = (starts_at, ends_at, opens_at, closes_at, refund_closes_at, id, concert, key);
            Failure::check_count("dates", run::<InsertDate>(conn, binds)?, 1)?;
            (id, 0, true)
        }
        Some((Id(id), total, times)) => {
            if times != planned {
                let binds = (starts_at, ends_at, opens_at, closes_at, refund_closes_at, id);
                Failure::check_count("dates", run::<UpdateDate>(conn, binds)?, 1)?;
            }
            (id, total, times != planned)
        }
    };
    if import_seats(conn, id, at, plan, now)? {
        Failure::check_count("dates", run::<UpdateTotals>(conn, (id,))?, 1)?;
        total = row::<SelectTotal, _, _>(conn, (id,))?.unwrap_or(0);
        is_changed = true;
    }
    let total = narrow("seats_total", total)?.into();
    Ok((ImportedDate { id, key: plan.key.clone(), starts_at: plan.starts_at, total }, is_changed))
}

/// Whether any seat changed.
fn import_seats(conn: &mut SqliteConnection, date: DateId, at: usize, plan: &DatePlan, now: Timestamp) -> Result<bool, Failure> {
    let found: Vec<SeatColumns> = rows::<SelectSeats, _, _>(conn, (date,))?;
    let there = found.into_iter().map(|columns| seat(date, columns).map(|(seat, _)| (seat.key.number, seat)));
    let there: HashMap<SeatNumber, Seat> = there.collect::<Result<_, _>>()?;
    let mut is_changed = false;
    for (range_at, range) in plan.seats.iter().enumerate() {
        let (section, row_name, grade) = (range.section.as_deref(), range.row.as_deref(), range.grade.as_str());
        for number in range.from..=range.to {
            let binds = (section, row_name, grade, range.price, date, i64::from(number));
            let written = match there.get(&number) {
                None => run::<InsertSeat>(conn, binds)?,
                Some(seat) if is_seat_as_planned(seat, range) => continue,
                Some(seat) if !seat.state.is_free(now) => {
                    return Err(Failure::SeatTaken { field: format!("dates[{at}].seats[{range_at}]"), seat: number });
                }
                Some(_) => run::<UpdateSeat>(conn, binds)?,
            };
            Failure::check_count("seats", written, 1)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}
