//! The strategy lab: the same commands for every strategy, and what each made of them.
//!
//! Each strategy gets a [`site`] of its own, which is gone afterwards; each run fresh people and a fresh date. What is
//! reported as applied was found in the store, never taken from an answer; a difference between the two is a finding,
//! and whoever runs the lab is told loudly. Every run ends by itself: see [`drive`].
//!
//! # Layout
//!
//! * [`workload`]: what is asked. [`caller`], [`client`]: one command to its answer, in process or over HTTP.
//! * [`entrant`]: who takes part. [`site`]: store, servers, people. [`drive`]: many callers at once, on threads of their
//!   own ([`outside`]). [`run`]: one measurement. [`overload`]: another one, of ten times more than can be answered.
//! * [`effects`]: what is in the store. [`figures`]: what the operating system counts.
//! * [`report`]: the result as data. [`table`], [`page`]: the same for people. [`judgements`]: what no run shows.

mod caller;
mod client;
mod drive;
mod effects;
mod entrant;
mod figures;
pub mod judgements;
mod outside;
mod overload;
pub mod page;
pub mod report;
mod run;
mod site;
pub mod table;
#[cfg(test)]
mod tests;
pub mod workload;

use std::num::NonZero;
use std::time::Duration;

use boxoffice_ports::{CatalogError, Clock as _, LedgerError, StoreError};
use tokio::sync::Notify;

use crate::config::{ConfigError, QueueBackend, Settings, StoreBackend, StrategyName};
use crate::wiring::{self, StartError, SystemClock};
use entrant::Entrant;
use report::{Conditions, Machine, Overload, Report, Run, SCHEMA, Skipped, Version, Via};
use run::{Ports, Size};
use site::Site;
use workload::{CALLERS_MAX, COMMANDS_MAX, Workload};

/// Instances on a store that allows several, unless it is said otherwise.
const INSTANCES: u32 = 2;
/// The most instances: each brings connections and threads of its own.
pub const INSTANCES_MAX: u32 = 16;
/// The longest a run may be allowed to begin commands, seconds.
pub const SECONDS_MAX: u32 = 600;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{store} serves one instance at a time; name a PostgreSQL (store.postgres_url) for more")]
    OneInstance { store: &'static str },
    #[error("{what} must be from 1 to {max}")]
    Range { what: &'static str, max: u32 },
    #[error("no strategy can be run here: {0}")]
    Nothing(String),
    #[error("a temporary folder cannot be made: {0}")]
    Folder(#[source] std::io::Error),
    #[error("threads for the callers cannot be started: {0}")]
    Threads(#[source] std::io::Error),
    #[error("the server does not answer: {0}")]
    Connection(#[source] std::io::Error),
    #[error("a token cannot be signed: {0}")]
    Token(#[source] jsonwebtoken::errors::Error),
    #[error("what a run needs cannot be made: {0}")]
    Seeding(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("wallets cannot be funded: {0}")]
    Ledger(#[from] LedgerError),
    #[error("interrupted; what was set up is taken down")]
    Interrupted,
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `None`: every one whose services are configured.
    pub strategies: Option<Vec<StrategyName>>,
    pub workloads: Vec<Workload>,
    pub ways: Vec<Via>,
    /// Commands of each run.
    pub commands: u32,
    pub callers: u32,
    /// `None`: as many as suit the store.
    pub instances: Option<u32>,
    /// After this long a run begins no more commands.
    pub seconds: u32,
    /// Instead of the workloads: ten times more than each strategy can answer.
    pub overload: bool,
    /// Waiting rooms where the configuration keeps them, and not in each instance's memory.
    pub rooms: bool,
}

/// Told of what goes on.
pub trait Progress: Send + Sync {
    /// `at` of `of` runs begins.
    fn begins(&self, at: usize, of: usize, strategy: &str, workload: &str, via: Via);
    fn ended(&self, run: &Run);
    fn skipped(&self, skipped: &Skipped);
}

impl Plan {
    fn size(&self) -> Size {
        Size { commands: self.commands, callers: self.callers, time: Duration::from_secs(u64::from(self.seconds)) }
    }

    fn check(&self) -> Result<(), LabError> {
        let instances = self.instances.unwrap_or(1);
        for (what, value, max) in [
            ("--commands", self.commands, COMMANDS_MAX),
            ("--callers", self.callers, CALLERS_MAX),
            ("--instances", instances, INSTANCES_MAX),
            ("--seconds", self.seconds, SECONDS_MAX),
        ] {
            if !(1..=max).contains(&value) {
                return Err(LabError::Range { what, max });
            }
        }
        Ok(())
    }

    /// How many instances one store may have.
    fn instances(&self, store: StoreBackend) -> Result<u32, LabError> {
        match (store, self.instances) {
            (StoreBackend::Postgres, count) => Ok(count.unwrap_or(INSTANCES)),
            (_, None | Some(1)) => Ok(1),
            (store, Some(_)) => Err(LabError::OneInstance { store: store.name() }),
        }
    }

    /// What can be run with these settings, and what cannot; whatever was named must.
    fn strategies(&self, base: &Settings) -> Result<(Vec<StrategyName>, Vec<Skipped>), LabError> {
        if let Some(named) = &self.strategies {
            for &name in named {
                site::settings_for(base, first_of(name, base))?;
            }
            return Ok((named.clone(), Vec::new()));
        }
        let (mut able, mut skipped) = (Vec::new(), Vec::new());
        for name in StrategyName::ALL {
            match site::settings_for(base, first_of(name, base)) {
                Ok(_) => able.push(name),
                Err(error) => skipped.push(Skipped { strategy: name.name(), reason: error.to_string() }),
            }
        }
        Ok((able, skipped))
    }
}

/// The entrants of a strategy need the same services.
fn first_of(strategy: StrategyName, base: &Settings) -> Entrant {
    Entrant::all_of(strategy, base).first().copied().unwrap_or(Entrant { strategy, partitions: None })
}

/// Runs the plan. `interrupt` ends it early; what was set up is taken down before this returns.
pub async fn bench(base: &Settings, plan: &Plan, progress: &dyn Progress, interrupt: &Notify) -> Result<Report, LabError> {
    plan.check()?;
    let mut lab = Box::new(base.clone());
    if !plan.rooms {
        lab.queue.backend = QueueBackend::Memory;
    }
    let base: &Settings = &lab;
    let (strategies, mut skipped) = plan.strategies(base)?;
    skipped.iter().for_each(|one| progress.skipped(one));
    let reasons = || skipped.iter().map(|one| format!("{}: {}", one.strategy, one.reason)).collect::<Vec<_>>().join("; ");
    let first = *strategies.first().ok_or_else(|| LabError::Nothing(reasons()))?;
    let settings = site::settings_for(base, first_of(first, base))?;
    let instances = plan.instances(settings.store.backend)?;
    let ports = ports(base, settings.store.backend);
    let entrants: Vec<Entrant> = strategies.iter().flat_map(|&strategy| Entrant::all_of(strategy, base)).collect();
    let each = if plan.overload { 1 } else { plan.workloads.len() * plan.ways.len() };
    let of = entrants.len() * each;
    let (mut runs, mut overloads) = (Vec::with_capacity(of), Vec::new());
    for (nth, &entrant) in entrants.iter().enumerate() {
        let tell = |at: usize, workload: &Workload, via| progress.begins(nth * each + at, of, &entrant.title(), workload.name, via);
        let measured = match plan.overload {
            true => overload_one(base, plan, entrant, instances, &tell, interrupt).await.map(|one| overloads.push(one)),
            false => compare_one(base, plan, entrant, instances, &ports, (&tell, progress), interrupt).await.map(|all| runs.extend(all)),
        };
        match measured {
            Ok(()) => {}
            Err(LabError::Start(error)) if plan.strategies.is_none() => {
                let one = Skipped { strategy: entrant.strategy.name(), reason: error.to_string() };
                if !skipped.contains(&one) {
                    progress.skipped(&one);
                    skipped.push(one);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if runs.is_empty() && overloads.is_empty() {
        let reasons = skipped.iter().map(|one| format!("{}: {}", one.strategy, one.reason)).collect::<Vec<_>>().join("; ");
        return Err(LabError::Nothing(reasons));
    }
    let workloads = if plan.overload { vec![workload::OVERLOAD.into()] } else { plan.workloads.iter().map(|one| (*one).into()).collect() };
    let mut settings = Settings { redis: base.redis.clone(), ..settings };
    // Of brokers whoever took part.
    let took_part = |name: StrategyName| {
        runs.iter().map(|run| run.strategy).chain(overloads.iter().map(|one| one.strategy)).any(|one| one == name.name())
    };
    if took_part(StrategyName::Kafka) {
        settings.kafka = base.kafka.clone();
    }
    if took_part(StrategyName::Rabbitmq) {
        settings.rabbitmq = base.rabbitmq.clone();
    }
    let conditions = conditions(&settings, plan, instances);
    let measured_at = SystemClock::default().now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Ok(Report {
        schema: SCHEMA,
        measured_at,
        machine: machine(),
        versions: versions(&settings).await,
        conditions,
        workloads,
        skipped,
        runs,
        overloads,
    })
}

/// How a run's beginning is told, and its end.
type Tell<'a> = (&'a (dyn Fn(usize, &Workload, Via) + Sync), &'a dyn Progress);

/// All the runs of one strategy, on a site of its own.
async fn compare_one(
    base: &Settings,
    plan: &Plan,
    entrant: Entrant,
    instances: u32,
    ports: &Ports,
    (begins, progress): Tell<'_>,
    interrupt: &Notify,
) -> Result<Vec<Run>, LabError> {
    let size = plan.size();
    let ways = plan.workloads.iter().flat_map(|workload| plan.ways.iter().map(move |&via| (workload, via)));
    let ways: Vec<(&Workload, Via)> = ways.collect();
    let dates: Vec<u32> = ways.iter().flat_map(|(workload, _)| size.dates(workload)).collect();
    let mut site = Site::open(base, entrant, instances, &dates).await?;
    let all = async {
        let mut runs = Vec::with_capacity(ways.len());
        for (at, (workload, via)) in ways.into_iter().enumerate() {
            begins(at, workload, via);
            let run = run::run(&mut site, entrant, workload, via, size, ports).await?;
            progress.ended(&run);
            runs.push(run);
        }
        Ok(runs)
    };
    let result = tokio::select! {
        runs = all => runs,
        () = interrupt.notified() => Err(LabError::Interrupted),
    };
    site.close().await;
    result
}

/// One strategy under ten times more than it can answer, on a site of its own.
async fn overload_one(
    base: &Settings,
    plan: &Plan,
    entrant: Entrant,
    instances: u32,
    begins: &(dyn Fn(usize, &Workload, Via) + Sync),
    interrupt: &Notify,
) -> Result<Overload, LabError> {
    let site = Site::open(base, entrant, instances, &[]).await?;
    begins(0, &workload::OVERLOAD, Via::Process);
    let result = tokio::select! {
        overload = overload::overload(&site, entrant, plan.size().time) => overload,
        () = interrupt.notified() => Err(LabError::Interrupted),
    };
    site.close().await;
    result
}

fn conditions(settings: &Settings, plan: &Plan, instances: u32) -> Conditions {
    Conditions {
        store: settings.store.backend.name(),
        rooms: settings.queue.backend.name(),
        commands: plan.commands,
        callers: plan.callers,
        instances,
        seconds_max: plan.seconds,
        wait_ms: settings.strategy.wait_ms,
        lease_ms: settings.strategy.lease_ms,
        batch_max: settings.strategy.batch_max,
        lanes: settings.lane_count(),
        http_workers: settings.http.worker_count(),
        backlog_max: settings.strategy.backlog_max,
        kafka_partitions: settings.kafka.partitions,
        rabbitmq_shards: settings.rabbitmq.shards,
    }
}

fn machine() -> Machine {
    let (processor, memory_mib) = figures::machine();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Machine { cores, processor, memory_mib, system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH) }
}

async fn versions(settings: &Settings) -> Vec<Version> {
    let build = if cfg!(debug_assertions) { "debug build, slower than a release" } else { "release build" };
    let own = Version { name: "boxoffice", version: format!("{} ({build})", env!("CARGO_PKG_VERSION")) };
    let rust = Version { name: "Rust", version: format!("{} or newer", env!("CARGO_PKG_RUST_VERSION")) };
    let services = wiring::service_versions(settings).await;
    [own, rust].into_iter().chain(services.into_iter().map(|(name, version)| Version { name, version })).collect()
}

/// Where the services listen; none of a kind unless all of it is on this machine.
fn ports(settings: &Settings, store: StoreBackend) -> Ports {
    let local = |urls: Vec<&str>, default| {
        let ports = urls.into_iter().map(|url| local_port(url, default)).collect::<Option<Vec<u16>>>();
        ports.unwrap_or_default()
    };
    let postgres = match store {
        StoreBackend::Postgres => local(vec![settings.store.postgres_url.expose()], 5_432),
        StoreBackend::Sqlite | StoreBackend::Memory => Vec::new(),
    };
    let nodes = settings.redis.urls.iter().chain(&settings.redis.redlock_nodes);
    let brokers: Vec<String> = settings.kafka.brokers.split(',').map(|broker| format!("kafka://{}", broker.trim())).collect();
    Ports {
        postgres,
        redis: local(nodes.map(|url| url.expose()).collect(), 6_379),
        kafka: local(brokers.iter().map(String::as_str).collect(), 9_092),
        rabbitmq: local(vec![settings.rabbitmq.url.expose()], 5_672),
    }
}

/// The port of an address on this machine; `None` when it is on another one, or a socket.
fn local_port(url: &str, default: u16) -> Option<u16> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
        _ => (host, default),
    };
    matches!(name, "127.0.0.1" | "localhost" | "[::1]").then_some(port)
}

#[cfg(test)]
mod address_tests {
    use super::local_port;

    #[test]
    fn ports_of_this_machine_are_read_from_addresses() {
        for (url, port) in [
            ("postgres://ann:p@ss@127.0.0.1:5433/shop?x=1", Some(5_433)),
            ("redis://localhost", Some(9)),
            ("redis://:pw@[::1]:6380/0", Some(6_380)),
            ("redis://[::1]", Some(9)),
            ("kafka://127.0.0.1:9093", Some(9_093)),
            ("amqp://guest:guest@127.0.0.1:5673/%2f", Some(5_673)),
            ("redis://cache.example:6379", None),
            ("redis://127.0.0.1:x", None),
            ("127.0.0.1:6379", None),
        ] {
            assert_eq!(local_port(url, 9), port, "{url}");
        }
    }
}
