//! Reports and runs for tests.

use super::overload::Overload;
use super::run::{Cpu, PerCommand, Run, Via};
use super::{Conditions, Machine, Report, SCHEMA, Skipped, Version};
use crate::drive::Latencies;

/// A report with these runs, for tests.
pub(crate) fn sample(runs: Vec<Run>) -> Report {
    Report {
        schema: SCHEMA,
        measured_at: "2027-01-10T11:00:00Z".to_owned(),
        machine: Machine {
            cores: 2,
            processor: Some("A <fast> one".to_owned()),
            memory_mib: Some(2_048.0),
            system: "linux x86_64".to_owned(),
        },
        versions: vec![Version { name: "SQLite", version: "3".to_owned() }],
        conditions: Conditions {
            store: "sqlite",
            rooms: "memory",
            commands: 3_000,
            callers: 100,
            instances: 1,
            seconds_max: 3,
            wait_ms: 3_000,
            lease_ms: 5_000,
            batch_max: 1_024,
            lanes: 1,
            http_workers: 2,
            backlog_max: 8_192,
            kafka_partitions: 8,
            rabbitmq_shards: 4,
        },
        workloads: crate::workload::WORKLOADS.map(Into::into).to_vec(),
        skipped: vec![Skipped { strategy: "redlock", reason: "redis.redlock_nodes: <none>\nare named".to_owned() }],
        runs,
        overloads: Vec::new(),
    }
}

/// A strategy that keeps up, for tests.
pub(crate) fn sample_overload() -> Overload {
    Overload {
        strategy: "kafka",
        partitions: Some(8),
        peak_per_s: 10_000.0,
        peak_callers: 1_000,
        peak_beside_per_s: 9_800.0,
        seconds: 6.0,
        offered: 600_000,
        offered_per_s: 100_000.0,
        answered_per_s: 9_500.0,
        share_of_peak: 0.95,
        share_of_peak_beside: 0.97,
        answered: 57_000,
        turned_away: 543_000,
        failed: 0,
        wait_ms: 3_000,
        latency: Latencies::of(&[1_000, 2_000, 2_900_000]),
        findings: Vec::new(),
        breaches: Vec::new(),
        first_failure: None,
    }
}

/// A run without anything wrong, for tests.
pub(crate) fn sample_run(strategy: &'static str, workload: &'static str, via: Via) -> Run {
    Run {
        strategy,
        partitions: (strategy == "kafka").then_some(8),
        workload,
        via,
        sent: 3_000,
        applied: 2_000,
        refused: 1_000,
        busy: 900,
        turned_away: 0,
        failed: 0,
        complete: true,
        seconds: 0.5,
        applied_per_s: 4_000.0,
        answered_per_s: 6_000.0,
        latency: Latencies::of(&[1_000, 2_000, 30_000]),
        commits: 60,
        retries: 3,
        lock_waits: 3_000,
        lock_wait_ms: 1_234.5,
        tries_per_grant: None,
        per_command: PerCommand { statements: Some(0.25), redis_commands: 2.0, broker_messages: 0.0 },
        cpu: Cpu { boxoffice_s: Some(0.5), postgres_s: None, redis_s: Some(0.01), broker_s: None },
        memory_peak_mib: Some(99.5),
        broker_memory_mib: None,
        live_p99_ms: Some(1.5),
        findings: Vec::new(),
        breaches: Vec::new(),
        first_failure: None,
    }
}
