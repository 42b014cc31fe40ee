//! The concert document, as `POST /api/v1/admin/concerts` and `boxoffice import` take it.
//!
//! Parse, then construct: what comes out is a [`ConcertPlan`] that may be imported as it is. A refusal names every
//! fault by its path in the document, such as `dates[0].seats[2].price`; of a value of the wrong type, the first one.

use std::collections::HashSet;

use boxoffice_domain::concert::Fault;
use boxoffice_domain::money::Money;
use boxoffice_domain::{Admission, AdmissionMode, ConcertPlan, DatePlan, PerInterval, SeatPlan, Timestamp};
use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::json::{self, Strict};
use crate::max_active::MaxActive;

/// Instants outside these years are mistakes, and stores would not sort them as text.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
/// The most concerts one file may bring.
const CONCERTS_PER_FILE_MAX: usize = 10_000;
const DEFAULT_TIME_ZONE: &str = "UTC";

/// A concert with its dates and seats. `key` identifies it: the same document again changes nothing.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcertDocument {
    #[schema(example = "moonlight-2027", max_length = 200)]
    pub key: String,
    #[schema(example = "Moonlight Tour", max_length = 200)]
    pub name: String,
    #[schema(example = "Olympic Hall", max_length = 200)]
    pub venue: String,
    /// An IANA name; `UTC` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Asia/Seoul")]
    pub time_zone: Option<String>,
    /// The start of admission; without it the queue is open at once.
    #[serde(default, deserialize_with = "optional_instant", skip_serializing_if = "Option::is_none")]
    pub sale_starts_at: Option<DateTime<Utc>>,
    /// Counts when the concert is created; afterwards it is changed through the concert's admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<AdmissionDocument>,
    /// Dates that are there already and not named stay as they are.
    pub dates: Vec<DateDocument>,
}

/// How the waiting room admits.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdmissionDocument {
    /// People active at once, at most.
    #[schema(example = 200)]
    pub max_active: MaxActive,
    /// Without it there is no rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_interval: Option<PerIntervalDocument>,
    /// The rate falls when the servers fare badly, and creeps back.
    #[serde(default)]
    pub adaptive: bool,
}

/// At most `count` admitted in any window of `seconds`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PerIntervalDocument {
    #[schema(minimum = 1, maximum = 1_000_000, example = 50)]
    pub count: u32,
    #[schema(minimum = 1, maximum = 3_600, example = 1)]
    pub seconds: u32,
}

/// One performance.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DateDocument {
    /// Identifies the date within its concert; `starts_at` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "day-1", max_length = 200)]
    pub key: Option<String>,
    #[serde(deserialize_with = "instant")]
    pub starts_at: DateTime<Utc>,
    #[serde(default, deserialize_with = "optional_instant", skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    #[serde(deserialize_with = "instant")]
    pub booking_opens_at: DateTime<Utc>,
    #[serde(deserialize_with = "instant")]
    pub booking_closes_at: DateTime<Utc>,
    /// `starts_at` when absent.
    #[serde(default, deserialize_with = "optional_instant", skip_serializing_if = "Option::is_none")]
    pub refund_closes_at: Option<DateTime<Utc>>,
    /// Ranges that do not overlap. Seats that are there already and not named stay as they are.
    pub seats: Vec<SeatsDocument>,
}

/// The seats `from` to `to`, alike but for their number.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeatsDocument {
    #[schema(minimum = 1, example = 1)]
    pub from: u32,
    #[schema(minimum = 1, example = 50)]
    pub to: u32,
    #[schema(example = "R", max_length = 200)]
    pub grade: String,
    /// Minor units of the configured currency.
    #[schema(minimum = 1, example = 132_000)]
    pub price: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "A", max_length = 200)]
    pub section: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1", max_length = 200)]
    pub row: Option<String>,
}

impl ConcertDocument {
    /// The plan, or every fault. `price_max` is `money.amount_max`.
    pub fn check(self, price_max: Money) -> Result<ConcertPlan, Vec<Fault>> {
        let Self { key, name, venue, time_zone, sale_starts_at, admission, dates } = self;
        let time_zone = time_zone.unwrap_or_else(|| DEFAULT_TIME_ZONE.to_owned());
        let unknown_zone = time_zone.parse::<chrono_tz::Tz>().is_err();
        let dates = dates.into_iter().map(DateDocument::plan).collect();
        let plan = ConcertPlan { key, name, venue, time_zone, sale_starts_at, admission: admission.map(AdmissionDocument::plan), dates };
        let mut faults = plan.faults(price_max);
        if unknown_zone && !faults.iter().any(|fault| fault.field == "time_zone") {
            faults.push(fault("time_zone", "must be an IANA name such as Asia/Seoul"));
        }
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }
}

impl AdmissionDocument {
    fn plan(self) -> Admission {
        let per_interval = self.per_interval.map(|PerIntervalDocument { count, seconds }| PerInterval { count, seconds });
        let (max_active, auto) = self.max_active.parts();
        Admission { mode: AdmissionMode::Running, max_active, per_interval, auto, adaptive: self.adaptive }
    }
}

impl DateDocument {
    fn plan(self) -> DatePlan {
        let seats = self.seats.into_iter();
        DatePlan {
            key: self.key.unwrap_or_else(|| self.starts_at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            booking_opens_at: self.booking_opens_at,
            booking_closes_at: self.booking_closes_at,
            refund_closes_at: self.refund_closes_at.unwrap_or(self.starts_at),
            seats: seats
                .map(|SeatsDocument { from, to, grade, price, section, row }| SeatPlan { from, to, grade, price, section, row })
                .collect(),
        }
    }
}

/// One document.
pub fn parse_one(document: Value, price_max: Money) -> Result<ConcertPlan, Vec<Fault>> {
    let document: ConcertDocument = json::from_value(document).map_err(|fault| vec![fault])?;
    document.check(price_max)
}

/// One document, or an array of them, whose faults then begin with `[n]`. A fault without a field is about the whole.
pub fn parse_file(bytes: &[u8], price_max: Money) -> Result<Vec<ConcertPlan>, Vec<Fault>> {
    let documents = match json::read_file::<Strict>(bytes).map_err(|fault| vec![fault.into()])?.0 {
        Value::Array(documents) => documents,
        document => return parse_one(document, price_max).map(|plan| vec![plan]),
    };
    if documents.len() > CONCERTS_PER_FILE_MAX {
        return Err(vec![fault("", format!("more than {CONCERTS_PER_FILE_MAX} concerts"))]);
    }
    let (mut plans, mut faults, mut keys) = (Vec::with_capacity(documents.len()), Vec::new(), HashSet::new());
    for (at, document) in documents.into_iter().enumerate() {
        match parse_one(document, price_max) {
            Ok(plan) if !keys.insert(plan.key.clone()) => {
                faults.push(fault(&format!("[{at}].key"), format!("`{}` names another concert of this file", plan.key)));
            }
            Ok(plan) => plans.push(plan),
            Err(found) => faults.extend(found.into_iter().map(|Fault { field, reason }| {
                let field = if field.is_empty() { format!("[{at}]") } else { format!("[{at}].{field}") };
                Fault { field, reason }
            })),
        }
    }
    if faults.is_empty() { Ok(plans) } else { Err(faults) }
}

fn fault(field: &str, reason: impl Into<String>) -> Fault {
    Fault { field: field.to_owned(), reason: reason.into() }
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    parse_instant(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn optional_instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_instant(&text)).transpose().map_err(D::Error::custom)
}

/// RFC 3339 with an offset, to the microsecond.
fn parse_instant(text: &str) -> Result<Timestamp, String> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .and_then(|instant| DateTime::from_timestamp_micros(instant.timestamp_micros()))
        .filter(|instant| YEARS.contains(&instant.year()))
        .ok_or_else(|| format!("`{text}` is not an instant such as 2027-01-10T11:00:00Z (RFC 3339, with an offset)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> Value {
        json!({
            "key": "moonlight-2027", "name": "Moonlight Tour", "venue": "Olympic Hall", "time_zone": "Asia/Seoul",
            "sale_starts_at": "2027-01-10T11:00:00Z",
            "admission": { "max_active": 200, "per_interval": { "count": 50, "seconds": 1 } },
            "dates": [ { "key": "day-1", "starts_at": "2027-03-05T10:00:00Z", "ends_at": "2027-03-05T13:00:00Z",
                "booking_opens_at": "2027-01-10T11:00:00Z", "booking_closes_at": "2027-03-05T09:00:00Z",
                "refund_closes_at": "2027-03-03T15:00:00Z",
                "seats": [ { "from": 1, "to": 50, "grade": "R", "price": 132_000, "section": "A", "row": "1" } ] } ]
        })
    }

    fn fields(result: Result<impl Sized, Vec<Fault>>) -> Vec<String> {
        result.err().unwrap_or_default().into_iter().map(|fault| fault.field).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn whole_document_becomes_a_plan() {
        let plan = parse_one(example(), 1_000_000).unwrap();
        assert_eq!((plan.key.as_str(), plan.time_zone.as_str()), ("moonlight-2027", "Asia/Seoul"));
        assert_eq!(plan.sale_starts_at, Some(at("2027-01-10T11:00:00Z")));
        let per_interval = Some(PerInterval { count: 50, seconds: 1 });
        assert_eq!(
            plan.admission,
            Some(Admission { mode: AdmissionMode::Running, max_active: 200, per_interval, auto: false, adaptive: false })
        );
        assert_eq!((plan.dates[0].key.as_str(), plan.dates[0].total()), ("day-1", 50));
        assert_eq!(plan.dates[0].refund_closes_at, at("2027-03-03T15:00:00Z"));
    }

    #[test]
    fn absent_and_null_fields_take_their_defaults() {
        for absent in [false, true] {
            let mut document = example();
            let mut clear = |pointer: &str, names: &[&str]| {
                let object = document.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
                for name in names {
                    if absent {
                        object.remove(*name);
                    } else {
                        object.insert((*name).to_owned(), Value::Null);
                    }
                }
            };
            clear("", &["time_zone", "sale_starts_at", "admission"]);
            clear("/dates/0", &["key", "ends_at", "refund_closes_at"]);
            clear("/dates/0/seats/0", &["section", "row"]);
            let plan = parse_one(document, 1_000_000).unwrap();
            assert_eq!((plan.time_zone.as_str(), plan.sale_starts_at, plan.admission), ("UTC", None, None));
            let date = &plan.dates[0];
            assert_eq!((date.key.as_str(), date.ends_at, date.refund_closes_at), ("2027-03-05T10:00:00Z", None, date.starts_at));
            assert_eq!((&date.seats[0].section, &date.seats[0].row), (&None, &None));
        }
    }

    #[test]
    fn instants_have_an_offset_and_are_kept_to_the_microsecond() {
        assert_eq!(parse_instant("2027-01-10T20:00:00+09:00"), Ok(at("2027-01-10T11:00:00Z")));
        assert_eq!(parse_instant("2027-01-10T11:00:00.123456789Z"), Ok(at("2027-01-10T11:00:00.123456Z")));
        for wrong in ["2027-01-10T11:00:00", "2027-01-10", "1799578800", "", "0001-01-01T00:00:00Z", "2027-02-30T00:00:00Z"] {
            assert!(parse_instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_fault_is_named_by_its_path() {
        for (pointer, value, field) in [
            ("/key", json!(""), "key"),
            ("/name", json!(7), "name"),
            ("/time_zone", json!("Asia/Soul"), "time_zone"),
            ("/time_zone", json!(""), "time_zone"),
            ("/sale_starts_at", json!("tomorrow"), "sale_starts_at"),
            ("/admission/max_active", json!("many"), "admission.max_active"),
            ("/admission/max_active", json!(0), "admission.max_active"),
            ("/admission/per_interval/seconds", json!(0), "admission.per_interval.seconds"),
            ("/dates", json!({}), "dates"),
            ("/dates/0/starts_at", json!("2027-03-05T10:00:00"), "dates[0].starts_at"),
            ("/dates/0/seats/0/price", json!(0), "dates[0].seats[0].price"),
            ("/dates/0/seats/0/price", json!(132_000.5), "dates[0].seats[0].price"),
            ("/dates/0/seats/0/price", json!(1_000_001), "dates[0].seats[0].price"),
            ("/dates/0/seats/0/from", json!(-1), "dates[0].seats[0].from"),
            ("/dates/0/seats/0/to", json!(4_294_967_296u64), "dates[0].seats[0].to"),
            ("/dates/0/seats/0", json!({ "from": 1, "to": 2, "grade": "R", "price": 1, "rowe": "1" }), "dates[0].seats[0].rowe"),
            ("/dates/0/seats/0", json!({ "from": 1, "to": 2, "grade": "R" }), "dates[0].seats[0].price"),
        ] {
            let mut document = example();
            *document.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(fields(parse_one(document, 1_000_000)), [field], "{pointer} = {value}");
        }
        assert_eq!(fields(parse_one(json!(3), 1)), [""]);
    }

    #[test]
    fn all_faults_of_values_are_found_at_once() {
        let mut document = example();
        document["venue"] = json!(" ");
        document["time_zone"] = json!("Nowhere");
        document["dates"][0]["seats"] = json!([
            { "from": 1, "to": 10, "grade": "R", "price": 0 }, { "from": 10, "to": 9, "grade": "", "price": 5 }
        ]);
        let wanted = ["venue", "dates[0].seats[0].price", "dates[0].seats[1].grade", "dates[0].seats[1].to", "time_zone"];
        assert_eq!(fields(parse_one(document, 1_000_000)), wanted);
    }

    #[test]
    fn file_holds_one_document_or_an_array_of_them() {
        let parse = |value: Value| parse_file(value.to_string().as_bytes(), 1_000_000);
        assert_eq!(parse(example()).unwrap().len(), 1);
        let (mut second, mut faulty) = (example(), example());
        second["key"] = json!("other");
        faulty["dates"][0]["seats"][0]["price"] = json!("free");
        assert_eq!(parse(json!([example(), second])).unwrap().len(), 2);
        assert_eq!(fields(parse(json!([example(), faulty, 5]))), ["[1].dates[0].seats[0].price", "[2]"]);
        assert_eq!(fields(parse(json!([example(), example()]))), ["[1].key"]);
        let faults = parse_file(b"{\n  \"key\": }", 1).unwrap_err();
        assert!(faults[0].field.is_empty() && faults[0].reason.contains("line 2"), "{faults:?}");
    }
}
