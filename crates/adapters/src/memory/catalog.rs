//! Imports: all plans are checked against the rows before the first write, under one lock of the mutex.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{
    Admission, ConcertId, ConcertPlan, ConcertRef, DateId, DatePlan, DateRef, DateTerms, Seat, SeatKey, SeatPlan, SeatState, Timestamp,
};
use boxoffice_ports::{Catalog, CatalogError, Ids, ImportEffect, Imported, ImportedDate};

use super::MemoryStore;
use super::tables::{ConcertRecord, DateRecord, Tables};
use crate::clock::SystemIds;
use crate::import::{changed, is_seat_as_planned};

#[async_trait]
impl Catalog for MemoryStore {
    async fn import(&self, plans: Vec<ConcertPlan>, admission: Admission) -> Result<Vec<Imported>, CatalogError> {
        let (mut tables, now) = self.tables_now()?;
        // No plan can change a seat that is held or sold, so an earlier plan of the list cannot make a later one fail.
        for plan in &plans {
            check(&tables, plan, now)?;
        }
        tables.catalog_version += 1;
        Ok(plans.iter().map(|plan| import(&mut tables, plan, admission)).collect())
    }
}

fn check(tables: &Tables, plan: &ConcertPlan, now: Timestamp) -> Result<(), CatalogError> {
    let Some(concert) = tables.concert_keys.get(&plan.key).and_then(|id| tables.concerts.get(id)) else { return Ok(()) };
    for (date_at, date) in plan.dates.iter().enumerate() {
        let Some(seats) = concert.dates.get(&date.key).and_then(|id| tables.seats.get(id)) else { continue };
        for (at, range) in date.seats.iter().enumerate() {
            let taken = |seat: &&Seat| !seat.state.is_free(now) && !is_seat_as_planned(seat, range);
            if let Some(seat) = seats.range(range.from..=range.to.max(range.from)).map(|(_, row)| &row.value).find(taken) {
                return Err(CatalogError::Conflict { field: format!("dates[{date_at}].seats[{at}]"), seat: seat.key.number });
            }
        }
    }
    Ok(())
}

fn import(tables: &mut Tables, plan: &ConcertPlan, admission: Admission) -> Imported {
    let known = tables.concert_keys.get(&plan.key).copied();
    let id = known.unwrap_or_else(|| ConcertId(SystemIds.fresh()));
    let concert = ConcertRef { id, name: plan.name.as_str().into(), venue: plan.venue.as_str().into() };
    let mut effect = if known.is_some() { ImportEffect::Unchanged } else { ImportEffect::Created };
    let mut record = tables.concerts.remove(&id).unwrap_or_else(|| ConcertRecord {
        concert: concert.clone(),
        key: plan.key.clone(),
        time_zone: plan.time_zone.clone(),
        sale_starts_at: plan.sale_starts_at,
        admission: plan.admission.unwrap_or(admission),
        dates: Default::default(),
    });
    let renamed = record.concert != concert;
    let mut updated = renamed || record.time_zone != plan.time_zone || record.sale_starts_at != plan.sale_starts_at;
    record.concert = concert.clone();
    record.time_zone.clone_from(&plan.time_zone);
    record.sale_starts_at = plan.sale_starts_at;
    if renamed {
        // The concert's other dates repeat its name, too.
        for id in record.dates.values() {
            if let Some(date) = tables.dates.get_mut(id) {
                Arc::make_mut(&mut date.terms).concert = concert.clone();
            }
        }
    }
    let mut dates = Vec::with_capacity(plan.dates.len());
    for date in &plan.dates {
        let id = *record.dates.entry(date.key.clone()).or_insert_with(|| DateId(SystemIds.fresh()));
        updated |= import_date(tables, id, &concert, date);
        let total = tables.seats.get(&id).map_or(0, |seats| seats.len() as u64);
        dates.push(ImportedDate { id, key: date.key.clone(), starts_at: date.starts_at, total });
    }
    if updated {
        effect = changed(effect);
    }
    tables.concert_keys.insert(plan.key.clone(), id);
    tables.concerts.insert(id, record);
    Imported { id, key: plan.key.clone(), effect, dates }
}

/// Whether anything of the date changed.
fn import_date(tables: &mut Tables, id: DateId, concert: &ConcertRef, plan: &DatePlan) -> bool {
    let terms = DateTerms {
        concert: concert.clone(),
        date: DateRef { id, starts_at: plan.starts_at, ends_at: plan.ends_at },
        booking_opens_at: plan.booking_opens_at,
        booking_closes_at: plan.booking_closes_at,
        refund_closes_at: plan.refund_closes_at,
    };
    let mut seats_changed = false;
    for range in &plan.seats {
        seats_changed |= import_seats(tables, id, range);
    }
    let prices = || tables.seats.get(&id).into_iter().flat_map(|seats| seats.values()).map(|row| row.value.price);
    let (price_min, price_max) = (prices().min().unwrap_or(0), prices().max().unwrap_or(0));
    let known = tables.dates.get(&id);
    let changed = seats_changed || known.is_none_or(|known| *known.terms != terms);
    let seats_version = known.map_or(0, |known| known.seats_version) + i64::from(seats_changed);
    tables.dates.insert(id, DateRecord { key: plan.key.clone(), terms: Arc::new(terms), price_min, price_max, seats_version });
    changed
}

/// Whether any seat is new or changed.
fn import_seats(tables: &mut Tables, date: DateId, plan: &SeatPlan) -> bool {
    let text = |text: &Option<String>| text.as_deref().map(Arc::<str>::from);
    let (section, row, grade) = (text(&plan.section), text(&plan.row), Arc::<str>::from(plan.grade.as_str()));
    let mut changed = false;
    for number in plan.from..=plan.to {
        let key = SeatKey { date, number };
        let (state, version) = match tables.seat(key) {
            Some(known) if is_seat_as_planned(&known.value, plan) => continue,
            Some(known) => (known.value.state, known.version + 1),
            None => (SeatState::Available, 1),
        };
        let seat = Seat { key, section: section.clone(), row: row.clone(), grade: Arc::clone(&grade), price: plan.price, state };
        tables.put_seat(seat, version);
        changed = true;
    }
    changed
}
