//! The result of the lab, as data: tables, pages and JSON are made from this alone.
//!
//! The serialised form has a version; a field that is not measured is null.
//!
//! # Layout
//!
//! * [`run`]: one strategy under one workload. [`overload`]: one strategy under ten times more than it can answer.

mod overload;
mod run;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use overload::{Overload, SHARE_MIN, TIMES_MIN};
pub use run::{Cpu, PerCommand, Run, Via};

use serde::Serialize;

use crate::judgements::{self, Judgement};
use crate::workload::Workload;

/// Rises when a field changes its meaning or is removed.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: Option<String>,
    pub memory_mib: Option<f64>,
    pub system: String,
}

/// A program that took part, with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    pub name: &'static str,
    pub version: String,
}

/// The conditions of the measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conditions {
    pub store: &'static str,
    /// The backend of the waiting rooms.
    pub rooms: &'static str,
    pub commands: u32,
    pub callers: u32,
    pub instances: u32,
    /// After so many a run begins no more commands.
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

/// A strategy that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub strategy: &'static str,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub schema: u32,
    /// The time of its end, RFC 3339.
    pub measured_at: String,
    pub machine: Machine,
    pub versions: Vec<Version>,
    pub conditions: Conditions,
    pub workloads: Vec<WorkloadNote>,
    pub skipped: Vec<Skipped>,
    pub runs: Vec<Run>,
    pub overloads: Vec<Overload>,
}

/// What a workload is about, so that the report can be read alone.
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

/// One line of the closing table: the figures of a strategy, and its judgement.
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
