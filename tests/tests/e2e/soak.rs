//! A sale of many rounds on two instances over PostgreSQL and Redis, while something hangs, dies or is locked again and
//! again: what was answered is there afterwards, and nobody waited longer than is promised.
//!
//! A trouble of each kind by default. `BOXOFFICE_TEST_SOAK_S=1800 tests/run soak` goes on for half an hour, with one
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
/// No request takes longer while a part is away.
const PROMISED: Duration = Duration::from_millis(2_500);
/// A test waits for ten times what is promised.
const AGE_MAX: Duration = Duration::from_millis(10 * PROMISED.as_millis() as u64);
/// How long something hangs, is locked or takes no writes.
const TROUBLE: Duration = Duration::from_secs(3);
/// From one trouble to the next.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_OF_MANY: Duration = Duration::from_secs(7);
/// More than this on top of a tenth is no flat memory, KiB.
const GROWTH_MAX: u64 = 16 << 10;

/// What a buyer was told has happened.
#[derive(Default)]
struct Told {
    entries: Vec<String>,
    payments: Vec<String>,
    refunds: Vec<String>,
    /// Refusals that a buyer need not expect, by code.
    refused: BTreeMap<String, usize>,
}

/// What all buyers have seen.
#[derive(Default)]
struct Seen {
    told: Mutex<Told>,
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

    /// From one instance after the other, under the same key, until it is decided.
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
            assert!(Instant::now() < deadline, "it is never decided");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A command that nothing but a fault could refuse: what it made, if it was not refused.
    async fn told(&mut self, person: &Person, path: &str, key: &str, body: Value) -> Option<String> {
        let answer = self.ask(person, |person| person.writing(path, key, &body)).await;
        if answer.status >= 400 {
            *self.seen.told.lock().unwrap().refused.entry(format!("{path} {}", answer.code())).or_default() += 1;
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
            assert!(Instant::now() < deadline, "no turn: {answer:?}");
            sleep(Duration::from_millis(50)).await;
            answer = self.ask(person, |person| person.request(Method::GET, "/queue")).await;
        }
    }

    /// Charges, waits for a turn, holds two seats, and pays them or gives them up; every third one wants the money back.
    async fn buys(&mut self, round: usize) -> Option<()> {
        let http = client().build().unwrap();
        let mut person = loop {
            let base = self.base();
            match Answer::try_to(http.post(format!("{base}/api/v1/dev/users")).json(&json!({ "name": "somebody" }))).await {
                Ok(made) if made.status == 201 => break Person::new(http, base, &made),
                _ => sleep(Duration::from_millis(50)).await,
            }
        };
        let entry = self.told(&person, "/wallet/charges", "charge", json!({ "amount": 5_000 })).await?;
        self.seen.told.lock().unwrap().entries.push(entry);
        self.enters(&mut person).await;
        let hold = json!({ "date_id": self.date, "best": { "count": 2 } });
        let held = self.told(&person, "/reservations", "hold", hold).await?;
        if round % 4 == 3 {
            self.ask(&person, |person| person.request(Method::DELETE, &format!("/reservations/{held}"))).await.expect(204);
            // Or the turn would keep its place in the room.
            self.ask(&person, |person| person.request(Method::DELETE, "/queue")).await.expect(204);
            return Some(());
        }
        let paid = self.told(&person, "/payments", "pay", json!({ "reservation_id": held })).await?;
        self.seen.told.lock().unwrap().payments.push(paid.clone());
        // Half of the money of the sale comes back, so that there are always seats.
        if round % 4 < 2 {
            let refund = self.told(&person, &format!("/payments/{paid}/refund"), "refund", Value::Null).await?;
            self.seen.told.lock().unwrap().refunds.push(refund);
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
enum Trouble {
    PostgresHangs,
    RedisHangs,
    RowsAreLocked,
    PostgresDies,
    SessionsEnd,
    RedisDies,
    NoWrites,
    InstanceDies,
}

const TROUBLES: [Trouble; 8] = [
    Trouble::PostgresHangs,
    Trouble::RedisHangs,
    Trouble::RowsAreLocked,
    Trouble::PostgresDies,
    Trouble::SessionsEnd,
    Trouble::RedisDies,
    Trouble::NoWrites,
    Trouble::InstanceDies,
];

/// The instances, of which the second one may be killed, and what they stand on.
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

    /// One after the other; it is over when this returns.
    async fn suffer(&mut self, trouble: Trouble) {
        let name = self.url.rsplit('/').next().unwrap_or_default().to_owned();
        let sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        match trouble {
            Trouble::PostgresHangs => {
                self.postgres.pause().unwrap();
                sleep(TROUBLE).await;
                self.postgres.resume().unwrap();
            }
            Trouble::RedisHangs => {
                self.redis.pause().unwrap();
                sleep(TROUBLE).await;
                self.redis.resume().unwrap();
            }
            Trouble::RowsAreLocked => {
                let rows = "SELECT FROM accounts ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED";
                let free = "SELECT FROM seats WHERE state = 'available' LIMIT 2 FOR UPDATE SKIP LOCKED";
                self.sql(&format!("BEGIN; {rows}; {free}; SELECT pg_sleep({}); COMMIT", TROUBLE.as_secs()));
            }
            Trouble::PostgresDies => {
                self.postgres.kill().unwrap();
                self.postgres.restart().unwrap();
            }
            Trouble::SessionsEnd => drop(self.postgres.sql(&sessions).unwrap()),
            Trouble::RedisDies => {
                self.redis.kill().unwrap();
                sleep(Duration::from_secs(1)).await;
                self.redis.restart().unwrap();
            }
            Trouble::NoWrites => {
                self.postgres.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on; {sessions}")).unwrap();
                sleep(TROUBLE).await;
                self.postgres.sql(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).unwrap();
            }
            Trouble::InstanceDies => {
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

/// Asks a server whether it lives, until all is over: how long the slowest answer took.
async fn lives(base: String, seen: Arc<Seen>) -> Duration {
    let (http, mut slowest) = (client().build().unwrap(), Duration::ZERO);
    while !seen.over.load(Ordering::SeqCst) {
        let began = Instant::now();
        let answer = timeout(AGE_MAX, Answer::to(http.get(format!("{base}/health/live")))).await.expect("it lives");
        assert_eq!(answer.status, 200);
        slowest = slowest.max(began.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_whatever_hangs_dies_or_is_locked() {
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
    for trouble in TROUBLES.into_iter().cycle() {
        if memory.len() >= TROUBLES.len() && seconds.is_none_or(|seconds| began.elapsed().as_secs() >= seconds) {
            break;
        }
        let (rounds, from) = (seen.rounds.load(Ordering::SeqCst), Instant::now());
        site.suffer(trouble).await;
        // Buyers in the middle of something go on by themselves.
        eventually("the sale goes on", async || (seen.rounds.load(Ordering::SeqCst) > rounds + 2 * BUYERS).then_some(())).await;
        println!("{trouble:?}: the sale goes on {:?} after it began", from.elapsed());
        sleep(if seconds.is_some() { PAUSE_OF_MANY } else { PAUSE }).await;
        memory.push(site.processes[0].resident_kib().unwrap());
    }
    seen.over.store(true, Ordering::SeqCst);
    crowd.await.unwrap();
    let slowest_live = live.await.unwrap();

    let told = std::mem::take(&mut *seen.told.lock().unwrap());
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
        told.entries.len(),
        told.payments.len(),
        told.refunds.len(),
        memory.first().unwrap(),
        memory.last().unwrap(),
        told.refused,
    );
    assert!(told.refused.is_empty(), "{:?}", told.refused);
    assert_eq!(site.stored(&told.entries, "entries WHERE kind = 'charge'"), told.entries.len());
    assert_eq!(site.stored(&told.payments, "payments WHERE true"), told.payments.len());
    assert_eq!(site.stored(&told.refunds, "payments WHERE refunded_at IS NOT NULL"), told.refunds.len());
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
