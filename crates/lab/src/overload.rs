//! Ten times more than can be answered: accepted commands must still be answered in time, and refusing the rest must
//! cost almost nothing.
//!
//! First the peak: the highest rate of effects, with [`PEAK_CALLERS`] callers that wait for each answer. Each
//! measurement lasts at least as long as a command may wait.
//!
//! Then commands are offered at ten times that rate, answered or not, to the instances in turn. A thread of its own
//! offers, so that answering cannot slow it down; it only checks whether the executor would reject. If not, a task on
//! the callers' threads (`hand_over`) hands the command over, many at a time, as one connection of the instance would:
//! a wake-up for each command would cost more than the command. A rejected command is offered again, as its caller
//! would; the outcome of an accepted one is polled until there is one.
//!
//! Everything happens in this process, so offering takes processor time that a real overloaded server has for itself,
//! because its clients run elsewhere; and a fuller store is slower. Both are measured separately: the peak is measured
//! twice more, before and after, while as many offers are made to an executor that rejects them all. The strategy is
//! judged by its share of the mean of these two.
//!
//! *Bounds.* At most [`WAITING_MAX`] commands wait for an outcome; beyond it nothing is offered, and the offered rate
//! shows it. After the last offer an answer may take as long as a command may wait, and a grace; then it counts as
//! failed.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use boxoffice_domain::{Command, IdempotencyKey, Request, UserId};
use boxoffice_ports::{Deadline, ExecuteError, Executor, Ledger, Receipt};
use tokio::runtime::Handle;

use super::caller::{Answered, keyed, outcome};
use super::drive::{Limits, Tally, Task, drive};
use super::effects::{self, Effects};
use super::entrant::Entrant;
use super::error::LabError;
use super::report::{Overload, Via};
use super::run::GRACE;
use super::site::Site;
use super::workload::{COMMANDS_MAX, OVERLOAD, OVERLOADING};
use boxoffice_app::wiring::{Running, SystemIds};

const TIMES: f64 = 10.0;
/// Numbers of callers, one after the other, over all instances together.
const PEAK_CALLERS: [u32; 3] = [100, 1_000, 4_000];
/// Offers are made for so many times a command's longest wait, so that a growing backlog has time to show.
const WAITS: u32 = 3;
/// How often due offers are made.
const EVERY: Duration = Duration::from_millis(1);
/// An offer that is later than this is dropped.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Commands that the offering thread checks executors with.
const PROBES: u32 = 64;
/// Commands that are handed over without a pause, at most.
const HANDED_OVER_AT_ONCE: u32 = 64;
/// Offers between two reads of the clock, at most.
const OFFERS_AT_ONCE: u32 = 256;
const WAITING_MAX: usize = 100_000;
/// The most offers of one run.
const OFFERS_MAX: u32 = 20_000_000;

/// Measures one strategy. Each run that looks for the peak takes `time`.
pub(super) async fn overload(site: &Site, entrant: Entrant, time: Duration) -> Result<Overload, LabError> {
    let (mut peak_per_s, mut peak_callers) = (0.0, 0);
    let time = time.max(site.settings().strategy.wait());
    for callers in PEAK_CALLERS {
        let per_s = peak(site, callers, time, None).await?;
        if per_s > peak_per_s {
            (peak_per_s, peak_callers) = (per_s, callers);
        }
    }
    let beside = async || peak(site, peak_callers, time, Some(peak_per_s * TIMES)).await;
    let beside_before_per_s = beside().await?;
    site.quiet().await?;
    let (stores, seats_max) = (site.stores()?, site.settings().hold.max_seats_per_user);
    let people = site.people(&OVERLOAD, OVERLOAD.user_count(COMMANDS_MAX), Via::Process).await?;
    let users: Arc<[UserId]> = people.iter().map(|person| person.user).collect();
    let before = stores.audit.audit(seats_max).await?;
    let flood = flood(site, users, peak_per_s * TIMES).await;
    if !flood.tally.failed.is_empty() {
        tokio::time::sleep(site.settings().strategy.wait()).await;
    }
    site.decided().await;
    let after = stores.audit.audit(seats_max).await?;
    let found = effects::look(stores, &OVERLOAD, &people, &flood.tally).await?;
    let effects = effects::compare(&OVERLOAD, &found, None, [&before, &after], &flood.tally);
    let beside_after_per_s = beside().await?;
    let peaks = Peaks { peak_per_s, peak_callers, peak_beside_per_s: f64::midpoint(beside_before_per_s, beside_after_per_s) };
    Ok(record(entrant, peaks, site.settings().strategy.wait_ms, flood, effects))
}

struct Peaks {
    peak_per_s: f64,
    peak_callers: u32,
    /// While as many offers were rejected without an executor: the mean of before and after.
    peak_beside_per_s: f64,
}

/// Effects a second of so many callers, while `beside_per_s` offers a second are rejected without an executor.
async fn peak(site: &Site, callers: u32, time: Duration, beside_per_s: Option<f64>) -> Result<f64, LabError> {
    let people = site.people(&OVERLOAD, OVERLOAD.user_count(COMMANDS_MAX), Via::Process).await?;
    let users = people.iter().map(|person| person.user).collect();
    let date = boxoffice_domain::DateId(Default::default());
    let task = Task { workload: OVERLOAD, jobs: COMMANDS_MAX, people, date, name: format!("peak-{callers}") };
    let limits = Limits { time, grace: site.settings().strategy.wait() + GRACE };
    let beside = beside_per_s.map(|per_s| {
        let targets = site.instances().iter().map(|running| Target::new(Arc::new(RejectAll), running)).collect();
        offering(&Arc::new(Offers::new(users, per_s, time, time)), targets, site.runtime())
    });
    let instances = site.instances().len() as u32;
    let (tally, _) = drive(Arc::new(task), site.callers(Via::Process, callers), instances, limits, site.runtime()).await;
    if let Some(beside) = beside {
        beside.await;
    }
    site.decided().await;
    Ok(tally.applied.len() as f64 / tally.took.as_secs_f64().max(f64::MIN_POSITIVE))
}

struct Flood {
    tally: Tally,
    took: Duration,
    /// Answered while offers were made.
    in_time: u32,
}

/// What all offers have in common.
struct Offers {
    users: Arc<[UserId]>,
    per_s: f64,
    until: Instant,
    /// The time after which no answer is waited for.
    over: Instant,
    prepared: AtomicU32,
    waiting: AtomicUsize,
    in_time: AtomicU32,
    tally: Mutex<Tally>,
}

impl Offers {
    /// Offers for `time` from now on; answers are waited for until `patience` has passed.
    fn new(users: Arc<[UserId]>, per_s: f64, time: Duration, patience: Duration) -> Self {
        let now = Instant::now();
        let (until, over) = (now + time, now + patience);
        let (prepared, waiting, in_time, tally) = (AtomicU32::new(0), AtomicUsize::new(0), AtomicU32::new(0), Mutex::default());
        Self { users, per_s, until, over, prepared, waiting, in_time, tally }
    }

    fn turned_away(&self, count: u32) {
        let mut tally = self.tally();
        tally.sent += count;
        tally.turned_away += count;
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance that gets offers.
struct Target {
    executor: Arc<dyn Executor>,
    ledger: Arc<dyn Ledger>,
    /// How long each command may take.
    wait: Duration,
    /// Commands to hand over, which the executor seemed to accept.
    pending: AtomicU32,
}

impl Target {
    fn new(executor: Arc<dyn Executor>, of: &Running) -> Arc<Self> {
        Arc::new(Self { executor, ledger: of.stores.ledger.clone(), wait: of.executors.wait, pending: AtomicU32::new(0) })
    }
}

/// Rejects every command at once.
struct RejectAll;

#[async_trait]
impl Executor for RejectAll {
    async fn execute(&self, _: Request, _: Deadline) -> Result<Receipt, ExecuteError> {
        Err(ExecuteError::Overloaded)
    }

    fn would_reject(&self, _: &Request) -> bool {
        true
    }
}

struct Prepared {
    /// The place among the people.
    at: u32,
    request: Request,
}

async fn flood(site: &Site, users: Arc<[UserId]>, per_s: f64) -> Flood {
    let wait = site.settings().strategy.wait();
    let started = Instant::now();
    let offers = Arc::new(Offers::new(users, per_s, wait * WAITS, wait * (WAITS + 1) + GRACE));
    let targets = site.instances().iter().map(|running| Target::new(running.executors.wallet.clone(), running)).collect();
    offering(&offers, targets, site.runtime()).await;
    let took = started.elapsed();
    while offers.waiting.load(Ordering::Acquire) > 0 && Instant::now() < offers.over + GRACE {
        tokio::time::sleep(EVERY).await;
    }
    let tally = std::mem::take(&mut *offers.tally());
    Flood { tally, took, in_time: offers.in_time.load(Ordering::Relaxed) }
}

/// Starts to offer in a thread of its own, and ends with it. Commands are handed over `on` the callers' threads.
fn offering(offers: &Arc<Offers>, targets: Vec<Arc<Target>>, on: &Handle) -> impl Future<Output = ()> + use<> {
    for target in &targets {
        on.spawn(hand_over(offers.clone(), target.clone()));
    }
    let offers = offers.clone();
    let thread = tokio::task::spawn_blocking(move || offer_all(&offers, &targets));
    async {
        // After a failure the tally still has what was offered until then.
        if let Err(error) = thread.await {
            tracing::error!(%error, "the offering thread ended early");
        }
    }
}

/// Makes each due offer, whether or not commands are answered.
fn offer_all(offers: &Arc<Offers>, targets: &[Arc<Target>]) {
    // Probes are never handed over; there are several, because their keys fall on different lanes or partitions.
    let probes: Vec<_> = (0..PROBES).map(|_| prepare(offers)).collect();
    let (mut offered, mut turned_away) = (0, 0);
    let pause = Duration::from_secs_f64(1.0 / offers.per_s.max(1.0));
    let mut due = Instant::now();
    while !targets.is_empty() && offered < OFFERS_MAX {
        let now = Instant::now();
        if now >= offers.until {
            break;
        }
        due = due.max(now.checked_sub(LATE_MAX).unwrap_or(due));
        if due > now || offers.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            thread::sleep(EVERY);
            continue;
        }
        for _ in 0..OFFERS_AT_ONCE {
            if due > now {
                break;
            }
            due += pause;
            let target = &targets[offered as usize % targets.len()];
            let request = &probes[offered as usize / targets.len() % probes.len()].request;
            offered += 1;
            if target.executor.would_reject(request) {
                turned_away += 1;
            } else {
                target.pending.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    offers.turned_away(turned_away);
}

/// Hands pending commands over while offers are made.
async fn hand_over(offers: Arc<Offers>, target: Arc<Target>) {
    let (back, returned) = mpsc::channel();
    let mut next = None;
    while Instant::now() < offers.until {
        let (pending, mut turned_away) = (target.pending.swap(0, Ordering::Relaxed), 0);
        if pending == 0 {
            tokio::time::sleep(EVERY).await;
        }
        for handed_over in 1..=pending {
            let prepared = next.take().or_else(|| returned.try_recv().ok()).unwrap_or_else(|| prepare(&offers));
            if target.executor.would_reject(&prepared.request) {
                next = Some(prepared);
                turned_away += 1;
                continue;
            }
            offers.waiting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answered(offers.clone(), target.clone(), prepared, back.clone()));
            if handed_over % HANDED_OVER_AT_ONCE == 0 {
                // A command counts against the queue only once its task has run.
                tokio::task::yield_now().await;
            }
        }
        offers.turned_away(turned_away);
    }
    offers.turned_away(target.pending.swap(0, Ordering::Relaxed));
}

/// Executes one command to its outcome; a rejected one is sent back.
async fn answered(offers: Arc<Offers>, target: Arc<Target>, prepared: Prepared, back: mpsc::Sender<Prepared>) {
    let sent = Instant::now();
    let key = IdempotencyKey { user: offers.users[prepared.at as usize], command: prepared.request.command_id };
    let answer = async {
        match target.executor.execute(prepared.request.clone(), Deadline::after(target.wait)).await {
            Err(ExecuteError::Overloaded) => None,
            receipt => Some(outcome(receipt, target.ledger.as_ref(), key).await),
        }
    };
    let answer = tokio::time::timeout_at(offers.over.into(), answer).await;
    match answer.unwrap_or_else(|_| Some(Answered::Failed("no answer before the run's end".to_owned()))) {
        Some(answer) => {
            if Instant::now() < offers.until && matches!(answer, Answered::Applied(_)) {
                offers.in_time.fetch_add(1, Ordering::Relaxed);
            }
            offers.tally().add(prepared.at, OVERLOAD.steps[0], answer, sent.elapsed());
        }
        None => {
            offers.turned_away(1);
            // It fails after the last offer: the receiver is gone.
            let _ = back.send(prepared);
        }
    }
    offers.waiting.fetch_sub(1, Ordering::Release);
}

fn prepare(offers: &Offers) -> Prepared {
    let number = offers.prepared.fetch_add(1, Ordering::Relaxed);
    let (at, amount) = (OVERLOAD.user_of(number), OVERLOADING);
    let user = offers.users[at as usize];
    Prepared { at, request: keyed(&SystemIds, user, &format!("overload-{number}"), Command::ChargeWallet { user, amount }) }
}

fn share(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

fn record(entrant: Entrant, peaks: Peaks, wait_ms: u64, flood: Flood, effects: Effects) -> Overload {
    let Flood { tally, took, in_time } = flood;
    let Peaks { peak_per_s, peak_callers, peak_beside_per_s } = peaks;
    let rate = |count: u32| f64::from(count) / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let answered_per_s = rate(in_time);
    Overload {
        strategy: entrant.strategy.name(),
        partitions: entrant.partitions,
        peak_per_s,
        peak_callers,
        peak_beside_per_s,
        seconds: took.as_secs_f64(),
        offered: tally.sent,
        offered_per_s: rate(tally.sent),
        answered_per_s,
        share_of_peak: share(answered_per_s, peak_per_s),
        share_of_peak_beside: share(answered_per_s, peak_beside_per_s),
        answered: tally.applied.len() as u32,
        turned_away: tally.turned_away + tally.busy,
        failed: tally.failed.len() as u32,
        wait_ms,
        latency: tally.latencies(),
        findings: effects.findings,
        breaches: effects.breaches,
        first_failure: tally.first_failure,
    }
}
