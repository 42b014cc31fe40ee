//! A sale of many rounds on two instances over PostgreSQL and Redis, while parts hang, die or are locked again and again:
//! every success that was answered is stored, and no request took longer than ten times the promise.
//!
//! One fault of each kind by default. `BOXOFFICE_TEST_SOAK_S=1800 tests/run soak` goes on for half an hour, with a fault
//! every ten seconds, and demands that the memory of the instance that is never killed stays flat.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use boxoffice_services::{Postgres, Redis};
use boxoffice_tests::{Answer, PATIENCE, Person, Process, at_once, client, eventually, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{spawn, spawn_blocking};
use tokio::time::{sleep, timeout};

const BUYERS: usize = 24;
const SEATS: u32 = 50_000;
const WAIT: Duration = Duration::from_millis(1_500);
/// The longest that a request may take while a part is away.
const PROMISED: Duration = Duration::from_millis(2_500);
/// The test waits for ten times the promise.
const AGE_MAX: Duration = Duration::from_millis(10 * PROMISED.as_millis() as u64);
/// How long a part hangs, is locked or takes no writes.
const FAULT: Duration = Duration::from_secs(3);
/// The pause after a fault, in a run of a given time.
const PAUSE: Duration = Duration::from_secs(7);
/// Memory is flat if it grows by no more than a tenth and this, KiB.
const GROWTH_MAX: u64 = 16 << 10;

/// The ids that buyers got with a success, by kind.
#[derive(Default)]
struct Succeeded {
    entries: Vec<String>,
    payments: Vec<String>,
    refunds: Vec<String>,
    /// Refusals that a buyer need not expect, counted by path and code.
    refused: BTreeMap<String, usize>,
}

/// The answers of all buyers.
#[derive(Default)]
struct Seen {
    succeeded: Mutex<Succeeded>,
    rounds: AtomicUsize,
    /// Of each answer.
    took: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

type Bases = Arc<RwLock<[String; 2]>>;

/// A buyer who buys again and again, each time as another user.
struct Buyer {
    bases: Bases,
    seen: Arc<Seen>,
    concert: String,
    date: String,
    asked: usize,
}

impl Buyer {
    fn base(&mut self) -> String {
        self.asked += 1;
        self.bases.read().unwrap()[self.asked % 2].clone()
    }

    /// Sends a request to one instance after the other, under the same key, until it is decided.
    async fn ask(&mut self, person: &Person, request: impl Fn(&Person) -> RequestBuilder) -> Answer {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            let person = person.clone().at(&self.base());
            let began = Instant::now();
            let answer = timeout(AGE_MAX, Answer::try_to(request(&person))).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer within {AGE_MAX:?}"));
            if let Ok(answer) = answer {
                self.seen.took.lock().unwrap().push(began.elapsed());
                let is_undecided = [429, 503].contains(&answer.status) || ["busy", "idempotency_in_progress"].contains(&answer.code());
                if !is_undecided {
                    assert!(answer.status < 500, "{answer:?}");
                    return answer;
                }
            }
            assert!(Instant::now() < deadline, "timed out waiting for a decision");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a command that should succeed: the id in its answer; a refusal is counted.
    async fn command(&mut self, person: &Person, path: &str, key: &str, body: Value) -> Option<String> {
        let answer = self.ask(person, |person| person.writing(path, key, &body)).await;
        if answer.status >= 400 {
            *self.seen.succeeded.lock().unwrap().refused.entry(format!("{path} {}", answer.code())).or_default() += 1;
            return None;
        }
        Some(answer.text("id"))
    }

    async fn enters(&mut self, person: &mut Person) {
        let queue = format!("/concerts/{}/queue", self.concert);
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut answer = self.ask(person, |person| person.request(Method::POST, &queue)).await;
        loop {
            person.queue_token = Some(answer.text("token"));
            if answer.text("status") == "active" {
                return;
            }
            assert!(Instant::now() < deadline, "timed out waiting for the turn: {answer:?}");
            sleep(Duration::from_millis(50)).await;
            answer = self.ask(person, |person| person.request(Method::GET, "/queue")).await;
        }
    }

    /// Charges, waits for a turn, and holds two seats. Of four rounds two are paid and refunded, one is paid, and in one
    /// the seats are released.
    async fn buys(&mut self, round: usize) -> Option<()> {
        let http = client().build().unwrap();
        let mut person = loop {
            let base = self.base();
            match Answer::try_to(http.post(format!("{base}/api/v1/dev/users")).json(&json!({ "name": "a buyer" }))).await {
                Ok(made) if made.status == 201 => break Person::new(http, base, &made),
                _ => sleep(Duration::from_millis(50)).await,
            }
        };
        let entry = self.command(&person, "/wallet/charges", "charge", json!({ "amount": 5_000 })).await?;
        self.seen.succeeded.lock().unwrap().entries.push(entry);
        self.enters(&mut person).await;
        let hold = json!({ "date_id": self.date, "best": { "count": 2 } });
        let held = self.command(&person, "/reservations", "hold", hold).await?;
        if round % 4 == 3 {
            self.ask(&person, |person| person.request(Method::DELETE, &format!("/reservations/{held}"))).await.expect(204);
            // Otherwise the turn would go on.
            self.ask(&person, |person| person.request(Method::DELETE, "/queue")).await.expect(204);
            return Some(());
        }
        let paid = self.command(&person, "/payments", "pay", json!({ "reservation_id": held })).await?;
        self.seen.succeeded.lock().unwrap().payments.push(paid.clone());
        // Two of four rounds are refunded, so that seats do not run out.
        if round % 4 < 2 {
            let refund = self.command(&person, &format!("/payments/{paid}/refund"), "refund", Value::Null).await?;
            self.seen.succeeded.lock().unwrap().refunds.push(refund);
        }
        Some(())
    }

    async fn comes(mut self) {
        let mut round = 0;
        while !self.seen.over.load(Ordering::SeqCst) {
            self.buys(round).await;
            round += 1;
            self.seen.rounds.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    PostgresHangs,
    RedisHangs,
    RowsAreLocked,
    PostgresDies,
    SessionsEnd,
    RedisDies,
    NoWrites,
    InstanceDies,
}

const FAULTS: [Fault; 8] = [
    Fault::PostgresHangs,
    Fault::RedisHangs,
    Fault::RowsAreLocked,
    Fault::PostgresDies,
    Fault::SessionsEnd,
    Fault::RedisDies,
    Fault::NoWrites,
    Fault::InstanceDies,
];

/// Two instances, of which the second one may be killed, and the servers they use.
struct Site {
    postgres: Postgres,
    redis: Redis,
    url: String,
    folder: TempDir,
    set: Vec<String>,
    bases: Bases,
    processes: Vec<Process>,
}

impl Site {
    async fn start() -> Self {
        let parts = || (Postgres::start().expect("PostgreSQL starts"), Redis::start().expect("Redis starts"));
        let (postgres, redis) = spawn_blocking(parts).await.unwrap();
        let url = postgres.database().unwrap();
        let set = vec![
            "store.backend=postgres".to_owned(),
            format!("store.postgres_url={url}"),
            "queue.backend=redis".to_owned(),
            format!("redis.urls=[{:?}]", redis.url()),
            format!("strategy.wait_ms={}", WAIT.as_millis()),
            "strategy.seat=combining".to_owned(),
            "strategy.wallet=pubsub".to_owned(),
            "strategy.payment=optimistic".to_owned(),
            "admission.max_active=1000".to_owned(),
        ];
        let (folder, bases) = (TempDir::new().unwrap(), Bases::default());
        let mut site = Self { postgres, redis, url, folder, set, bases, processes: Vec::new() };
        for _ in 0..2 {
            let process = site.instance().await;
            site.processes.push(process);
        }
        site
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("unused.db")
    }

    async fn instance(&mut self) -> Process {
        let set: Vec<_> = self.set.iter().map(String::as_str).collect();
        let process = Process::start(&self.database(), &set).await.unwrap();
        self.bases.write().unwrap()[self.processes.len()].clone_from(&process.base);
        process
    }

    /// Makes a fault, and ends it before it returns.
    async fn suffer(&mut self, fault: Fault) {
        let name = self.url.rsplit('/').next().unwrap_or_default().to_owned();
        let sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        match fault {
            Fault::PostgresHangs => {
                self.postgres.pause().unwrap();
                sleep(FAULT).await;
                self.postgres.resume().unwrap();
            }
            Fault::RedisHangs => {
                self.redis.pause().unwrap();
                sleep(FAULT).await;
                self.redis.resume().unwrap();
            }
            Fault::RowsAreLocked => {
                let rows = "SELECT FROM accounts ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED";
                let free = "SELECT FROM seats WHERE state = 'available' LIMIT 2 FOR UPDATE SKIP LOCKED";
                self.sql(&format!("BEGIN; {rows}; {free}; SELECT pg_sleep({}); COMMIT", FAULT.as_secs()));
            }
            Fault::PostgresDies => {
                self.postgres.kill().unwrap();
                self.postgres.restart().unwrap();
            }
            Fault::SessionsEnd => drop(self.postgres.sql(&sessions).unwrap()),
            Fault::RedisDies => {
                self.redis.kill().unwrap();
                sleep(Duration::from_secs(1)).await;
                self.redis.restart().unwrap();
            }
            Fault::NoWrites => {
                self.postgres.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on; {sessions}")).unwrap();
                sleep(FAULT).await;
                self.postgres.sql(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).unwrap();
            }
            Fault::InstanceDies => {
                self.processes.pop().unwrap().kill().await.unwrap();
                let process = self.instance().await;
                self.processes.push(process);
            }
        }
    }

    fn sql(&self, statements: &str) -> String {
        tokio::task::block_in_place(|| self.postgres.sql_in(&self.url, statements).unwrap())
    }

    /// How many of `ids` are there.
    fn stored(&self, ids: &[String], of: &str) -> usize {
        let count = |some: &[String]| {
            let listed = some.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
            self.sql(&format!("SELECT count(*) FROM {of} AND id IN ({listed})")).trim().parse::<usize>().unwrap()
        };
        ids.chunks(1_000).map(count).sum()
    }
}

/// Requests `/health/live` until the sale is over: the time of the slowest answer.
async fn lives(base: String, seen: Arc<Seen>) -> Duration {
    let (http, mut slowest) = (client().build().unwrap(), Duration::ZERO);
    while !seen.over.load(Ordering::SeqCst) {
        let began = Instant::now();
        let answer = timeout(AGE_MAX, Answer::to(http.get(format!("{base}/health/live")))).await.expect("an answer in time");
        assert_eq!(answer.status, 200);
        slowest = slowest.max(began.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_commands_are_stored_while_parts_hang_die_or_are_locked() {
    let seconds: Option<u64> = std::env::var("BOXOFFICE_TEST_SOAK_S").ok().map(|seconds| seconds.parse().expect("seconds"));
    let began = Instant::now();
    let mut site = Site::start().await;
    let (concert, date) = site.processes[0].one_date(seats(SEATS, 1_000)).await;
    site.processes[1].shows(&concert).await;

    let seen = Arc::<Seen>::default();
    let buyer = |_| {
        let (bases, seen, concert, date) = (site.bases.clone(), seen.clone(), concert.clone(), date.clone());
        Buyer { bases, seen, concert, date, asked: 0 }.comes()
    };
    let crowd = spawn(at_once((0..BUYERS).map(buyer).collect::<Vec<_>>()));
    let live = spawn(lives(site.processes[0].base.clone(), seen.clone()));
    let mut memory = Vec::new();
    for fault in FAULTS.into_iter().cycle() {
        if memory.len() >= FAULTS.len() && seconds.is_none_or(|seconds| began.elapsed().as_secs() >= seconds) {
            break;
        }
        let (rounds, from) = (seen.rounds.load(Ordering::SeqCst), Instant::now());
        site.suffer(fault).await;
        // Buyers in the middle of a round go on by themselves.
        eventually("the sale goes on", async || (seen.rounds.load(Ordering::SeqCst) > rounds + 2 * BUYERS).then_some(())).await;
        println!("{fault:?}: the sale goes on {:?} after it began", from.elapsed());
        if seconds.is_some() {
            sleep(PAUSE).await;
        }
        memory.push(site.processes[0].resident_kib().unwrap());
    }
    seen.over.store(true, Ordering::SeqCst);
    crowd.await.unwrap();
    let slowest_live = live.await.unwrap();

    let succeeded = std::mem::take(&mut *seen.succeeded.lock().unwrap());
    let mut took = std::mem::take(&mut *seen.took.lock().unwrap());
    took.sort_unstable();
    let late = took.iter().filter(|took| **took > PROMISED).count();
    println!(
        "{} s: {} answers, p99 {:?}, longest {:?}, {late} later than {PROMISED:?}; /health/live at most {slowest_live:?}; {} charges, {} payments, \
         {} refunds; memory {} to {} KiB; refused: {:?}",
        began.elapsed().as_secs(),
        took.len(),
        took[(took.len() - 1) * 99 / 100],
        took.last().unwrap(),
        succeeded.entries.len(),
        succeeded.payments.len(),
        succeeded.refunds.len(),
        memory.first().unwrap(),
        memory.last().unwrap(),
        succeeded.refused,
    );
    assert!(succeeded.refused.is_empty(), "{:?}", succeeded.refused);
    assert_eq!(site.stored(&succeeded.entries, "entries WHERE kind = 'charge'"), succeeded.entries.len());
    assert_eq!(site.stored(&succeeded.payments, "payments WHERE true"), succeeded.payments.len());
    assert_eq!(site.stored(&succeeded.refunds, "payments WHERE refunded_at IS NOT NULL"), succeeded.refunds.len());
    if seconds.is_some() {
        // After the first half caches are full.
        let (half, most) = (memory.len() / 2, |of: &[u64]| of.iter().max().copied().unwrap_or_default());
        let (before, after) = (most(&memory[..half]), most(&memory[half..]));
        assert!(after <= before + before / 10 + GROWTH_MAX, "memory grows: {memory:?}");
    }
    let set = site.set.iter().flat_map(|set| ["--set", set]);
    let audit = Process::run(&site.database(), &["audit"].into_iter().chain(set).collect::<Vec<_>>()).await.unwrap();
    assert!(audit.status.success(), "{audit:?}");
    for process in site.processes.drain(..) {
        assert!(process.terminate().await.unwrap().success());
    }
}
