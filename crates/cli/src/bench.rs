//! `bench`: the strategy lab on the command line.
//!
//! Exit code 1 when the answers and the store differ, or an invariant is broken: the report is printed and written all the
//! same. An interrupt removes what was set up.

use crate::output::print;
use anyhow::Context as _;
use boxoffice_app::config::{Settings, StrategyName};
use boxoffice_lab::report::{Run, Skipped, Via};
use boxoffice_lab::workload::{CROWD, CROWD_COMMANDS, WORKLOADS, Workload, compared};
use boxoffice_lab::{Plan, Progress, page, table};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::Notify;

/// Defaults of workloads without a crowd.
const COMMANDS: u32 = 3_000;
const CALLERS: u32 = 100;

/// Compares strategies: the same commands for each, on a store of its own that is removed afterwards
///
/// PostgreSQL is used if store.postgres_url is set, and only in a database made for this; otherwise a temporary SQLite
/// file, or memory. Effects are counted in the store. Without options it compares every strategy whose services are
/// configured.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The strategies to compare, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = strategy, value_name = "NAME")]
    strategies: Option<Vec<StrategyName>>,
    /// Some of hot-wallet, same-seat, spread, hold-pay, charges, pairs, best [default: the first four]. best also runs
    /// pairs: the same seats, but named
    #[arg(long, value_delimiter = ',', value_parser = workload, value_name = "NAME")]
    workloads: Option<Vec<Workload>>,
    /// How commands reach the strategy
    #[arg(long, value_delimiter = ',', value_enum)]
    via: Option<Vec<Via>>,
    /// Commands of each run [default: 3000, or 20000 with pairs and best]
    #[arg(long)]
    commands: Option<u32>,
    /// Concurrent callers [default: 100, or 1000 with pairs and best]
    #[arg(long)]
    callers: Option<u32>,
    /// Instances on one store [default: 2 on PostgreSQL; other stores allow only 1]
    #[arg(long)]
    instances: Option<u32>,
    /// After so many seconds a run begins no more commands; its rates are of those that were sent
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Keeps waiting rooms where queue.backend says: a hold checks the turn there, and a payment ends it there
    #[arg(long, conflicts_with = "overload")]
    rooms: bool,
    /// Offers each strategy ten times more than it can answer, in process, instead of the workloads
    #[arg(long, conflicts_with_all = ["workloads", "via", "commands", "callers"])]
    overload: bool,
    /// Writes the report as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes the closing table in Markdown; `-` prints it instead of the report
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn strategy(name: &str) -> Result<StrategyName, String> {
    let known = StrategyName::ALL;
    known.into_iter().find(|one| one.name() == name).ok_or_else(|| known_names(known.map(StrategyName::name)))
}

fn workload(name: &str) -> Result<Workload, String> {
    Workload::named(name).ok_or_else(|| known_names(WORKLOADS.map(|one| one.name)))
}

fn known_names<const N: usize>(names: [&str; N]) -> String {
    format!("known names are {}", names.join(", "))
}

impl Options {
    fn plan(&self) -> Plan {
        let workloads = self.workloads.clone().map_or_else(compared, |named| without_repetition(with_pairs(named)));
        let is_crowd = workloads.iter().any(Workload::is_crowd);
        Plan {
            strategies: self.strategies.clone().map(without_repetition),
            workloads,
            ways: self.via.clone().map_or(Via::ALL.to_vec(), without_repetition),
            commands: self.commands.unwrap_or(if is_crowd { CROWD_COMMANDS } else { COMMANDS }),
            callers: self.callers.unwrap_or(if is_crowd { CROWD } else { CALLERS }),
            instances: self.instances,
            seconds: self.seconds,
            overload: self.overload,
            rooms: self.rooms,
        }
    }
}

/// Adds `pairs` before `best`, so that chosen seats are compared with named ones in the same run.
fn with_pairs(workloads: Vec<Workload>) -> Vec<Workload> {
    let pairs = |one: &Workload| (one.name == "best").then(|| Workload::named("pairs")).flatten();
    workloads.into_iter().flat_map(|one| pairs(&one).into_iter().chain([one])).collect()
}

fn without_repetition<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(all.len());
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// Dozens of servers start and stop, so by default only errors are logged.
pub(super) fn quieten(settings: &mut Settings) -> anyhow::Result<()> {
    if settings.telemetry.log == Settings::defaults()?.telemetry.log {
        settings.telemetry.log = "error".to_owned();
    }
    Ok(())
}

pub(super) async fn run(settings: &Settings, options: &Options, json: bool) -> anyhow::Result<ExitCode> {
    let to_stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    anyhow::ensure!(!(json && to_stdout(&options.markdown)), "--json and --markdown - cannot both write to standard output");
    let (plan, progress, interrupt) = (options.plan(), Bar::new(), Notify::new());
    let bench = boxoffice_lab::bench(settings, &plan, &progress, &interrupt);
    tokio::pin!(bench);
    let report = tokio::select! {
        report = &mut bench => report,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            interrupt.notify_one();
            bench.await
        }
    };
    progress.0.finish_and_clear();
    let report = report?;
    write(options.html.as_deref(), || page::html(&report))?;
    write(options.markdown.as_deref().filter(|_| !to_stdout(&options.markdown)), || table::markdown(&report))?;
    print(&match () {
        () if json => serde_json::to_string_pretty(&report)?,
        () if to_stdout(&options.markdown) => table::markdown(&report),
        () => table::text(&report),
    })?;
    if report.is_true() {
        return Ok(ExitCode::SUCCESS);
    }
    // On standard error, too, in case standard output goes to a file or another program.
    for line in table::complaints(&report) {
        eprintln!("{line}");
    }
    Ok(ExitCode::FAILURE)
}

fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text() + "\n").with_context(|| path.display().to_string())
}

/// A bar on a terminal, plain lines elsewhere; on standard error.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})");
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn line(&self, text: String) {
        match self.0.is_hidden() {
            true => eprintln!("{text}"),
            false => self.0.println(text),
        }
    }
}

impl Progress for Bar {
    fn begins(&self, at: usize, of: usize, strategy: &str, workload: &str, via: Via) {
        self.0.set_length(of as u64);
        self.0.set_position(at as u64);
        let what = format!("{strategy}, {workload}, {}", via.title());
        if self.0.is_hidden() {
            eprintln!("{} of {of}: {what}", at + 1);
        }
        self.0.set_message(what);
        self.0.tick();
    }

    fn ended(&self, run: &Run) {
        if !run.is_true() {
            self.line(format!("NOT TRUE: {}, {}, {}", run.strategy, run.workload, run.via.title()));
        }
    }

    fn skipped(&self, skipped: &Skipped) {
        self.line(format!("not run: {}: {}", skipped.strategy, skipped.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Task};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<Options, String> {
        match Arguments::try_parse_from(line.split(' ')) {
            Ok(Arguments { command: Some(Task::Bench(options)), .. }) => Ok(options),
            Ok(_) => Err("another subcommand".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn without_options_everything_is_compared() {
        let plan = parse("boxoffice bench").unwrap().plan();
        assert!(plan.strategies.is_none() && plan.instances.is_none());
        assert_eq!((plan.workloads, plan.ways, plan.rooms), (compared(), Via::ALL.to_vec(), false));
        assert!(parse("boxoffice bench --rooms").unwrap().plan().rooms);
        assert!(!plan.overload && parse("boxoffice bench --overload --seconds 3").unwrap().plan().overload);
        assert!(parse("boxoffice bench --overload --commands 3").is_err(), "it chooses the number itself");
        assert_eq!((plan.commands, plan.callers, plan.seconds), (3_000, 100, 2));
    }

    #[test]
    fn lists_keep_their_order_without_repetition() {
        let plan = parse("boxoffice bench --strategies optimistic,memory,optimistic --workloads spread --via http").unwrap().plan();
        assert_eq!(plan.strategies, Some(vec![StrategyName::Optimistic, StrategyName::Memory]));
        assert_eq!((plan.workloads, plan.ways), (vec![Workload::named("spread").unwrap()], vec![Via::Http]));
    }

    #[test]
    fn best_also_runs_pairs_with_a_crowd() {
        let plan = parse("boxoffice bench --workloads best,spread").unwrap().plan();
        assert_eq!(plan.workloads.iter().map(|one| one.name).collect::<Vec<_>>(), ["pairs", "best", "spread"]);
        assert_eq!((plan.commands, plan.callers), (CROWD_COMMANDS, CROWD));
        let plan = parse("boxoffice bench --workloads best,pairs --callers 7 --commands 9").unwrap().plan();
        assert_eq!((plan.workloads.len(), plan.commands, plan.callers), (2, 9, 7));
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        let refused = |line: &str| parse(line).err().unwrap_or_default();
        let strategies = refused("boxoffice bench --strategies combining,fastest");
        assert!(strategies.contains("fastest") && StrategyName::ALL.iter().all(|name| strategies.contains(name.name())), "{strategies}");
        let workloads = refused("boxoffice bench --workloads all");
        assert!(workloads.contains("all") && WORKLOADS.iter().all(|workload| workloads.contains(workload.name)), "{workloads}");
        let ways = refused("boxoffice bench --via pigeon");
        assert!(ways.contains("process") && ways.contains("http"), "{ways}");
    }
}
