//! What the lab found, as data: everything printed, drawn or written is made from this and from nothing else.
//!
//! The serialised form has a version; a field that is not measured is null.

use serde::Serialize;

use super::drive::Latencies;
use super::judgements::{self, Judgement};
use super::workload::Workload;

/// Rises when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// How commands reach a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The executor port, without HTTP
    Process,
    /// Keep-alive connections to the same servers
    Http,
}

impl Via {
    pub const ALL: [Self; 2] = [Self::Process, Self::Http];

    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Http => "http",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Process => "in process",
            Self::Http => "over HTTP",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: Option<String>,
    pub memory_mib: Option<f64>,
    pub system: String,
}

/// What took part, in which version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    pub name: &'static str,
    pub version: String,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conditions {
    pub store: &'static str,
    pub commands: u32,
    pub callers: u32,
    pub instances: u32,
    /// After this many a run begins nothing more.
    pub seconds_max: u32,
    pub wait_ms: u64,
    pub lease_ms: u64,
    pub batch_max: usize,
    pub lanes: usize,
    pub http_workers: usize,
}

/// A strategy that was not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub strategy: &'static str,
    pub reason: String,
}

/// What each command cost, those refused and those that failed included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PerCommand {
    /// Null where the store does not count them.
    pub statements: Option<f64>,
    pub redis_commands: f64,
    pub broker_messages: f64,
}

/// Processor seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// This process: all instances, and the callers.
    pub boxoffice_s: Option<f64>,
    /// Null unless the servers run on this machine and may be looked at.
    pub postgres_s: Option<f64>,
    pub redis_s: Option<f64>,
}

/// One strategy under one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    pub strategy: &'static str,
    pub workload: &'static str,
    pub via: Via,
    pub sent: u32,
    /// Effects found in the store.
    pub applied: u32,
    /// By the rule, or with `busy`.
    pub refused: u32,
    /// Those of them that were `busy`.
    pub busy: u32,
    /// Without an answer.
    pub failed: u32,
    /// Whether everything was sent before the time was over.
    pub complete: bool,
    pub seconds: f64,
    pub applied_per_s: f64,
    pub answered_per_s: f64,
    /// Of every answer; null when there was none.
    pub latency: Option<Latencies>,
    pub commits: u64,
    pub retries: u64,
    pub lock_waits: u64,
    pub lock_wait_ms: f64,
    pub per_command: PerCommand,
    pub cpu: Cpu,
    pub memory_peak_mib: Option<f64>,
    /// Of `/health/live`, asked meanwhile.
    pub live_p99_ms: Option<f64>,
    /// Differences between what was answered and what is in the store.
    pub findings: Vec<String>,
    /// Invariants that are broken in the store.
    pub breaches: Vec<String>,
    pub first_failure: Option<String>,
}

impl Run {
    /// Whether the store says what was answered, and nothing in it is broken.
    pub fn is_true(&self) -> bool {
        self.findings.is_empty() && self.breaches.is_empty()
    }

    /// The rate that its workload is about.
    pub fn per_s(&self) -> f64 {
        use super::workload::Rate;
        match Workload::named(self.workload).map(|workload| workload.rate) {
            Some(Rate::Answered) => self.answered_per_s,
            Some(Rate::Applied) | None => self.applied_per_s,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub schema: u32,
    /// When it was done, RFC 3339.
    pub measured_at: String,
    pub machine: Machine,
    pub versions: Vec<Version>,
    pub conditions: Conditions,
    pub workloads: Vec<WorkloadNote>,
    pub skipped: Vec<Skipped>,
    pub runs: Vec<Run>,
}

/// What a workload is about, for whoever reads the report alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadNote {
    pub name: &'static str,
    pub about: &'static str,
}

impl From<Workload> for WorkloadNote {
    fn from(workload: Workload) -> Self {
        Self { name: workload.name, about: workload.about }
    }
}

/// One line of the closing table: what was measured of a strategy, and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    pub strategy: &'static str,
    pub runs: Vec<&'a Run>,
    pub judgement: Option<&'static Judgement>,
}

impl Report {
    pub fn is_true(&self) -> bool {
        self.runs.iter().all(Run::is_true)
    }

    /// Names without repetition, in the order they were run.
    pub fn strategies(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.strategy) {
                names.push(run.strategy);
            }
        }
        names
    }

    /// The runs of one workload, one way.
    pub fn of(&self, workload: &str, via: Via) -> Vec<&Run> {
        self.runs.iter().filter(|run| run.workload == workload && run.via == via).collect()
    }

    /// One for each strategy that ran.
    pub fn summaries(&self) -> Vec<Summary<'_>> {
        let runs = |strategy| self.runs.iter().filter(|run| run.strategy == strategy).collect();
        self.strategies()
            .into_iter()
            .map(|strategy| Summary { strategy, runs: runs(strategy), judgement: judgements::of(strategy) })
            .collect()
    }
}

impl Summary<'_> {
    /// A figure of each workload, one way, `None` where it was not run.
    pub fn by_workload<T>(&self, workloads: &[WorkloadNote], via: Via, figure: impl Fn(&Run) -> Option<T>) -> Vec<Option<T>> {
        let find = |workload: &WorkloadNote| self.runs.iter().find(|run| run.workload == workload.name && run.via == via);
        workloads.iter().map(|workload| find(workload).and_then(|run| figure(run))).collect()
    }

    /// The lowest and highest of a figure over all runs.
    pub fn range(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<(f64, f64)> {
        let figures = self.runs.iter().filter_map(|run| figure(run));
        figures.fold(None, |range, figure| match range {
            None => Some((figure, figure)),
            Some((low, high)) => Some((f64::min(low, figure), f64::max(high, figure))),
        })
    }
}

/// A report with these runs, for tests.
#[cfg(test)]
pub(super) fn sample(runs: Vec<Run>) -> Report {
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
            commands: 3_000,
            callers: 100,
            instances: 1,
            seconds_max: 3,
            wait_ms: 3_000,
            lease_ms: 5_000,
            batch_max: 1_024,
            lanes: 1,
            http_workers: 2,
        },
        workloads: super::workload::WORKLOADS.map(Into::into).to_vec(),
        skipped: vec![Skipped { strategy: "redlock", reason: "redis.redlock_nodes: <none>\nare named".to_owned() }],
        runs,
    }
}

/// A run without anything wrong, for tests.
#[cfg(test)]
pub(super) fn sample_run(strategy: &'static str, workload: &'static str, via: Via) -> Run {
    Run {
        strategy,
        workload,
        via,
        sent: 3_000,
        applied: 2_000,
        refused: 1_000,
        busy: 900,
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
        per_command: PerCommand { statements: Some(0.25), redis_commands: 2.0, broker_messages: 0.0 },
        cpu: Cpu { boxoffice_s: Some(0.5), postgres_s: None, redis_s: Some(0.01) },
        memory_peak_mib: Some(99.5),
        live_p99_ms: Some(1.5),
        findings: Vec::new(),
        breaches: Vec::new(),
        first_failure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn paths(value: &Value, at: &str, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| paths(value, &format!("{at}.{name}"), into)),
            Value::Array(items) => items.iter().take(1).for_each(|item| paths(item, &format!("{at}[]"), into)),
            _ => into.push(at.trim_start_matches('.').to_owned()),
        }
    }

    /// Whoever reads reports by program relies on these; taking one away or giving it another meaning takes a new
    /// [`SCHEMA`].
    #[test]
    fn json_has_the_fields_of_its_schema() {
        let run =
            Run { first_failure: Some("x".to_owned()), findings: vec!["f".to_owned()], ..sample_run("combining", "spread", Via::Http) };
        let run = Run { breaches: vec!["b".to_owned()], ..run };
        let json = serde_json::to_value(sample(vec![run])).unwrap();
        let mut found = Vec::new();
        paths(&json, "", &mut found);
        found.sort_unstable();
        let run = [
            "answered_per_s",
            "applied",
            "applied_per_s",
            "breaches[]",
            "busy",
            "commits",
            "complete",
            "cpu.boxoffice_s",
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
            "per_command.broker_messages",
            "per_command.redis_commands",
            "per_command.statements",
            "refused",
            "retries",
            "seconds",
            "sent",
            "strategy",
            "via",
            "workload",
        ];
        let conditions =
            ["batch_max", "callers", "commands", "http_workers", "instances", "lanes", "lease_ms", "seconds_max", "store", "wait_ms"];
        let mut wanted: Vec<String> = ["cores", "memory_mib", "processor", "system"].map(|name| format!("machine.{name}")).to_vec();
        wanted.extend(run.map(|name| format!("runs[].{name}")));
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
        assert_eq!(summaries.iter().map(|summary| summary.strategy).collect::<Vec<_>>(), ["combining", "spin"]);
        assert!(summaries.iter().all(|summary| summary.judgement.is_some()));
        let rates = summaries[0].by_workload(&report.workloads, Via::Http, |run| Some(run.per_s()));
        assert_eq!(rates, [Some(4_000.0), None, Some(4_000.0), None]);
        assert_eq!(summaries[0].range(|run| Some(run.per_command.redis_commands)), Some((2.0, 5.0)));
        assert_eq!(summaries[0].range(|run| run.cpu.postgres_s), None);
    }
}
