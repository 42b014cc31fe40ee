//! `audit`: the counted rows, and every row that breaks an invariant.

use crate::output::print;
use boxoffice_app::config::Settings;
use boxoffice_app::wiring;
use boxoffice_ports::AuditReport;
use serde_json::{Map, json};
use std::process::ExitCode;

pub(super) async fn run(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let stores = wiring::open_existing_stores(settings).await?;
    let report = stores.audit.audit(settings.hold.max_seats_per_user).await?;
    print(&if json { to_json(&report)? } else { to_text(&report) })?;
    Ok(if report.breaches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_text(report: &AuditReport) -> String {
    let counted = report.counted.iter().map(|(name, count)| format!("{name}: {count}"));
    let overdue = format!("expired holds that are not swept yet: {}", report.overdue_holds);
    let breaches = report.breaches.iter().map(|breach| format!("{} broken: {}", breach.invariant, breach.detail));
    let verdict = match report.breaches.len() {
        0 => "no invariant is broken".to_owned(),
        count => format!("breaches: {count}"),
    };
    counted.chain([overdue]).chain(breaches).chain([verdict]).collect::<Vec<_>>().join("\n")
}

fn to_json(report: &AuditReport) -> serde_json::Result<String> {
    let counted: Map<_, _> = report.counted.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    let breaches: Vec<_> = report.breaches.iter().map(|breach| json!({ "invariant": breach.invariant, "detail": breach.detail })).collect();
    serde_json::to_string_pretty(&json!({ "counted": counted, "overdue_holds": report.overdue_holds, "breaches": breaches }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::Breach;

    #[test]
    fn report_shows_counts_and_breaches() {
        let breach = Breach { invariant: "I2", detail: "user 7: balance 5, entries 4".to_owned() };
        let clean = AuditReport { counted: vec![("accounts", 3), ("seats", 50)], overdue_holds: 1, breaches: vec![] };
        let broken = AuditReport { breaches: vec![breach], ..clean.clone() };
        assert_eq!(to_text(&clean), "accounts: 3\nseats: 50\nexpired holds that are not swept yet: 1\nno invariant is broken");
        assert!(to_text(&broken).ends_with("I2 broken: user 7: balance 5, entries 4\nbreaches: 1"));
        let json: serde_json::Value = serde_json::from_str(&to_json(&broken).unwrap()).unwrap();
        assert_eq!((&json["counted"]["seats"], &json["breaches"][0]["invariant"]), (&json!(50), &json!("I2")));
    }
}
