use super::samples::{sample, sample_overload, sample_run};
use super::*;
use crate::drive::Latencies;
use serde_json::Value;

fn paths(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| paths(value, &format!("{at}.{name}"), into)),
        Value::Array(items) => items.iter().take(1).for_each(|item| paths(item, &format!("{at}[]"), into)),
        _ => into.push(at.trim_start_matches('.').to_owned()),
    }
}

/// Programs that read reports rely on these fields; removing one or changing its meaning takes a new [`SCHEMA`].
#[test]
fn json_has_the_fields_of_its_schema() {
    let run = Run { first_failure: Some("x".to_owned()), findings: vec!["f".to_owned()], ..sample_run("combining", "spread", Via::Http) };
    let run = Run { breaches: vec!["b".to_owned()], ..run };
    let overload = Overload { first_failure: Some("x".to_owned()), ..sample_overload() };
    let overload = Overload { findings: vec!["f".to_owned()], breaches: vec!["b".to_owned()], ..overload };
    let json = serde_json::to_value(Report { overloads: vec![overload], ..sample(vec![run]) }).unwrap();
    let mut found = Vec::new();
    paths(&json, "", &mut found);
    found.sort_unstable();
    let run = [
        "answered_per_s",
        "applied",
        "applied_per_s",
        "breaches[]",
        "broker_memory_mib",
        "busy",
        "commits",
        "complete",
        "cpu.boxoffice_s",
        "cpu.broker_s",
        "cpu.postgres_s",
        "cpu.redis_s",
        "failed",
        "findings[]",
        "first_failure",
        "latency.max_ms",
        "latency.p50_ms",
        "latency.p95_ms",
        "latency.p99_ms",
        "live_p99_ms",
        "lock_wait_ms",
        "lock_waits",
        "memory_peak_mib",
        "partitions",
        "per_command.broker_messages",
        "per_command.redis_commands",
        "per_command.statements",
        "refused",
        "retries",
        "seconds",
        "sent",
        "strategy",
        "tries_per_grant",
        "turned_away",
        "via",
        "workload",
    ];
    let overload = [
        "answered",
        "answered_per_s",
        "breaches[]",
        "failed",
        "findings[]",
        "first_failure",
        "latency.max_ms",
        "latency.p50_ms",
        "latency.p95_ms",
        "latency.p99_ms",
        "offered",
        "offered_per_s",
        "partitions",
        "peak_beside_per_s",
        "peak_callers",
        "peak_per_s",
        "seconds",
        "share_of_peak",
        "share_of_peak_beside",
        "strategy",
        "turned_away",
        "wait_ms",
    ];
    let conditions = [
        "backlog_max",
        "batch_max",
        "callers",
        "commands",
        "http_workers",
        "instances",
        "kafka_partitions",
        "lanes",
        "lease_ms",
        "rabbitmq_shards",
        "rooms",
        "seconds_max",
        "store",
        "wait_ms",
    ];
    let mut wanted: Vec<String> = ["cores", "memory_mib", "processor", "system"].map(|name| format!("machine.{name}")).to_vec();
    wanted.extend(run.map(|name| format!("runs[].{name}")));
    wanted.extend(overload.map(|name| format!("overloads[].{name}")));
    wanted.extend(conditions.map(|name| format!("conditions.{name}")));
    wanted.extend(["measured_at", "schema", "skipped[].reason", "skipped[].strategy"].map(str::to_owned));
    wanted.extend(["versions[].name", "versions[].version", "workloads[].about", "workloads[].name"].map(str::to_owned));
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!((&json["schema"], &json["runs"][0]["via"]), (&Value::from(1), &Value::from("http")));
}

#[test]
fn rates_are_what_the_workload_is_about() {
    assert_eq!(sample_run("combining", "same-seat", Via::Http).per_s(), 6_000.0);
    assert_eq!(sample_run("combining", "hot-wallet", Via::Http).per_s(), 4_000.0);
}

#[test]
fn a_finding_or_a_breach_makes_a_report_untrue() {
    let honest = sample_run("combining", "spread", Via::Http);
    assert!(sample(vec![honest.clone()]).is_true());
    for untrue in [
        Run { findings: vec!["one is missing".to_owned()], ..honest.clone() },
        Run { breaches: vec!["I2 broken".to_owned()], ..honest.clone() },
    ] {
        assert!(!sample(vec![honest.clone(), untrue]).is_true());
    }
    let untrue = Overload { findings: vec!["one is missing".to_owned()], ..sample_overload() };
    assert!(!Report { overloads: vec![sample_overload(), untrue], ..sample(Vec::new()) }.is_true());
}

#[test]
fn a_strategy_holds_under_overload_when_accepted_commands_are_in_time_and_most_of_the_peak_is_left() {
    assert!(sample_overload().holds());
    let late = Overload { latency: Latencies::of(&[3_100_000]), ..sample_overload() };
    let slow = Overload { share_of_peak_beside: 0.89, ..sample_overload() };
    let less = Overload { offered_per_s: 90_000.0, ..sample_overload() };
    let none = Overload { latency: None, ..sample_overload() };
    assert!(![late, slow, less, none].iter().any(Overload::holds));
}

#[test]
fn summaries_follow_from_the_runs() {
    let report = sample(vec![
        sample_run("combining", "spread", Via::Http),
        Run {
            per_command: PerCommand { redis_commands: 5.0, ..PerCommand::default() },
            ..sample_run("combining", "hot-wallet", Via::Http)
        },
        sample_run("spin", "spread", Via::Process),
    ]);
    let summaries = report.summaries();
    assert_eq!(summaries.iter().map(|summary| summary.title.as_str()).collect::<Vec<_>>(), ["combining", "spin"]);
    assert!(summaries.iter().all(|summary| summary.judgement.is_some()));
    let rates = summaries[0].by_workload(&report.workloads, Via::Http, |run| Some(run.per_s()));
    assert_eq!(rates, [Some(4_000.0), None, Some(4_000.0), None, None, None, None]);
    assert_eq!(summaries[0].range(|run| Some(run.per_command.redis_commands)), Some((2.0, 5.0)));
    assert_eq!(summaries[0].range(|run| run.cpu.postgres_s), None);
}
