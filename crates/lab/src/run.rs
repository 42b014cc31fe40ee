//! One strategy under one workload, one way: seed, warm up, read the counters, measure, read them again, compare.
//!
//! Only the time between the two reads of the counters is measured. Warming up opens the connections and prepares the
//! statements that the measured commands will use, for other users and another date.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_domain::DateId;
use tokio::sync::oneshot;

use super::client::{Connection, request};
use super::drive::{Latencies, Limits, Tally, Task, drive};
use super::effects;
use super::entrant::Entrant;
use super::error::LabError;
use super::figures;
use super::report::{Cpu, PerCommand, Run, Via};
use super::site::Site;
use super::workload::Workload;
use boxoffice_app::config::StrategyName;
use boxoffice_app::wiring::Running;

/// One in so many commands warms up; at least one job for each caller.
const WARM_UP_SHARE: u32 = 10;
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// How late an answer may be, beyond a command's own longest wait.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often `/health/live` is requested.
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// The size of each run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) commands: u32,
    pub(super) callers: u32,
    pub(super) time: Duration,
}

impl Size {
    /// Jobs that warm up.
    pub(super) fn warm_up(&self, workload: &Workload) -> u32 {
        (workload.jobs(self.commands) / WARM_UP_SHARE).max(self.callers).min(workload.jobs(self.commands).max(1))
    }

    /// The numbers of seats of the dates that the runs of a workload use, one way.
    pub(super) fn dates(&self, workload: &Workload) -> Vec<u32> {
        let jobs = [self.warm_up(workload), workload.jobs(self.commands)];
        if workload.has_seats() { jobs.map(|jobs| workload.seat_count(jobs)).to_vec() } else { Vec::new() }
    }
}

/// The servers' counters, summed over all instances.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    statements: u64,
    commits: u64,
    redis_commands: u64,
    broker_messages: u64,
    batches: u64,
    retries: u64,
    lock_waits: u64,
    lock_wait_us: u64,
    best_offers: u64,
}

impl Counters {
    fn read(instances: &[Running]) -> Self {
        let mut sum = Self::default();
        for Running { stats, traffic, .. } in instances {
            let traffic = traffic.counts();
            sum.statements += traffic.statements;
            sum.commits += traffic.commits;
            sum.redis_commands += traffic.redis_commands;
            sum.broker_messages += traffic.broker_messages;
            sum.batches += stats.batches.get();
            sum.retries += stats.retries.get();
            sum.lock_waits += stats.lock_waits.get();
            sum.lock_wait_us += stats.lock_wait_us.get();
            sum.best_offers += stats.best_offers.get();
        }
        sum
    }

    fn since(self, before: Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            commits: self.commits - before.commits,
            redis_commands: self.redis_commands - before.redis_commands,
            broker_messages: self.broker_messages - before.broker_messages,
            batches: self.batches - before.batches,
            retries: self.retries - before.retries,
            lock_waits: self.lock_waits - before.lock_waits,
            lock_wait_us: self.lock_wait_us - before.lock_wait_us,
            best_offers: self.best_offers - before.best_offers,
        }
    }
}

/// Processor time so far.
struct CpuNow {
    own_s: Option<f64>,
    postgres_s: Option<f64>,
    redis_s: Option<f64>,
    broker_s: Option<f64>,
}

impl CpuNow {
    fn read(ports: &Ports, entrant: Entrant) -> Self {
        Self {
            broker_s: figures::servers_cpu_s(ports.broker(entrant)),
            own_s: figures::own_cpu_s(),
            postgres_s: figures::servers_cpu_s(&ports.postgres),
            redis_s: figures::servers_cpu_s(&ports.redis),
        }
    }

    fn since(&self, before: &Self) -> Cpu {
        let less = |now: Option<f64>, before: Option<f64>| Some((now? - before?).max(0.0));
        Cpu {
            boxoffice_s: less(self.own_s, before.own_s),
            postgres_s: less(self.postgres_s, before.postgres_s),
            redis_s: less(self.redis_s, before.redis_s),
            broker_s: less(self.broker_s, before.broker_s),
        }
    }
}

/// The ports of the services that run on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) postgres: Vec<u16>,
    pub(super) redis: Vec<u16>,
    pub(super) kafka: Vec<u16>,
    pub(super) rabbitmq: Vec<u16>,
}

impl Ports {
    /// The ports of the broker that an entrant needs.
    fn broker(&self, entrant: Entrant) -> &[u16] {
        match entrant.strategy {
            StrategyName::Kafka => &self.kafka,
            StrategyName::Rabbitmq => &self.rabbitmq,
            _ => &[],
        }
    }
}

/// Measures one run.
pub(super) async fn run(
    site: &mut Site,
    entrant: Entrant,
    workload: &Workload,
    via: Via,
    size: Size,
    ports: &Ports,
) -> Result<Run, LabError> {
    let limits = Limits { time: size.time, grace: site.settings().strategy.wait() + GRACE };
    let mut callers = site.callers(via, size.callers);
    let instances = site.instances().len() as u32;
    let name = format!("{}-{}", workload.name, via.name());

    let warm_up = task(site, workload, size.warm_up(workload), via, format!("{name}-warm-up")).await?;
    let warm_up_limits = Limits { time: WARM_UP_MAX, ..limits };
    (_, callers) = drive(Arc::new(warm_up), callers, instances, warm_up_limits, site.runtime()).await;
    let task = Arc::new(task(site, workload, workload.jobs(size.commands), via, name).await?);
    site.quiet().await?;
    let seats_max = site.settings().hold.max_seats_per_user;
    let before = site.stores()?.audit.audit(seats_max).await?;

    let peak_is_fresh = figures::reset_own_peak();
    let probe = Probe::start(site.instances());
    let (cpu, counters) = (CpuNow::read(ports, entrant), Counters::read(site.instances()));
    let (tally, callers) = drive(task.clone(), callers, instances, limits, site.runtime()).await;
    let counters = Counters::read(site.instances()).since(counters);
    let cpu = CpuNow::read(ports, entrant).since(&cpu);
    let memory_peak_mib = figures::own_peak_mib().filter(|_| peak_is_fresh);
    let broker_memory_mib = figures::servers_memory_mib(ports.broker(entrant));
    let live_p99_ms = probe.end().await;
    drop(callers);

    if !tally.failed.is_empty() {
        // A command without an answer may still be at the ledger, for as long as a command waits.
        tokio::time::sleep(site.settings().strategy.wait()).await;
        site.decided().await;
    }
    let stores = site.stores()?;
    let after = stores.audit.audit(seats_max).await?;
    let found = effects::look(stores, workload, &task.people, &tally).await?;
    let taken = match workload.has_seats() {
        true => Some(effects::taken_seats(stores, task.date).await?),
        false => None,
    };
    let effects = effects::compare(workload, &found, taken, [&before, &after], &tally);
    let measured = Measured { cpu, counters, memory_peak_mib, broker_memory_mib, live_p99_ms };
    Ok(record(entrant, workload, via, tally, effects, &measured))
}

async fn task(site: &mut Site, workload: &Workload, jobs: u32, via: Via, name: String) -> Result<Task, LabError> {
    let date: DateId = site.take_date(workload, jobs)?;
    let people = site.people(workload, jobs, via).await?;
    Ok(Task { workload: *workload, jobs, people, date, name })
}

struct Measured {
    cpu: Cpu,
    counters: Counters,
    memory_peak_mib: Option<f64>,
    broker_memory_mib: Option<f64>,
    live_p99_ms: Option<f64>,
}

fn record(entrant: Entrant, workload: &Workload, via: Via, tally: Tally, effects: effects::Effects, measured: &Measured) -> Run {
    let Measured { cpu, counters, memory_peak_mib, broker_memory_mib, live_p99_ms } = measured;
    let seconds = tally.took.as_secs_f64();
    let rate = |count: u32| if seconds > 0.0 { f64::from(count) / seconds } else { 0.0 };
    let each = |count: u64| count as f64 / f64::from(tally.sent.max(1));
    let answered = tally.applied.len() as u32 + tally.refused;
    // A store without counters of its own still commits each batch once.
    let counts_traffic = counters.statements > 0;
    Run {
        strategy: entrant.strategy.name(),
        partitions: entrant.partitions,
        workload: workload.name,
        via,
        sent: tally.sent,
        applied: effects.applied,
        refused: tally.refused,
        busy: tally.busy,
        turned_away: tally.turned_away,
        failed: tally.failed.len() as u32,
        complete: tally.complete,
        seconds,
        applied_per_s: rate(effects.applied),
        answered_per_s: rate(answered),
        latency: tally.latencies(),
        commits: if counts_traffic { counters.commits } else { counters.batches },
        retries: counters.retries,
        lock_waits: counters.lock_waits,
        lock_wait_ms: counters.lock_wait_us as f64 / 1_000.0,
        tries_per_grant: (counters.best_offers > 0 && effects.applied > 0)
            .then(|| counters.best_offers as f64 / f64::from(effects.applied)),
        per_command: PerCommand {
            statements: counts_traffic.then(|| each(counters.statements)),
            redis_commands: each(counters.redis_commands),
            broker_messages: each(counters.broker_messages),
        },
        cpu: *cpu,
        memory_peak_mib: *memory_peak_mib,
        broker_memory_mib: *broker_memory_mib,
        live_p99_ms: *live_p99_ms,
        findings: effects.findings,
        breaches: effects.breaches,
        first_failure: tally.first_failure,
    }
}

/// Requests `/health/live` of the first instance repeatedly until it is ended.
struct Probe {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Vec<u32>>,
}

impl Probe {
    fn start(instances: &[Running]) -> Self {
        let address = instances.first().map(|running| running.address);
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(probe(address, stopped)) }
    }

    async fn end(self) -> Option<f64> {
        // The send fails only if the probe has failed.
        let _ = self.stop.send(());
        Latencies::of(&self.task.await.ok()?).map(|latencies| latencies.p99_ms)
    }
}

async fn probe(address: Option<SocketAddr>, mut stopped: oneshot::Receiver<()>) -> Vec<u32> {
    let mut latencies_us = Vec::new();
    let Some(address) = address else { return latencies_us };
    let mut connection = Connection::new(address);
    let live = request(address, "GET", "/health/live", &[], None);
    loop {
        let started = Instant::now();
        // A request without an answer counts with the time until the end of the run.
        let answered = tokio::select! {
            answered = connection.send(&live) => answered.is_ok_and(|answer| answer.status == 200),
            _ = &mut stopped => false,
        };
        latencies_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
        if !answered {
            return latencies_us;
        }
        tokio::select! {
            () = tokio::time::sleep(PROBE_EVERY) => {}
            _ = &mut stopped => return latencies_us,
        }
    }
}
