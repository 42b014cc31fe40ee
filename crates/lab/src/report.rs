//! What the lab found, as data: everything printed, drawn or written is made from this and from nothing else.
//!
//! The serialised form has a version; a field that is not measured is null.

use serde::Serialize;

use super::drive::Latencies;
use super::entrant;
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
    /// Where the waiting rooms are kept.
    pub rooms: &'static str,
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
    pub backlog_max: usize,
    pub kafka_partitions: u32,
    pub rabbitmq_shards: u32,
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
    /// Of the broker that this strategy needs.
    pub broker_s: Option<f64>,
}

/// One strategy under one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// As it is configured.
    pub strategy: &'static str,
    /// Of Kafka's topics; null for other strategies.
    pub partitions: Option<u32>,
    pub workload: &'static str,
    pub via: Via,
    pub sent: u32,
    /// Effects found in the store.
    pub applied: u32,
    /// By the rule, or with `busy`.
    pub refused: u32,
    /// Those of them that were `busy`.
    pub busy: u32,
    /// Because too many waited.
    pub turned_away: u32,
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
    /// How often seats were chosen and tried for each that were had; null where no caller leaves the choice to the server.
    pub tries_per_grant: Option<f64>,
    pub per_command: PerCommand,
    pub cpu: Cpu,
    pub memory_peak_mib: Option<f64>,
    /// Resident, of the broker that this strategy needs, at the end of the run.
    pub broker_memory_mib: Option<f64>,
    /// Of `/health/live`, asked meanwhile.
    pub live_p99_ms: Option<f64>,
    /// Differences between what was answered and what is in the store.
    pub findings: Vec<String>,
    /// Invariants that are broken in the store.
    pub breaches: Vec<String>,
    pub first_failure: Option<String>,
}

impl Run {
    /// What its row is called.
    pub fn title(&self) -> String {
        entrant::title(self.strategy, self.partitions)
    }

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

/// One strategy under ten times more than it can answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overload {
    pub strategy: &'static str,
    pub partitions: Option<u32>,
    /// The highest rate of effects that callers brought about who wait for their answers, and how many of them did.
    pub peak_per_s: f64,
    pub peak_callers: u32,
    /// The same while as many offers were made to nobody, the mean of before and after: what offering takes of the
    /// machine, and what a fuller store takes, is not the strategy's doing.
    pub peak_beside_per_s: f64,
    pub seconds: f64,
    pub offered: u32,
    pub offered_per_s: f64,
    /// Answered while offers were made, a second.
    pub answered_per_s: f64,
    pub share_of_peak: f64,
    pub share_of_peak_beside: f64,
    pub answered: u32,
    pub turned_away: u32,
    pub failed: u32,
    pub wait_ms: u64,
    /// Of those that were let in, to their outcome.
    pub latency: Option<Latencies>,
    pub findings: Vec<String>,
    pub breaches: Vec<String>,
    pub first_failure: Option<String>,
}

impl Overload {
    pub fn title(&self) -> String {
        entrant::title(self.strategy, self.partitions)
    }

    pub fn is_true(&self) -> bool {
        self.findings.is_empty() && self.breaches.is_empty()
    }

    /// How many times the peak was really offered.
    pub fn times(&self) -> f64 {
        if self.peak_per_s > 0.0 { self.offered_per_s / self.peak_per_s } else { 0.0 }
    }

    /// Whether whoever is let in is still answered in time, and the rest costs nearly nothing. A machine that cannot
    /// offer as much as was meant shows nothing.
    pub fn holds(&self) -> bool {
        self.times() > TIMES_MIN
            && self.share_of_peak_beside > SHARE_MIN
            && self.latency.is_some_and(|latency| latency.p99_ms < self.wait_ms as f64)
    }
}

/// How many times the peak must be offered.
pub const TIMES_MIN: f64 = 9.5;
/// The share that a strategy must keep of its peak beside offers to nobody.
pub const SHARE_MIN: f64 = 0.9;

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
    pub overloads: Vec<Overload>,
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
    pub title: String,
    pub runs: Vec<&'a Run>,
    pub judgement: Option<&'static Judgement>,
}

impl Report {
    pub fn is_true(&self) -> bool {
        self.runs.iter().all(Run::is_true) && self.overloads.iter().all(Overload::is_true)
    }

    /// Names without repetition, in the order they were run.
    pub fn strategies(&self) -> Vec<String> {
        let mut names = Vec::new();
        for title in self.runs.iter().map(Run::title).chain(self.overloads.iter().map(Overload::title)) {
            if !names.contains(&title) {
                names.push(title);
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
        let summary = |title: String| {
            let runs: Vec<_> = self.runs.iter().filter(|run| run.title() == title).collect();
            let judgement = runs.first().and_then(|run| judgements::of(run.strategy));
            Summary { title, runs, judgement }
        };
        self.strategies().into_iter().map(summary).filter(|summary| !summary.runs.is_empty()).collect()
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
        workloads: super::workload::WORKLOADS.map(Into::into).to_vec(),
        skipped: vec![Skipped { strategy: "redlock", reason: "redis.redlock_nodes: <none>\nare named".to_owned() }],
        runs,
        overloads: Vec::new(),
    }
}

/// A strategy that keeps up, for tests.
#[cfg(test)]
pub(super) fn sample_overload() -> Overload {
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
#[cfg(test)]
pub(super) fn sample_run(strategy: &'static str, workload: &'static str, via: Via) -> Run {
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
    fn a_strategy_holds_under_overload_when_those_let_in_are_in_time_and_nearly_all_of_the_peak_is_left() {
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
}
