//! Where a strategy is measured: a store of its own, servers on it in this process, and users with money and turns.
//!
//! The configured data of a production server is never touched. SQLite is a file in a temporary folder, removed with the
//! site. On PostgreSQL it is a database of its own on the configured server, called `boxoffice_bench_` and a random
//! number; it is dropped when the site closes, and stays behind only when this process is killed. In Redis, strategies
//! leave nothing but locks on keys of the site, which end with their lease. On a broker the topics, the group or the
//! queues have such a name, too, and are deleted when the site closes.
//!
//! The waiting rooms have no limits and are kept where `queue.backend` says; by default the lab sets it to each
//! instance's memory, so that the rooms do not weigh on the figures. A buyer over HTTP joins, waits for the turn and
//! presents the token.

mod settings;

pub(crate) use settings::settings_for;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::admission::MAX_ACTIVE_MAX;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_domain::{
    Actor, Admission, AdmissionMode, Batch, Command, CommandId, ConcertId, ConcertPlan, DateId, DatePlan, FreshIds, Request, SeatPlan,
    UserId,
};
use boxoffice_ports::{Deadline, Guard, Ids, LedgerError, Receipt, Stores};
use chrono::TimeDelta;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::caller::{Caller, InProcess, Person, keyed};
use super::caller_runtime::CallerRuntime;
use super::client::{Connection, request};
use super::entrant::Entrant;
use super::error::LabError;
use super::report::Via;
use super::workload::{FUNDS, PRICE, Workload};
use boxoffice_app::config::{Settings, StoreBackend};
use boxoffice_app::wiring::{self, Running, SystemClock, SystemIds};
use settings::LONG_S;

/// Wallets funded in one transaction.
const FUNDED_AT_ONCE: usize = 500;
/// Attempts to fund one batch of wallets.
const FUND_TRIES: u32 = 5;
/// How long one transaction of a funding may take.
const FUND_MAX: Duration = Duration::from_secs(30);
/// Connections to one instance over which users join.
const JOINING: usize = 16;
/// How long seeding may wait for any one condition.
const SEEDING_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// How long the outbox may take to empty; after it a run begins regardless.
const QUIET_MAX: Duration = Duration::from_secs(5);
/// Commands that check, on each instance, whether a log is read: enough to fall on every one of a few partitions.
const CHECKS_AT_ONCE: usize = 64;
/// How many rounds of checks must be answered completely, one after the other.
const CHECKED_ROUNDS: u32 = 2;
/// How long commands that are still in a log may take to be decided once no caller waits for them.
const DECIDED_MAX: Duration = Duration::from_secs(30);

/// The store of a site.
enum Scratch {
    Memory,
    Folder(tempfile::TempDir),
    Database(wiring::ScratchDatabase),
}

/// See the module's opening.
pub(super) struct Site {
    instances: Vec<Running>,
    settings: Box<Settings>,
    concert: ConcertId,
    /// The unused ones with their seats, the next one last.
    dates: Vec<(DateId, u32)>,
    bearer_key: EncodingKey,
    ids: Arc<dyn Ids>,
    runtime: CallerRuntime,
    scratch: Scratch,
    log: Option<wiring::ScratchLog>,
}

impl Site {
    /// `dates`: how many seats each has, in the order in which they will be taken.
    pub(super) async fn open(base: &Settings, entrant: Entrant, instances: u32, dates: &[u32]) -> Result<Self, LabError> {
        let mut settings = Box::new(settings_for(base, entrant)?);
        let log = wiring::ScratchLog::name(&mut settings, entrant.strategy);
        let runtime = CallerRuntime::start(settings.http.worker_count()).map_err(LabError::Threads)?;
        let scratch = match settings.store.backend {
            StoreBackend::Memory => Scratch::Memory,
            StoreBackend::Sqlite => {
                let folder = tempfile::Builder::new().prefix("boxoffice-bench-").tempdir().map_err(LabError::Folder)?;
                settings.store.sqlite_path = folder.path().join("bench.db");
                Scratch::Folder(folder)
            }
            StoreBackend::Postgres => Scratch::Database(wiring::ScratchDatabase::create(&mut settings).await?),
        };
        let bearer_key = EncodingKey::from_secret(settings.auth.hs256_secret.expose().as_bytes());
        let concert = ConcertId(Default::default());
        let ids = Arc::new(SystemIds);
        let mut site = Self { instances: Vec::new(), settings, concert, dates: Vec::new(), bearer_key, ids, runtime, scratch, log };
        match Box::pin(site.build(instances, dates)).await {
            Ok(()) => Ok(site),
            Err(error) => {
                site.close().await;
                Err(error)
            }
        }
    }

    async fn build(&mut self, instances: u32, dates: &[u32]) -> Result<(), LabError> {
        for _ in 0..instances {
            self.instances.push(wiring::start((*self.settings).clone(), Arc::new(SystemClock::default())).await?);
        }
        if self.log.is_some() {
            self.log_is_read().await?;
        }
        if dates.is_empty() {
            return Ok(());
        }
        let stores = self.stores()?.clone();
        let now = stores.queries.now().await?;
        let day = |at: usize| now + TimeDelta::days(30 + at as i64);
        let plan = ConcertPlan {
            key: "bench".to_owned(),
            name: "Strategy lab".to_owned(),
            venue: "Nowhere".to_owned(),
            time_zone: "UTC".to_owned(),
            sale_starts_at: None,
            admission: None,
            dates: dates.iter().enumerate().map(|(at, &seats)| date_plan(format!("run-{at}"), now, day(at), seats)).collect(),
        };
        let admission =
            Admission { mode: AdmissionMode::Running, max_active: MAX_ACTIVE_MAX, per_interval: None, auto: false, adaptive: false };
        let imported = stores.catalog.import(vec![plan], admission).await?;
        let imported = imported.into_iter().next().ok_or(LabError::Seeding("no concert was imported"))?;
        self.concert = imported.id;
        self.dates = imported.dates.iter().map(|date| date.id).zip(dates.iter().copied()).rev().collect();
        let path = format!("/api/v1/concerts/{}", self.concert);
        for address in self.addresses() {
            let mut connection = Connection::new(address);
            let shown = request(address, "GET", &path, &[], None);
            let deadline = Instant::now() + SEEDING_MAX;
            while connection.send(&shown).await.map_err(LabError::Connection)?.status != 200 {
                wait(deadline, "timed out waiting for an instance to show the concert").await?;
            }
        }
        Ok(())
    }

    /// Stops the servers and removes the store.
    pub(super) async fn close(self) {
        for instance in self.instances {
            instance.stop().await;
        }
        match self.scratch {
            Scratch::Memory => {}
            Scratch::Folder(folder) => {
                if let Err(error) = folder.close() {
                    tracing::warn!(%error, "a temporary folder could not be removed");
                }
            }
            Scratch::Database(database) => database.remove().await,
        }
        if let Some(log) = self.log {
            log.remove().await;
        }
    }

    /// Waits until commands of each instance come back from every part of the log. An instance has one executor for all
    /// classes, so checking one class is enough. A consumer group that has just been joined takes seconds.
    async fn log_is_read(&self) -> Result<(), LabError> {
        let deadline = Instant::now() + SEEDING_MAX;
        let mut complete = 0;
        while complete < CHECKED_ROUNDS {
            let requests = self.instances.iter().flat_map(|running| (0..CHECKS_AT_ONCE).map(move |_| running));
            let checks = requests.map(|running| {
                let user = UserId(self.ids.fresh());
                let request = keyed(self.ids.as_ref(), user, "first", Command::ChargeWallet { user, amount: 1 });
                running.executors.wallet.execute(request, running.executors.deadline())
            });
            let answers = futures_util::future::join_all(checks).await;
            complete = if answers.iter().all(|answer| matches!(answer, Ok(Receipt::Done(_)))) { complete + 1 } else { 0 };
            if complete == 0 {
                wait(deadline, "timed out waiting for commands to be read from the log").await?;
            }
        }
        self.decided().await;
        Ok(())
    }

    /// Waits until every command that was appended to a log is decided, at most [`DECIDED_MAX`].
    pub(super) async fn decided(&self) {
        let deadline = Instant::now() + DECIDED_MAX;
        while self.instances.iter().any(|running| running.stats.logged_commands.get() > 0) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Replaces every instance's executors.
    #[cfg(test)]
    pub(super) fn replace_executors(&mut self, other: impl Fn(wiring::Executors) -> wiring::Executors) {
        for instance in &mut self.instances {
            instance.executors = other(instance.executors.clone());
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn instances(&self) -> &[Running] {
        &self.instances
    }

    pub(super) fn stores(&self) -> Result<&Stores, LabError> {
        self.instances.first().map(|running| &running.stores).ok_or(LabError::Seeding("there is no server"))
    }

    /// The runtime of the callers.
    pub(super) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(|running| running.address).collect()
    }

    /// The next unused date; the site must have been opened with a date of so many seats.
    pub(super) fn take_date(&mut self, workload: &Workload, jobs: u32) -> Result<DateId, LabError> {
        if !workload.has_seats() {
            return Ok(DateId(Default::default()));
        }
        match self.dates.pop() {
            Some((date, seats)) if seats == workload.seat_count(jobs) => Ok(date),
            _ => Err(LabError::Seeding("there is no date for this run")),
        }
    }

    /// Callers on the instances in turn.
    pub(super) fn callers(&self, via: Via, count: u32) -> Vec<Caller> {
        let instances = self.instances.iter().cycle().take(count as usize);
        let caller = |running: &Running| match via {
            Via::Process => Caller::InProcess(InProcess {
                executors: running.executors.clone(),
                ledger: running.stores.ledger.clone(),
                ids: self.ids.clone(),
                seats: running.seats.clone(),
                stats: running.stats.clone(),
                wait: self.settings.strategy.wait(),
            }),
            Via::Http => Caller::OverHttp(Connection::new(running.address)),
        };
        instances.map(caller).collect()
    }

    /// The users of `jobs` jobs: with money, and over HTTP with tokens and an active turn.
    pub(super) async fn people(&self, workload: &Workload, jobs: u32, via: Via) -> Result<Vec<Person>, LabError> {
        let users: Vec<UserId> = (0..workload.user_count(jobs)).map(|_| UserId(self.ids.fresh())).collect();
        if workload.needs_funds() {
            self.fund(&users).await?;
        }
        let exp = self.stores()?.queries.now().await?.timestamp() + i64::from(LONG_S);
        let person = |user: UserId| {
            let bearer = match via {
                Via::Process => String::new(),
                Via::Http => {
                    let claims = json!({ "sub": user, "exp": exp });
                    format!("Bearer {}", jsonwebtoken::encode(&Header::default(), &claims, &self.bearer_key).map_err(LabError::Token)?)
                }
            };
            Ok(Person { user, bearer, queue_token: String::new() })
        };
        let mut people = users.into_iter().map(person).collect::<Result<Vec<_>, LabError>>()?;
        if via == Via::Http && workload.has_seats() {
            self.join(&mut people).await?;
        }
        Ok(people)
    }

    async fn fund(&self, users: &[UserId]) -> Result<(), LabError> {
        let (ledger, policy) = (&self.stores()?.ledger, Arc::new(self.settings.policy()));
        let charge = |&user: &UserId| {
            let fresh = || self.ids.fresh();
            let fresh_ids = FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] };
            let command = Command::ChargeWallet { user, amount: FUNDS };
            Request { command_id: CommandId(fresh()), actor: Actor::User(user), fingerprint: None, fresh: fresh_ids, command }
        };
        for some in users.chunks(FUNDED_AT_ONCE) {
            // A wallet that is funded twice does no harm: a run is compared with the totals before it.
            let batch = Batch::new(some.iter().map(charge).collect::<Vec<_>>(), policy.clone());
            let mut attempts = 1;
            loop {
                match ledger.transact(batch.clone(), Guard::RowLock, Deadline::after(FUND_MAX)).await {
                    Ok(_) => break,
                    Err(LedgerError::Conflict | LedgerError::LockTimeout | LedgerError::Retryable(_)) if attempts < FUND_TRIES => {
                        attempts += 1
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Each user joins at the instance whose callers will run the user's job: the job's number modulo the instances.
    async fn join(&self, people: &mut [Person]) -> Result<(), LabError> {
        let addresses = self.addresses();
        let path = format!("/api/v1/concerts/{}/queue", self.concert);
        let lines = addresses.len() * JOINING;
        let joined = (0..lines).map(|line| {
            let address = addresses[line % addresses.len()];
            let bearers: Vec<(usize, String)> =
                people.iter().enumerate().skip(line).step_by(lines).map(|(at, person)| (at, person.bearer.clone())).collect();
            join_by(address, &path, bearers)
        });
        let joined: Vec<_> = stream::iter(joined).buffer_unordered(lines).try_collect().await?;
        for (at, token) in joined.into_iter().flatten() {
            people[at].queue_token = token;
        }
        Ok(())
    }

    /// Waits until the relays have sent all earlier events, so that they do not weigh on the next run.
    pub(super) async fn quiet(&self) -> Result<(), LabError> {
        self.decided().await;
        let outbox = &self.stores()?.outbox;
        let deadline = Instant::now() + QUIET_MAX;
        for shard in 0..OUTBOX_SHARDS {
            while !outbox.unsent(shard, 1).await?.is_empty() && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// Joins for these users over one connection, then waits for every turn; returns the tokens by the users' indices.
async fn join_by(address: SocketAddr, path: &str, bearers: Vec<(usize, String)>) -> Result<Vec<(usize, String)>, LabError> {
    let mut connection = Connection::new(address);
    let mut waiting = Vec::with_capacity(bearers.len());
    for (at, bearer) in bearers {
        let answer = connection.send(&request(address, "POST", path, &[("Authorization", &bearer)], None)).await;
        let place = place(&answer.map_err(LabError::Connection)?.body)?;
        waiting.push((at, bearer, place.0));
    }
    let mut tokens = Vec::with_capacity(waiting.len());
    let deadline = Instant::now() + SEEDING_MAX;
    for (at, bearer, mut token) in waiting {
        loop {
            let headers = [("Authorization", bearer.as_str()), ("Queue-Token", token.as_str())];
            let answer = connection.send(&request(address, "GET", "/api/v1/queue", &headers, None)).await;
            let (current, active) = place(&answer.map_err(LabError::Connection)?.body)?;
            token = current;
            if active {
                break;
            }
            wait(deadline, "timed out waiting for a turn").await?;
        }
        tokens.push((at, token));
    }
    Ok(tokens)
}

/// The token of a queue object, and whether its turn is active.
fn place(body: &[u8]) -> Result<(String, bool), LabError> {
    let value: Value = serde_json::from_slice(body).map_err(|_| LabError::Seeding("the queue's answer is not JSON"))?;
    let token = value["token"].as_str().ok_or(LabError::Seeding("the queue gave no token"))?;
    Ok((token.to_owned(), value["status"] == "active"))
}

async fn wait(deadline: Instant, what: &'static str) -> Result<(), LabError> {
    if Instant::now() >= deadline {
        return Err(LabError::Seeding(what));
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

fn date_plan(key: String, now: boxoffice_domain::Timestamp, starts_at: boxoffice_domain::Timestamp, seats: u32) -> DatePlan {
    DatePlan {
        key,
        starts_at,
        ends_at: None,
        booking_opens_at: now - TimeDelta::hours(1),
        booking_closes_at: starts_at,
        refund_closes_at: starts_at,
        seats: vec![SeatPlan { from: 1, to: seats, grade: "R".to_owned(), price: PRICE, section: None, row: None }],
    }
}
