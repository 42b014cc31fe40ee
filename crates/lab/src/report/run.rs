//! One strategy under one workload: figures, cost, findings.

use serde::Serialize;

use crate::drive::Latencies;
use crate::entrant;
use crate::workload::{Rate, Workload};

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

    /// For readers.
    pub fn title(self) -> &'static str {
        match self {
            Self::Process => "in process",
            Self::Http => "over HTTP",
        }
    }
}

/// The cost of each command, refused and failed ones included.
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
    /// Null unless the servers run on this machine and their figures are readable.
    pub postgres_s: Option<f64>,
    pub redis_s: Option<f64>,
    /// Of the strategy's broker.
    pub broker_s: Option<f64>,
}

/// One strategy under one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Its name in the configuration.
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
    /// The part of `refused` that was `busy`.
    pub busy: u32,
    /// Rejected because too many waited.
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
    /// How often seats were chosen for each hold; null if no caller leaves the choice to the server.
    pub tries_per_grant: Option<f64>,
    pub per_command: PerCommand,
    pub cpu: Cpu,
    pub memory_peak_mib: Option<f64>,
    /// Resident memory of the strategy's broker at the end of the run.
    pub broker_memory_mib: Option<f64>,
    /// Of `/health/live`, requested meanwhile.
    pub live_p99_ms: Option<f64>,
    /// Differences between the answers and the store.
    pub findings: Vec<String>,
    /// Broken invariants of the store.
    pub breaches: Vec<String>,
    pub first_failure: Option<String>,
}

impl Run {
    /// The name of its row.
    pub fn title(&self) -> String {
        entrant::title(self.strategy, self.partitions)
    }

    /// Whether the store agrees with the answers, and no invariant is broken.
    pub fn is_true(&self) -> bool {
        self.findings.is_empty() && self.breaches.is_empty()
    }

    /// The rate that its workload is about.
    pub fn per_s(&self) -> f64 {
        match Workload::named(self.workload).map(|workload| workload.rate) {
            Some(Rate::Answered) => self.answered_per_s,
            Some(Rate::Applied) | None => self.applied_per_s,
        }
    }
}
