//! Concerts and their dates: what is on sale, from when to when. Never changed by a command, only by an import.

use crate::admission::Admission;
pub use crate::fault::Fault;
use crate::money::Money;
use crate::text::{self, TEXT_MAX};
use crate::{ConcertId, DateId, SeatNumber, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

/// The most seats one date may have.
pub const SEATS_PER_DATE_MAX: u32 = 200_000;
/// The most dates one concert document may bring.
pub const DATES_PER_CONCERT_MAX: usize = 1_000;

/// A concert as a record repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcertRef {
    pub id: ConcertId,
    pub name: Arc<str>,
    pub venue: Arc<str>,
}

/// A date as a record repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DateRef {
    pub id: DateId,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
}

/// What a decision must know of a date, read in the command's own transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateTerms {
    pub concert: ConcertRef,
    pub date: DateRef,
    pub booking_opens_at: Timestamp,
    pub booking_closes_at: Timestamp,
    pub refund_closes_at: Timestamp,
}

impl DateTerms {
    /// Whether a hold may start at `now`.
    pub fn is_bookable(&self, now: Timestamp) -> bool {
        self.booking_opens_at <= now && now < self.booking_closes_at
    }
}

/// A concert document that has been checked and may be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcertPlan {
    pub key: String,
    pub name: String,
    pub venue: String,
    pub time_zone: String,
    pub sale_starts_at: Option<Timestamp>,
    /// Counts when the concert is created; later only an operator's PATCH changes it.
    pub admission: Option<Admission>,
    pub dates: Vec<DatePlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatePlan {
    pub key: String,
    pub starts_at: Timestamp,
    pub ends_at: Option<Timestamp>,
    pub booking_opens_at: Timestamp,
    pub booking_closes_at: Timestamp,
    pub refund_closes_at: Timestamp,
    pub seats: Vec<SeatPlan>,
}

/// The seats `from..=to`, alike but for their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatPlan {
    pub from: SeatNumber,
    pub to: SeatNumber,
    pub grade: String,
    pub price: Money,
    pub section: Option<String>,
    pub row: Option<String>,
}

impl ConcertPlan {
    /// Everything that is wrong with it, in the order of the document; empty when it may be imported.
    /// `price_max` is the configured `money.amount_max`.
    pub fn faults(&self, price_max: Money) -> Vec<Fault> {
        let mut faults = Faults::default();
        for (field, text) in [("key", &self.key), ("name", &self.name), ("venue", &self.venue), ("time_zone", &self.time_zone)] {
            faults.text(field, text);
        }
        if let Some(admission) = &self.admission {
            for fault in admission.faults() {
                faults.add(format!("admission.{}", fault.field), fault.reason);
            }
        }
        if self.dates.len() > DATES_PER_CONCERT_MAX {
            faults.add("dates", format!("more than {DATES_PER_CONCERT_MAX}"));
        }
        let mut keys = HashSet::new();
        for (at, date) in self.dates.iter().enumerate() {
            let path = format!("dates[{at}]");
            if !keys.insert(date.key.as_str()) {
                faults.add(format!("{path}.key"), format!("`{}` names another date of this document", date.key));
            }
            date.find_faults(&path, price_max, &mut faults);
        }
        faults.0
    }
}

impl DatePlan {
    /// How many seats the plan brings.
    pub fn total(&self) -> u32 {
        self.seats.iter().map(|seats| seats.to - seats.from + 1).sum()
    }

    fn find_faults(&self, path: &str, price_max: Money, faults: &mut Faults) {
        faults.text(&format!("{path}.key"), &self.key);
        if self.ends_at.is_some_and(|ends_at| ends_at <= self.starts_at) {
            faults.add(format!("{path}.ends_at"), "must be after starts_at");
        }
        if self.booking_closes_at <= self.booking_opens_at {
            faults.add(format!("{path}.booking_closes_at"), "must be after booking_opens_at");
        }
        if self.seats.is_empty() {
            faults.add(format!("{path}.seats"), "must not be empty");
        }
        let mut total = 0u64;
        let mut ranges: Vec<(SeatNumber, SeatNumber, usize)> = Vec::with_capacity(self.seats.len());
        for (at, seats) in self.seats.iter().enumerate() {
            let path = format!("{path}.seats[{at}]");
            faults.text(&format!("{path}.grade"), &seats.grade);
            for (name, text) in [("section", &seats.section), ("row", &seats.row)] {
                if let Some(text) = text {
                    faults.text(&format!("{path}.{name}"), text);
                }
            }
            if seats.price < 1 || seats.price > price_max {
                faults.add(format!("{path}.price"), format!("must be from 1 to {price_max}"));
            }
            if seats.from < 1 || seats.from > i32::MAX as u32 {
                faults.add(format!("{path}.from"), format!("must be from 1 to {}", i32::MAX));
            }
            if seats.to < seats.from || seats.to > i32::MAX as u32 {
                faults.add(format!("{path}.to"), format!("must be from `from` to {}", i32::MAX));
                continue;
            }
            total += u64::from(seats.to - seats.from) + 1;
            ranges.push((seats.from, seats.to, at));
        }
        if total > u64::from(SEATS_PER_DATE_MAX) {
            faults.add(format!("{path}.seats"), format!("{total} seats are more than {SEATS_PER_DATE_MAX}"));
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if pair[1].0 <= pair[0].1 {
                let (later, earlier) = (pair[0].2.max(pair[1].2), pair[0].2.min(pair[1].2));
                faults.add(format!("{path}.seats[{later}]"), format!("overlaps seats[{earlier}]"));
            }
        }
    }
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Fault { field: field.into(), reason: reason.into() });
    }

    fn text(&mut self, field: &str, value: &str) {
        if value.trim().is_empty() {
            self.add(field, "must not be empty");
        } else if let Some(reason) = text::fault(value, TEXT_MAX) {
            self.add(field, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};

    fn seats(from: u32, to: u32) -> SeatPlan {
        SeatPlan { from, to, grade: "R".into(), price: 100, section: None, row: None }
    }

    fn plan() -> ConcertPlan {
        let start = DateTime::UNIX_EPOCH;
        let date = DatePlan {
            key: "day-1".into(),
            starts_at: start + TimeDelta::days(2),
            ends_at: Some(start + TimeDelta::days(3)),
            booking_opens_at: start,
            booking_closes_at: start + TimeDelta::days(1),
            refund_closes_at: start + TimeDelta::days(2),
            seats: vec![seats(1, 50)],
        };
        ConcertPlan {
            key: "k".into(),
            name: "N".into(),
            venue: "V".into(),
            time_zone: "UTC".into(),
            sale_starts_at: None,
            admission: None,
            dates: vec![date],
        }
    }

    fn fault_of(change: impl FnOnce(&mut ConcertPlan)) -> Vec<String> {
        let mut plan = plan();
        change(&mut plan);
        plan.faults(1_000).into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn concert_plan_names_every_faulty_field() {
        assert!(plan().faults(1_000).is_empty());
        assert_eq!(fault_of(|p| p.key.clear()), ["key"]);
        assert_eq!(fault_of(|p| p.name = "x".repeat(201)), ["name"]);
        assert_eq!(fault_of(|p| p.venue = "a\nb".into()), ["venue"]);
        assert_eq!(fault_of(|p| p.dates[0].seats.clear()), ["dates[0].seats"]);
        assert_eq!(fault_of(|p| p.dates[0].seats[0].price = 0), ["dates[0].seats[0].price"]);
        assert_eq!(fault_of(|p| p.dates[0].seats[0].price = 1_001), ["dates[0].seats[0].price"]);
        assert_eq!(fault_of(|p| p.dates[0].seats[0].from = 0), ["dates[0].seats[0].from"]);
        assert_eq!(fault_of(|p| p.dates[0].seats[0].to = 0), ["dates[0].seats[0].to"]);
        assert_eq!(fault_of(|p| p.dates[0].ends_at = Some(p.dates[0].starts_at)), ["dates[0].ends_at"]);
        assert_eq!(fault_of(|p| p.dates[0].booking_closes_at = p.dates[0].booking_opens_at), ["dates[0].booking_closes_at"]);
        assert_eq!(fault_of(|p| p.dates[0].seats = vec![seats(1, 200_001)]), ["dates[0].seats"]);
        assert_eq!(fault_of(|p| p.dates.push(p.dates[0].clone())), ["dates[1].key"]);
    }

    #[test]
    fn concert_plan_refuses_overlapping_ranges() {
        assert_eq!(fault_of(|p| p.dates[0].seats = vec![seats(1, 10), seats(20, 30), seats(10, 12)]), ["dates[0].seats[2]"]);
        assert_eq!(fault_of(|p| p.dates[0].seats = vec![seats(5, 10), seats(1, 5)]), ["dates[0].seats[1]"]);
        assert!(fault_of(|p| p.dates[0].seats = vec![seats(5, 10), seats(1, 4), seats(11, 11)]).is_empty());
    }
}
