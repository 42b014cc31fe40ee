//! The runs of a plan, one strategy after the other, and the report on them.

use std::num::NonZero;

use boxoffice_app::config::{QueueBackend, Settings, StoreBackend, StrategyName};
use boxoffice_app::wiring::{self, SystemClock};
use boxoffice_ports::Clock as _;
use tokio::sync::Notify;

use crate::entrant::Entrant;
use crate::error::LabError;
use crate::figures;
use crate::overload;
use crate::plan::{Plan, Progress, first_of};
use crate::report::{Conditions, Machine, Overload, Report, Run, SCHEMA, Skipped, Version, Via};
use crate::run::{self, Ports};
use crate::site::{self, Site};
use crate::workload::{self, Workload};

/// Runs the plan. `interrupt` ends it early; what was set up is removed before this returns.
pub async fn bench(base: &Settings, plan: &Plan, progress: &dyn Progress, interrupt: &Notify) -> Result<Report, LabError> {
    plan.check()?;
    let mut lab = Box::new(base.clone());
    if !plan.rooms {
        lab.queue.backend = QueueBackend::Memory;
    }
    let base: &Settings = &lab;
    let (strategies, mut skipped) = plan.strategies(base)?;
    skipped.iter().for_each(|one| progress.skipped(one));
    let first = *strategies.first().ok_or_else(|| LabError::Nothing(reasons(&skipped)))?;
    let settings = site::settings_for(base, first_of(first, base))?;
    let instances = plan.instances(settings.store.backend)?;
    let ports = ports(base, settings.store.backend);
    let entrants: Vec<Entrant> = strategies.iter().flat_map(|&strategy| Entrant::all_of(strategy, base)).collect();
    let each = if plan.overload { 1 } else { plan.workloads.len() * plan.ways.len() };
    let of = entrants.len() * each;
    let (mut runs, mut overloads) = (Vec::with_capacity(of), Vec::new());
    for (nth, &entrant) in entrants.iter().enumerate() {
        let begins = |at: usize, workload: &Workload, via| progress.begins(nth * each + at, of, &entrant.title(), workload.name, via);
        let measured = match plan.overload {
            true => overload_one(base, plan, entrant, instances, &begins, interrupt).await.map(|one| overloads.push(one)),
            false => compare_one(base, plan, entrant, instances, &ports, (&begins, progress), interrupt).await.map(|all| runs.extend(all)),
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
        return Err(LabError::Nothing(reasons(&skipped)));
    }
    let workloads = if plan.overload { vec![workload::OVERLOAD.into()] } else { plan.workloads.iter().map(|one| (*one).into()).collect() };
    let mut settings = Settings { redis: base.redis.clone(), ..settings };
    // The brokers of the strategies that took part.
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

fn reasons(skipped: &[Skipped]) -> String {
    skipped.iter().map(|one| format!("{}: {}", one.strategy, one.reason)).collect::<Vec<_>>().join("; ")
}

/// Reports the beginning of a run, and its end.
type Follow<'a> = (&'a (dyn Fn(usize, &Workload, Via) + Sync), &'a dyn Progress);

/// All the runs of one strategy, on a site of its own.
async fn compare_one(
    base: &Settings,
    plan: &Plan,
    entrant: Entrant,
    instances: u32,
    ports: &Ports,
    (begins, progress): Follow<'_>,
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

/// The ports of the services; empty for a service that is not entirely on this machine.
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

/// The port of an address on this machine; `None` for another machine, and for a Unix socket.
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
