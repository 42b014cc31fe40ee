//! Imports: a plan is compared with the rows it names, and what differs is written. All plans of a call share one
//! transaction, so wherever one fails nothing is written. The same plan again writes nothing.

use super::SqliteStore;
use super::failure::{Failure, one};
use super::rows::{SeatColumns, SeatTypes, admission_columns, narrow, seat, seat_columns, stored_admission};
use super::sql::{At, Id, row, rows, run, statements};
use super::writer::Share;
use crate::clock::SystemIds;
use async_trait::async_trait;
use boxoffice_domain::money::Money;
use boxoffice_domain::{Admission, ConcertId, ConcertPlan, DateId, DatePlan, Seat, SeatNumber, SeatPlan, Timestamp};
use boxoffice_ports::{Catalog, CatalogError, Ids, ImportEffect, Imported, ImportedDate};
use diesel::SqliteConnection;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use std::collections::HashMap;

statements! {
    SelectConcert -> (Binary, Text, Text, Text, Nullable<BigInt>) =
        "SELECT id, name, venue, time_zone, sale_starts_at FROM concerts WHERE key = ?";
    InsertConcert = concat!("INSERT INTO concerts (id, key, name, venue, time_zone, sale_starts_at, ", admission_columns!(), ")
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    UpdateConcert = "UPDATE concerts SET name = ?, venue = ?, time_zone = ?, sale_starts_at = ? WHERE id = ?";
    SelectDate -> (Binary, BigInt, Nullable<BigInt>, BigInt, BigInt, BigInt, BigInt) =
        "SELECT id, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at, seats_total
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
    // Seats hang on their date by an import alone, so what the catalogue shows of them is counted here once.
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

type ConcertColumns = (Id<ConcertId>, String, String, String, Option<At>);
type DateColumns = (Id<DateId>, At, Option<At>, At, At, At, i64);

fn import_concert(conn: &mut SqliteConnection, plan: &ConcertPlan, admission: Admission, now: Timestamp) -> Result<Imported, Failure> {
    let sale_starts_at = plan.sale_starts_at.map(At);
    let found: Option<ConcertColumns> = row::<SelectConcert, _, _>(conn, (plan.key.as_str(),))?;
    let (id, mut effect) = match found {
        None => (insert_concert(conn, plan, plan.admission.unwrap_or(admission))?, ImportEffect::Created),
        Some((Id(id), name, venue, time_zone, starts_at)) => {
            let same = (&name, &venue, &time_zone, starts_at) == (&plan.name, &plan.venue, &plan.time_zone, sale_starts_at);
            if !same {
                let binds = (plan.name.as_str(), plan.venue.as_str(), plan.time_zone.as_str(), sale_starts_at, id);
                one("concert", run::<UpdateConcert>(conn, binds)?)?;
            }
            (id, if same { ImportEffect::Unchanged } else { ImportEffect::Updated })
        }
    };
    let mut dates = Vec::with_capacity(plan.dates.len());
    for (at, date) in plan.dates.iter().enumerate() {
        let (imported, changed) = import_date(conn, id, at, date, now)?;
        if changed && effect == ImportEffect::Unchanged {
            effect = ImportEffect::Updated;
        }
        dates.push(imported);
    }
    Ok(Imported { id, key: plan.key.clone(), effect, dates })
}

fn insert_concert(conn: &mut SqliteConnection, plan: &ConcertPlan, admission: Admission) -> Result<ConcertId, Failure> {
    let id = ConcertId(SystemIds.fresh());
    let (mode, max_active, count, seconds, auto, adaptive) = stored_admission(admission);
    let binds = (
        id,
        plan.key.as_str(),
        plan.name.as_str(),
        plan.venue.as_str(),
        plan.time_zone.as_str(),
        plan.sale_starts_at.map(At),
        mode,
        max_active,
        count,
        seconds,
        auto,
        adaptive,
    );
    one("concert", run::<InsertConcert>(conn, binds)?)?;
    Ok(id)
}

/// Says whether anything changed.
fn import_date(
    conn: &mut SqliteConnection,
    concert: ConcertId,
    at: usize,
    plan: &DatePlan,
    now: Timestamp,
) -> Result<(ImportedDate, bool), Failure> {
    let key = plan.key.as_str();
    let found: Option<DateColumns> = row::<SelectDate, _, _>(conn, (concert, key))?;
    let (starts_at, ends_at) = (At(plan.starts_at), plan.ends_at.map(At));
    let (opens_at, closes_at, refund_closes_at) = (At(plan.booking_opens_at), At(plan.booking_closes_at), At(plan.refund_closes_at));
    let (id, mut total, mut changed) = match found {
        None => {
            let id = DateId(SystemIds.fresh());
            let binds = (starts_at, ends_at, opens_at, closes_at, refund_closes_at, id, concert, key);
            one("date", run::<InsertDate>(conn, binds)?)?;
            (id, 0, true)
        }
        Some((Id(id), was_starts_at, was_ends_at, was_opens_at, was_closes_at, was_refund_closes_at, total)) => {
            let was = (was_starts_at, was_ends_at, was_opens_at, was_closes_at, was_refund_closes_at);
            let same = was == (starts_at, ends_at, opens_at, closes_at, refund_closes_at);
            if !same {
                one("date", run::<UpdateDate>(conn, (starts_at, ends_at, opens_at, closes_at, refund_closes_at, id))?)?;
            }
            (id, total, !same)
        }
    };
    if import_seats(conn, id, at, plan, now)? {
        one("date", run::<UpdateTotals>(conn, (id,))?)?;
        total = row::<SelectTotal, _, _>(conn, (id,))?.unwrap_or(0);
        changed = true;
    }
    let total = narrow("seats_total", total)?.into();
    Ok((ImportedDate { id, key: plan.key.clone(), starts_at: plan.starts_at, total }, changed))
}

/// Says whether any seat changed.
fn import_seats(conn: &mut SqliteConnection, date: DateId, at: usize, plan: &DatePlan, now: Timestamp) -> Result<bool, Failure> {
    let found: Vec<SeatColumns> = rows::<SelectSeats, _, _>(conn, (date,))?;
    let there = found.into_iter().map(|columns| seat(date, columns).map(|(seat, _)| (seat.key.number, seat)));
    let there: HashMap<SeatNumber, Seat> = there.collect::<Result<_, _>>()?;
    let mut changed = false;
    for (range_at, range) in plan.seats.iter().enumerate() {
        let (section, row_name, grade) = (range.section.as_deref(), range.row.as_deref(), range.grade.as_str());
        let price: Money = range.price;
        for number in range.from..=range.to {
            let binds = (section, row_name, grade, price, date, i64::from(number));
            match there.get(&number) {
                None => one("seat", run::<InsertSeat>(conn, binds)?)?,
                Some(seat) if is_as_planned(seat, range) => continue,
                Some(seat) if !seat.state.is_free(now) => {
                    return Err(Failure::SeatTaken { field: format!("dates[{at}].seats[{range_at}]"), seat: number });
                }
                Some(_) => one("seat", run::<UpdateSeat>(conn, binds)?)?,
            }
            changed = true;
        }
    }
    Ok(changed)
}

fn is_as_planned(seat: &Seat, plan: &SeatPlan) -> bool {
    (seat.section.as_deref(), seat.row.as_deref(), &*seat.grade, seat.price)
        == (plan.section.as_deref(), plan.row.as_deref(), plan.grade.as_str(), plan.price)
}
