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
