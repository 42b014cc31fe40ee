//! `import`: checks the whole file, then imports all of its concerts or none.

use crate::input;
use crate::output::print;
use anyhow::Context as _;
use boxoffice_app::config::Settings;
use boxoffice_app::http::document;
use boxoffice_app::wiring;
use boxoffice_domain::concert::Fault;
use boxoffice_ports::{CatalogError, ImportEffect, Imported};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(super) async fn run(settings: &Settings, file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let plans = match document::parse_file(&input::read(file)?, settings.money.amount_max) {
        Ok(plans) => plans,
        Err(faults) => {
            for fault in &faults {
                eprintln!("{}", line(file, fault));
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let stores = wiring::open_stores(settings).await?;
    match stores.catalog.import(plans, settings.default_admission()).await {
        Ok(imported) => print(&report(&imported, json)?)?,
        Err(CatalogError::Conflict { field, seat }) => {
            eprintln!("{}", line(file, &Fault { field, reason: format!("seat {seat} is held or sold") }));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `FILE: dates[0].seats[2].price: reason`; without the path if the file as a whole is at fault.
fn line(file: &Path, Fault { field, reason }: &Fault) -> String {
    let name = file.display();
    if field.is_empty() { format!("{name}: {reason}") } else { format!("{name}: {field}: {reason}") }
}

fn report(imported: &[Imported], json: bool) -> anyhow::Result<String> {
    let effect = |imported: &Imported| match imported.effect {
        ImportEffect::Created => "created",
        ImportEffect::Updated => "updated",
        ImportEffect::Unchanged => "unchanged",
    };
    if !json {
        let lines = imported.iter().map(|concert| {
            let seats: u64 = concert.dates.iter().map(|date| date.total).sum();
            let (effect, dates) = (effect(concert), concert.dates.len());
            format!("{effect}: {key} ({dates} dates, {seats} seats) {id}", key = concert.key, id = concert.id)
        });
        return Ok(lines.collect::<Vec<_>>().join("\n"));
    }
    let concerts = imported.iter().map(|concert| {
        let dates = concert.dates.iter();
        let dates = dates.map(|date| json!({ "id": date.id, "key": date.key, "starts_at": date.starts_at, "total": date.total }));
        json!({ "id": concert.id, "key": concert.key, "effect": effect(concert), "dates": dates.collect::<Vec<_>>() })
    });
    Ok(serde_json::to_string_pretty(&concerts.collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::{ConcertId, DateId};
    use boxoffice_ports::ImportedDate;

    #[test]
    fn faults_name_file_and_field() {
        let fault = |field: &str| Fault { field: field.to_owned(), reason: "must be from 1 to 9".to_owned() };
        let file = Path::new("season.json");
        assert_eq!(line(file, &fault("dates[0].seats[2].price")), "season.json: dates[0].seats[2].price: must be from 1 to 9");
        assert_eq!(line(file, &fault("")), "season.json: must be from 1 to 9");
    }

    #[test]
    fn report_has_every_effect_as_text_and_json() {
        let (id, starts_at) = (ConcertId(Default::default()), boxoffice_domain::Timestamp::UNIX_EPOCH);
        let date = ImportedDate { id: DateId(Default::default()), key: "day-1".to_owned(), starts_at, total: 50 };
        let imported = [Imported { id, key: "k".to_owned(), effect: ImportEffect::Updated, dates: vec![date.clone(), date] }];
        assert_eq!(report(&imported, false).unwrap(), format!("updated: k (2 dates, 100 seats) {id}"));
        let json: serde_json::Value = serde_json::from_str(&report(&imported, true).unwrap()).unwrap();
        assert_eq!((&json[0]["effect"], &json[0]["dates"][1]["total"]), (&json!("updated"), &json!(50)));
    }
}
