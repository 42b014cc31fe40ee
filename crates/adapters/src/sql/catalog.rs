//! Concerts and dates: columns, the values read from them, and their comparison with an import's plan.

use super::columns::{Id, State, Word};
use super::rows::{Contradiction, narrow};
use boxoffice_domain::money::Money;
use boxoffice_domain::{
    Admission, AdmissionMode, ConcertId, ConcertPlan, ConcertRef, DateId, DatePlan, DateRef, DateTerms, PerInterval, Timestamp,
};
use boxoffice_ports::{ConcertRow, DateRow};
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use std::collections::HashMap;

/// The columns of an admission, and how they are read.
macro_rules! admission_columns {
    () => {
        "mode, max_active, per_interval_count, per_interval_s, auto, adaptive"
    };
}
pub(crate) use admission_columns;
pub(crate) type AdmissionTypes = (Text, BigInt, Nullable<BigInt>, Nullable<BigInt>, Bool, Bool);
pub(crate) type AdmissionRow = (State<AdmissionMode>, i64, Option<i64>, Option<i64>, bool, bool);

pub(crate) fn admission((mode, max_active, count, seconds, auto, adaptive): AdmissionRow) -> Result<Admission, Contradiction> {
    let per_interval = match (count, seconds) {
        (Some(count), Some(seconds)) => {
            Some(PerInterval { count: narrow("per_interval_count", count)?, seconds: narrow("per_interval_s", seconds)? })
        }
        // The schema has both or none.
        _ => None,
    };
    Ok(Admission { mode: mode.0, max_active: narrow("max_active", max_active)?, per_interval, auto, adaptive })
}

/// The columns that an admission is written as.
pub(crate) type StoredAdmission = (&'static str, i64, Option<i64>, Option<i64>, bool, bool);

pub(crate) fn stored_admission(of: Admission) -> StoredAdmission {
    let rate = of.per_interval;
    let (count, seconds) = (rate.map(|rate| i64::from(rate.count)), rate.map(|rate| i64::from(rate.seconds)));
    (of.mode.word(), i64::from(of.max_active), count, seconds, of.auto, of.adaptive)
}

/// A new concert as it is inserted: its [`concert_columns!`].
pub(crate) type NewConcert<'a, T> =
    (ConcertId, &'a str, &'a str, &'a str, &'a str, Option<T>, &'static str, i64, Option<i64>, Option<i64>, bool, bool);

pub(crate) fn new_concert<T: From<Timestamp>>(id: ConcertId, plan: &ConcertPlan, admission: Admission) -> NewConcert<'_, T> {
    let (mode, max_active, count, seconds, auto, adaptive) = stored_admission(plan.admission.unwrap_or(admission));
    let (key, name, venue, time_zone) = (plan.key.as_str(), plan.name.as_str(), plan.venue.as_str(), plan.time_zone.as_str());
    (id, key, name, venue, time_zone, plan.sale_starts_at.map(T::from), mode, max_active, count, seconds, auto, adaptive)
}

/// A concert as an import finds it: id, name, venue, time zone, `sale_starts_at`.
pub(crate) type FoundConcert<T> = (Id<ConcertId>, String, String, String, Option<T>);

pub(crate) fn is_concert_as_planned<T: Into<Timestamp> + Copy>(found: &FoundConcert<T>, plan: &ConcertPlan) -> bool {
    let (_, name, venue, time_zone, sale_starts_at) = found;
    (name, venue, time_zone, sale_starts_at.map(Into::into)) == (&plan.name, &plan.venue, &plan.time_zone, plan.sale_starts_at)
}

/// The instants of a date: `starts_at`, `ends_at`, `booking_opens_at`, `booking_closes_at`, `refund_closes_at`.
pub(crate) type DateTimes<T> = (T, Option<T>, T, T, T);

pub(crate) fn planned_times<T: From<Timestamp>>(plan: &DatePlan) -> DateTimes<T> {
    let (opens_at, closes_at) = (plan.booking_opens_at.into(), plan.booking_closes_at.into());
    (plan.starts_at.into(), plan.ends_at.map(T::from), opens_at, closes_at, plan.refund_closes_at.into())
}

/// The columns of a date `d` and its concert `c` that a booking is decided by, and how they are read.
macro_rules! terms_columns {
    () => {
        "c.id, c.name, c.venue, d.starts_at, d.ends_at, d.booking_opens_at, d.booking_closes_at, d.refund_closes_at"
    };
}
pub(crate) use terms_columns;
pub(crate) type TermsRow<T> = (Id<ConcertId>, String, String, T, Option<T>, T, T, T);

pub(crate) fn terms<T: Into<Timestamp>>(date: DateId, row: TermsRow<T>) -> DateTerms {
    let (concert, name, venue, starts_at, ends_at, opens_at, closes_at, refund_closes_at) = row;
    DateTerms {
        concert: ConcertRef { id: concert.0, name: name.into(), venue: venue.into() },
        date: DateRef { id: date, starts_at: starts_at.into(), ends_at: ends_at.map(Into::into) },
        booking_opens_at: opens_at.into(),
        booking_closes_at: closes_at.into(),
        refund_closes_at: refund_closes_at.into(),
    }
}

/// The columns of a concert, and how they are read.
macro_rules! concert_columns {
    () => {
        "id, key, name, venue, time_zone, sale_starts_at, mode, max_active, per_interval_count, per_interval_s, auto, adaptive"
    };
}
pub(crate) use concert_columns;
pub(crate) type ConcertColumns<T> = (Id<ConcertId>, String, String, String, String, Option<T>, AdmissionRow);

/// The columns of a date, and how they are read.
macro_rules! date_columns {
    () => {
        "id, concert_id, key, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at, \
         seats_total, price_min, price_max, seats_version"
    };
}
pub(crate) use date_columns;
pub(crate) type DateColumns<T> = (Id<DateId>, Id<ConcertId>, String, T, Option<T>, T, T, T, i64, Money, Money, i64);

/// Concerts with their dates, each in the order given.
pub(crate) fn catalog<T: Into<Timestamp>>(
    concerts: Vec<ConcertColumns<T>>,
    dates: Vec<DateColumns<T>>,
) -> Result<Vec<ConcertRow>, Contradiction> {
    let mut dates_of: HashMap<ConcertId, Vec<DateRow>> = HashMap::new();
    for (id, concert, key, starts_at, ends_at, opens_at, closes_at, refund_closes_at, total, price_min, price_max, version) in dates {
        dates_of.entry(concert.0).or_default().push(DateRow {
            date: DateRef { id: id.0, starts_at: starts_at.into(), ends_at: ends_at.map(Into::into) },
            key,
            booking_opens_at: opens_at.into(),
            booking_closes_at: closes_at.into(),
            refund_closes_at: refund_closes_at.into(),
            total: narrow("seats_total", total)?.into(),
            price_min,
            price_max,
            seats_version: version,
        });
    }
    let concert = |(id, key, name, venue, time_zone, sale_starts_at, admits): ConcertColumns<T>| {
        Ok(ConcertRow {
            concert: ConcertRef { id: id.0, name: name.into(), venue: venue.into() },
            key,
            time_zone,
            sale_starts_at: sale_starts_at.map(Into::into),
            admission: admission(admits)?,
            dates: dates_of.remove(&id.0).unwrap_or_default(),
        })
    };
    concerts.into_iter().map(concert).collect()
}
