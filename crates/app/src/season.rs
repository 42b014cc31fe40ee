//! A small demo season, so that a fresh server has something to book: three concerts, with times relative to the start.
//!
//! It is written as documents and passes their checks like any import. It is loaded into an empty store only.

use crate::http::document::{AdmissionDocument, ConcertDocument, DateDocument, PerIntervalDocument, SeatsDocument};
use crate::max_active::MaxActive;
use boxoffice_domain::concert::Fault;
use boxoffice_domain::money::Money;
use boxoffice_domain::{Admission, ConcertPlan, Timestamp};
use boxoffice_ports::{CatalogError, StoreError, Stores};
use chrono::{DateTime, NaiveTime, TimeDelta, Timelike, Utc};

/// How long after the start the concert with a pre-sale goes on sale.
const PRE_SALE: TimeDelta = TimeDelta::minutes(10);
const TIME_ZONE: &str = "Asia/Seoul";

#[derive(Debug, thiserror::Error)]
pub enum SeasonError {
    /// Its prices do not fit the configured `money.amount_max`.
    #[error("the demo season does not fit the configuration: {field}: {reason}", field = .0.field, reason = .0.reason)]
    Unfit(Fault),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Fills an empty store; returns whether it did.
pub async fn load(stores: &Stores, admission: Admission, price_max: Money) -> Result<bool, SeasonError> {
    if !stores.queries.catalog().await?.is_empty() {
        return Ok(false);
    }
    let plans = plans(stores.queries.now().await?, price_max)?;
    stores.catalog.import(plans, admission).await?;
    Ok(true)
}

/// The season of a server that starts at `start`.
pub fn plans(start: Timestamp, price_max: Money) -> Result<Vec<ConcertPlan>, SeasonError> {
    let start = start.with_nanosecond(0).unwrap_or(start);
    let documents = [moonlight(start), mahler(start), neon(start)];
    let check = |document: ConcertDocument| document.check(price_max);
    documents.into_iter().map(check).collect::<Result<_, _>>().map_err(|mut faults| SeasonError::Unfit(faults.swap_remove(0)))
}

/// Three nights in a hall of 50 seats, on sale at once.
fn moonlight(start: Timestamp) -> ConcertDocument {
    ConcertDocument {
        key: "moonlight-tour".to_owned(),
        name: "Hana Seo: Moonlight Tour".to_owned(),
        venue: "Namsan Studio Hall".to_owned(),
        time_zone: Some(TIME_ZONE.to_owned()),
        sale_starts_at: None,
        admission: None,
        dates: (0..3).map(|night| date(start, start, 45 + night, 10, small_hall([132_000, 99_000, 77_000]))).collect(),
    }
}

/// Two evenings in a hall of 50 seats, with a pre-sale queue first.
fn mahler(start: Timestamp) -> ConcertDocument {
    let sale = start + PRE_SALE;
    ConcertDocument {
        key: "mahler-resurrection".to_owned(),
        name: "Hangang Philharmonic: Mahler, Symphony No. 2 \u{201c}Resurrection\u{201d}".to_owned(),
        venue: "Bukchon Recital Hall".to_owned(),
        time_zone: Some(TIME_ZONE.to_owned()),
        sale_starts_at: Some(sale),
        admission: Some(AdmissionDocument {
            max_active: MaxActive::At(20),
            per_interval: Some(PerIntervalDocument { count: 5, seconds: 1 }),
            adaptive: false,
        }),
        dates: [60, 61].map(|day| date(start, sale, day, 11, small_hall([150_000, 110_000, 60_000]))).to_vec(),
    }
}

/// Two nights in an arena of 20,000 seats, on sale at once.
fn neon(start: Timestamp) -> ConcertDocument {
    ConcertDocument {
        key: "neon-river-world-tour".to_owned(),
        name: "NEON RIVER World Tour".to_owned(),
        venue: "Songdo Dome Arena".to_owned(),
        time_zone: Some(TIME_ZONE.to_owned()),
        sale_starts_at: None,
        admission: None,
        dates: [90, 91].map(|day| date(start, start, day, 9, arena())).to_vec(),
    }
}

/// An evening `day` days after the start, at `hour` o'clock UTC.
fn date(start: Timestamp, booking_opens_at: Timestamp, day: i64, hour: u32, seats: Vec<SeatsDocument>) -> DateDocument {
    let evening = NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or_default();
    let starts_at: DateTime<Utc> = (start + TimeDelta::days(day)).date_naive().and_time(evening).and_utc();
    DateDocument {
        key: None,
        starts_at,
        ends_at: Some(starts_at + TimeDelta::minutes(150)),
        booking_opens_at,
        booking_closes_at: starts_at - TimeDelta::hours(1),
        refund_closes_at: Some(starts_at - TimeDelta::days(2)),
        seats,
    }
}

/// Seats 1 to 50: five rows of ten, the first two of them R, the next two S, the last one A.
fn small_hall([r, s, a]: [Money; 3]) -> Vec<SeatsDocument> {
    [("R", r), ("R", r), ("S", s), ("S", s), ("A", a)]
        .into_iter()
        .zip(1..)
        .map(|((grade, price), row)| seats((row - 1) * 10, 10, grade, price, "Main", row))
        .collect()
}

/// Seats 1 to 20,000 in sections of 20 rows of 25: the floor, the lower and the upper tier.
fn arena() -> Vec<SeatsDocument> {
    const ROWS: u32 = 20;
    const SEATS_PER_ROW: u32 = 25;
    let floor = (1..=4).map(|n| (format!("F{n}"), "VIP", 198_000));
    let lower = (101..=116).map(|n| (n.to_string(), "R", 154_000));
    let upper = (201..=220).map(|n| (n.to_string(), if n <= 210 { "S" } else { "A" }, if n <= 210 { 121_000 } else { 88_000 }));
    let mut before = 0;
    let mut ranges = Vec::new();
    for (section, grade, price) in floor.chain(lower).chain(upper) {
        for row in 1..=ROWS {
            ranges.push(seats(before, SEATS_PER_ROW, grade, price, &section, row));
            before += SEATS_PER_ROW;
        }
    }
    ranges
}

fn seats(before: u32, count: u32, grade: &str, price: Money, section: &str, row: u32) -> SeatsDocument {
    SeatsDocument {
        from: before + 1,
        to: before + count,
        grade: grade.to_owned(),
        price,
        section: Some(section.to_owned()),
        row: Some(row.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn season_has_three_concerts_and_passes_the_checks_whenever_it_starts() {
        for start in ["2026-12-31T23:59:59.999999Z", "2028-02-29T00:00:00Z", "2027-06-15T10:30:00.5Z"] {
            let start: Timestamp = start.parse().unwrap();
            let plans = plans(start, 1_000_000).unwrap();
            assert_eq!(plans.len(), 3);
            let totals: Vec<u32> = plans.iter().flat_map(|plan| plan.dates.iter().map(|date| date.total())).collect();
            assert_eq!(totals, [50, 50, 50, 50, 50, 20_000, 20_000]);
            assert_eq!(plans.iter().filter(|plan| plan.sale_starts_at.is_some_and(|sale| sale > start)).count(), 1);
            let open = plans.iter().filter(|plan| plan.sale_starts_at.is_none());
            assert!(open.flat_map(|plan| &plan.dates).all(|date| date.booking_opens_at <= start && date.booking_closes_at > start));
        }
    }

    #[test]
    fn season_that_does_not_fit_the_configuration_names_the_field() {
        let refusal = plans(DateTime::UNIX_EPOCH, 100_000).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("dates[0].seats[0].price"), "{refusal}");
    }
}
