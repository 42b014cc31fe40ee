//! The lab under test: honest strategies pass, lying ones are detected, and every run ends.

mod executors;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use boxoffice_domain::UserId;
use boxoffice_ports::{Executor, Ids as _};
use executors::{Accepts, Hangs, Lie, Picky, lying};
use tokio::sync::Notify;

use super::caller::{Caller, InProcess};
use super::drive::{Latencies, Limits, Task, drive};
use super::entrant::Entrant;
use super::report::{Run, Skipped, Via};
use super::run::{self, Ports, Size};
use super::site::Site;
use super::workload::{Workload, compared};
use super::{LabError, Plan, Progress, bench};
use boxoffice_app::config::{Layers, Settings, StrategyName, load};
use boxoffice_app::wiring::{Executors, SystemClock, SystemIds};

const COMBINING: Entrant = Entrant { strategy: StrategyName::Combining, partitions: None };

fn settings(set: &[&str]) -> Settings {
    let set = ["http.workers=1", "queue.backend=memory"].iter().chain(set).map(|key| (*key).to_owned()).collect();
    load(&Layers { set, ..Layers::default() }).unwrap()
}

fn plan(strategies: Option<Vec<StrategyName>>) -> Plan {
    Plan {
        strategies,
        workloads: compared(),
        ways: Via::ALL.to_vec(),
        commands: 40,
        callers: 5,
        instances: None,
        seconds: 30,
        overload: false,
        rooms: false,
    }
}

/// Records the progress that it gets.
#[derive(Default)]
struct Recorder(std::sync::Mutex<Vec<String>>);

impl Recorder {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Progress for Recorder {
    fn begins(&self, at: usize, of: usize, strategy: &str, workload: &str, via: Via) {
        self.add(format!("{at}/{of} {strategy} {workload} {}", via.name()));
    }

    fn ended(&self, run: &Run) {
        self.add(format!("ended {}", run.strategy));
    }

    fn skipped(&self, skipped: &Skipped) {
        self.add(format!("skipped {}", skipped.strategy));
    }
}

fn assert_honest(run: &Run, sent: u32) {
    let place = format!("{} {} {:?}", run.strategy, run.workload, run.via);
    assert!(run.is_true(), "{place}: {:?} {:?}", run.findings, run.breaches);
    assert_eq!((run.failed, run.first_failure.as_deref()), (0, None), "{place}");
    assert!(run.complete && run.sent == sent, "{place}: {} sent", run.sent);
    let applied = if run.workload == "same-seat" { 1 } else { sent };
    assert_eq!((run.applied, run.refused), (applied, sent - applied), "{place}");
    assert!(run.per_s() > 0.0 && run.commits > 0 && run.latency.is_some_and(|latency| latency.p50_ms <= latency.p99_ms), "{place}");
    assert!(run.live_p99_ms.is_some(), "{place}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_that_need_no_service_are_compared_out_of_the_box() {
    let recorder = Recorder::default();
    let report = bench(&settings(&["store.backend=memory"]), &plan(None), &recorder, &Notify::new()).await.unwrap();
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.strategy).collect();
    assert_eq!(skipped, ["simple", "spin", "pubsub", "redlock", "kafka", "rabbitmq"]);
    let names_a_service = |reason: &str| ["redis.", "kafka.", "rabbitmq."].iter().any(|section| reason.contains(section));
    assert!(report.skipped.iter().all(|skipped| names_a_service(&skipped.reason)), "{:?}", report.skipped);
    assert_eq!(report.strategies(), ["combining", "pessimistic", "optimistic", "memory"]);
    assert_eq!(report.runs.len(), 4 * compared().len() * 2);
    report.runs.iter().for_each(|run| assert_honest(run, 40));
    let lines = recorder.0.into_inner().unwrap();
    assert!(
        lines.contains(&"0/32 combining hot-wallet process".to_owned()) && lines.contains(&"31/32 memory hold-pay http".to_owned()),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chosen_seats_are_compared_with_named_seats() {
    let workloads = ["pairs", "best"].map(|name| Workload::named(name).unwrap()).to_vec();
    let plan = Plan { workloads, ways: vec![Via::Process], ..plan(Some(vec![StrategyName::Combining])) };
    let report = bench(&settings(&["store.backend=memory"]), &plan, &Recorder::default(), &Notify::new()).await.unwrap();
    report.runs.iter().for_each(|run| assert_honest(run, 40));
    let tries = |name: &str| report.of(name, Via::Process)[0].tries_per_grant;
    assert_eq!(tries("pairs"), None);
    assert!(tries("best").is_some_and(|tries| (1.0..2.0).contains(&tries)), "{:?}", tries("best"));
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_gets_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let configured = folder.path().join("shop.db");
    let base = settings(&[&format!("store.sqlite_path={}", configured.display())]);
    let report = bench(&base, &plan(Some(vec![StrategyName::Combining])), &Recorder::default(), &Notify::new()).await.unwrap();
    report.runs.iter().for_each(|run| assert_honest(run, 40));
    assert!(report.versions.iter().any(|version| version.name == "SQLite"));
    assert!(!configured.exists(), "the configured store is not touched");
}

#[cfg(all(feature = "postgres", feature = "redis"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_gets_a_database_that_is_dropped_and_strategies_what_they_need() {
    use boxoffice_services::{Postgres, Redis};
    // A cluster of its own: its databases are counted.
    let (postgres, redis) = (Postgres::start().unwrap(), Redis::shared());
    let configured = postgres.database().unwrap();
    let (store, urls) = (format!("store.postgres_url={configured}"), format!("redis.urls=[{:?}]", redis.url()));
    let base = settings(&[&store, &urls, "strategy.wait_ms=30000"]);
    let strategies = vec![StrategyName::Combining, StrategyName::Pubsub];
    let report = bench(&base, &plan(Some(strategies)), &Recorder::default(), &Notify::new()).await.unwrap();
    assert_eq!((report.conditions.store, report.conditions.instances), ("postgres", 2));
    report.runs.iter().for_each(|run| assert_honest(run, 40));
    for run in &report.runs {
        let costs = &run.per_command;
        assert!(costs.statements.is_some_and(|statements| statements > 0.0), "{} {}", run.strategy, run.workload);
        let locked = run.strategy == "pubsub";
        assert_eq!((costs.redis_commands > 1.0, run.lock_waits > 0), (locked, locked), "{} {}: {costs:?}", run.strategy, run.workload);
    }
    for service in ["PostgreSQL", "Redis"] {
        assert!(report.versions.iter().any(|version| version.name == service), "{:?}", report.versions);
    }
    let count = |what: &str| postgres.sql_in(&configured, &format!("SELECT count(*) FROM {what}")).unwrap().trim().to_owned();
    assert_eq!(count("pg_database WHERE datname LIKE 'boxoffice_bench_%'"), "0", "the databases are dropped");
    assert_eq!(count("pg_tables WHERE schemaname = 'public'"), "0", "the configured database is not touched");
}

#[cfg(all(feature = "postgres", feature = "kafka", feature = "rabbitmq"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_get_topics_and_queues_that_are_deleted_and_carry_the_commands() {
    use boxoffice_services::{Kafka, Postgres, RabbitMq};
    let (kafka, rabbitmq) = (Kafka::start().unwrap(), RabbitMq::start().unwrap());
    let (store, brokers) = (Postgres::shared().database().unwrap(), kafka.brokers());
    let set = [
        format!("store.postgres_url={store}"),
        format!("kafka.brokers={brokers:?}"),
        "kafka.partitions=3".to_owned(),
        format!("rabbitmq.url={:?}", rabbitmq.url()),
        "strategy.wait_ms=30000".to_owned(),
    ];
    let base = settings(&set.iter().map(String::as_str).collect::<Vec<_>>());
    let strategies = Some(vec![StrategyName::Kafka, StrategyName::Rabbitmq]);
    let workloads = vec![Workload::named("hot-wallet").unwrap(), Workload::named("hold-pay").unwrap()];
    let compared = Plan { workloads, ..plan(strategies.clone()) };
    let report = bench(&base, &compared, &Recorder::default(), &Notify::new()).await.unwrap();
    assert_eq!(report.strategies(), ["kafka, 1 partition", "kafka, 3 partitions", "rabbitmq"]);
    report.runs.iter().for_each(|run| assert_honest(run, 40));
    for run in &report.runs {
        assert!(
            run.per_command.broker_messages > 0.0,
            "commands went through the broker: {} {} {:?}",
            run.title(),
            run.workload,
            run.per_command
        );
        assert!(run.cpu.broker_s.is_some() && run.broker_memory_mib > Some(10.0), "{}: {:?}", run.title(), run.cpu);
    }
    for service in ["librdkafka", "RabbitMQ"] {
        assert!(report.versions.iter().any(|version| version.name == service), "{:?}", report.versions);
    }
    assert_eq!(rabbitmq.command(&["list_queues", "--no-table-headers", "name"]).unwrap().trim(), "", "the queues are deleted");

    let flooded = Plan { overload: true, seconds: 1, ..plan(strategies) };
    let mut base = base;
    (base.strategy.wait_ms, base.strategy.backlog_max, base.kafka.partitions) = (1_000, 500, 1);
    let report = bench(&base, &flooded, &Recorder::default(), &Notify::new()).await.unwrap();
    assert_eq!((report.overloads.len(), report.runs.len()), (2, 0));
    for one in &report.overloads {
        assert!(one.is_true(), "{}: {:?} {:?}", one.title(), one.findings, one.breaches);
        assert!(one.answered > 0 && one.turned_away > 0 && one.peak_per_s > 0.0, "{one:?}");
        assert_eq!(one.offered, one.answered + one.turned_away + one.failed, "{one:?}");
    }
}

#[tokio::test]
async fn a_plan_that_cannot_run_is_refused_before_anything_starts() {
    let (memory, recorder, never) = (settings(&["store.backend=memory"]), Recorder::default(), Notify::new());
    let named = bench(&memory, &plan(Some(vec![StrategyName::Redlock])), &recorder, &never).await;
    assert!(matches!(&named, Err(LabError::Settings(error)) if error.to_string().contains("redis.redlock_nodes")), "{named:?}");
    let two = Plan { instances: Some(2), ..plan(None) };
    assert!(matches!(bench(&memory, &two, &recorder, &never).await, Err(LabError::OneInstance { store: "memory" })));
    for (wrong, what) in [
        (Plan { commands: 0, ..plan(None) }, "--commands"),
        (Plan { callers: 1 << 20, ..plan(None) }, "--callers"),
        (Plan { instances: Some(0), ..plan(None) }, "--instances"),
        (Plan { seconds: 0, ..plan(None) }, "--seconds"),
    ] {
        let refused = bench(&memory, &wrong, &recorder, &never).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.starts_with(what), "{refused}");
    }
    assert!(!recorder.0.into_inner().unwrap().iter().any(|line| line.contains('/')), "no run began");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_the_comparison() {
    let interrupt = Notify::new();
    interrupt.notify_one();
    let ended = bench(&settings(&["store.backend=memory"]), &plan(None), &Recorder::default(), &interrupt).await;
    assert!(matches!(ended, Err(LabError::Interrupted)), "{ended:?}");
}

async fn run_with(lie: Option<Lie>) -> Run {
    let mut base = settings(&["store.backend=memory"]);
    base.strategy.wait_ms = 200;
    let mut site = Site::open(&base, COMBINING, 1, &[]).await.unwrap();
    if let Some(lie) = lie {
        site.replace_executors(|executors| lying(executors, lie));
    }
    let workload = Workload::named("spread").unwrap();
    let size = Size { commands: 80, callers: 4, time: Duration::from_secs(30) };
    let run = run::run(&mut site, COMBINING, &workload, Via::Process, size, &Ports::default()).await.unwrap();
    site.close().await;
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_that_lie_are_detected() {
    for (lie, finding) in [
        (Lie::Drops, "answered as done are not in the store"),
        (Lie::Doubles, "are in the store and were not answered"),
        (Lie::Misdirects, "the store has"),
        (Lie::Exaggerates, "that no command asked for"),
        (Lie::Repeats, "answered with the id of another one"),
    ] {
        let run = run_with(Some(lie)).await;
        assert!(!run.is_true() && run.findings.iter().any(|found| found.contains(finding)), "{lie:?}: {:?}", run.findings);
        let complaints = super::table::complaints(&super::report::samples::sample(vec![run]));
        assert!(complaints.iter().any(|line| line.contains("NOT TRUE") && line.contains(finding)), "{complaints:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_counts_effects_in_the_store_and_not_answers() {
    assert_eq!(run_with(None).await.applied, 80);
    let dropped = run_with(Some(Lie::Drops)).await;
    assert!(dropped.applied < 80 && dropped.failed == 0, "{} applied", dropped.applied);
    assert!(run_with(Some(Lie::Doubles)).await.applied > 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_without_an_answer_may_have_had_an_effect() {
    let run = run_with(Some(Lie::Fails)).await;
    assert!(run.is_true(), "{:?}", run.findings);
    assert!(run.failed > 0 && run.applied == 80, "{} failed, {} applied", run.failed, run.applied);
    assert!(run.first_failure.is_some_and(|reason| reason.contains("the answer was lost")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_command_is_polled_until_there_is_an_outcome() {
    let mut site = Site::open(&settings(&["store.backend=memory"]), COMBINING, 1, &[]).await.unwrap();
    site.replace_executors(|executors| Executors { wallet: Arc::new(Accepts(executors.wallet)), ..executors });
    let size = Size { commands: 80, callers: 4, time: Duration::from_secs(30) };
    let workload = Workload::named("spread").unwrap();
    let run = run::run(&mut site, COMBINING, &workload, Via::Process, size, &Ports::default()).await.unwrap();
    site.close().await;
    assert_honest(&run, 80);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_counts_rejected_commands_and_finds_the_rest_in_the_store() {
    let mut base = settings(&["store.backend=memory"]);
    base.strategy.wait_ms = 100;
    let mut site = Site::open(&base, COMBINING, 1, &[]).await.unwrap();
    site.replace_executors(|executors| Executors { wallet: Arc::new(Picky(executors.wallet, AtomicU32::new(0))), ..executors });
    let one = super::overload::overload(&site, COMBINING, Duration::from_millis(100)).await.unwrap();
    assert!(one.is_true(), "{:?} {:?}", one.findings, one.breaches);
    assert_eq!(one.offered, one.answered + one.turned_away + one.failed, "{one:?}");
    assert!(one.turned_away >= one.offered / 2 && one.answered > 0 && one.peak_per_s > 0.0, "{one:?}");

    site.replace_executors(|executors| Executors { wallet: lying(executors.clone(), Lie::Drops).wallet, ..executors });
    let untrue = super::overload::overload(&site, COMBINING, Duration::from_millis(100)).await.unwrap();
    assert!(!untrue.is_true(), "a lie is detected here, too: {untrue:?}");
    site.close().await;
}

#[tokio::test]
async fn a_run_ends_even_if_no_command_is_answered() {
    let hangs: Arc<dyn Executor> = Arc::new(Hangs);
    let executors = Executors { seat: hangs.clone(), wallet: hangs.clone(), payment: hangs, wait: Duration::from_secs(3) };
    let ledger: Arc<dyn boxoffice_ports::Ledger> = Arc::new(boxoffice_ports::MockLedger::new());
    let seats = boxoffice_engine::SeatView::new(Arc::new(boxoffice_ports::MockQueries::new()), Arc::new(SystemClock::default()));
    let caller = |_| {
        Caller::InProcess(InProcess {
            executors: executors.clone(),
            ledger: ledger.clone(),
            ids: Arc::new(SystemIds),
            seats: seats.clone(),
            stats: Arc::default(),
            wait: Duration::from_millis(10),
        })
    };
    let callers = (0..3).map(caller).collect();
    let workload = Workload::named("hot-wallet").unwrap();
    let person = super::caller::Person { user: UserId(SystemIds.fresh()), bearer: String::new(), queue_token: String::new() };
    let date = boxoffice_domain::DateId(Default::default());
    let task = Task { workload, jobs: 10, people: vec![person], date, name: "hangs".to_owned() };
    let limits = Limits { time: Duration::from_millis(50), grace: Duration::from_millis(50) };
    let (tally, callers) = drive(Arc::new(task), callers, 1, limits, &tokio::runtime::Handle::current()).await;
    assert!(callers.len() == 3 && tally.applied.is_empty() && tally.latencies().is_none());
    assert!(tally.failed.len() >= 3 && tally.failed.len() as u32 == tally.sent, "{} of {}", tally.failed.len(), tally.sent);
}

#[test]
fn percentiles_are_of_all_answers() {
    assert_eq!(Latencies::of(&[]), None);
    let latencies_us: Vec<u32> = (1..=1_000).rev().map(|ms| ms * 1_000).collect();
    let found = Latencies::of(&latencies_us).unwrap();
    for (ms, wanted) in [(found.p50_ms, 500.0), (found.p95_ms, 950.0), (found.p99_ms, 990.0), (found.max_ms, 1_000.0)] {
        assert!((ms - wanted).abs() <= wanted / 1_000.0, "{ms} instead of {wanted}");
    }
    let one = Latencies::of(&[250]).unwrap();
    assert!([one.p50_ms, one.p95_ms, one.p99_ms, one.max_ms].iter().all(|ms| (ms - 0.25).abs() < 0.001), "{one:?}");
    assert!(Latencies::of(&[u32::MAX]).unwrap().max_ms >= 120_000.0, "one that is too long counts as the longest");
}

#[test]
fn dates_of_a_run_have_the_seats_of_its_jobs() {
    let size = Size { commands: 3_000, callers: 100, time: Duration::from_secs(1) };
    let dates = |name: &str| size.dates(&Workload::named(name).unwrap());
    assert_eq!(dates("hold-pay"), [150, 1_500]);
    assert_eq!(dates("same-seat"), [1, 1]);
    assert!(dates("hot-wallet").is_empty());
    let few = Size { commands: 3, callers: 100, ..size };
    assert_eq!(few.dates(&Workload::named("hold-pay").unwrap()), [1, 1], "no more jobs warm up than are measured");
}
