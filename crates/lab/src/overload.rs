//! Ten times more than can be answered: what is let in must still be answered in time, and refusing the rest must cost
//! nearly nothing.
//!
//! First the peak: callers who wait for each answer, by [`PEAK_CALLERS`] at once, each for as long as a command waits at
//! least, and the highest rate of effects counts.
//! Then commands are offered at ten times that rate whether or not any are answered, to one instance after the other, by a
//! thread of its own: what is busy with answering must not slow the offers down, so that thread only asks whether there is
//! room. Where there is, a task among the callers' (`carry`) hands over so many commands, as one connection of the instance
//! would: waking it for each command would cost more than the command. A command that is turned away is offered
//! again, as whoever needs it would; whoever is told that a command was accepted asks for its outcome until there is one.
//!
//! Everything happens in this process, so offering takes a part of the processor that an overloaded server has for itself:
//! its clients are elsewhere; and a store that holds more is slower. Both are measured apart: the peak twice more, before
//! and after, while as many offers are made to nobody, who turns all of them away. What a strategy keeps of the mean of
//! these is its own doing.
//!
//! *Bounds.* At most [`WAITING_MAX`] commands wait for an outcome; while so many do nothing is offered, and the offered
//! rate shows it. After the last offer an answer may take as long as a command waits, and a grace; then it counts as
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
/// One after the other, on all instances together.
const PEAK_CALLERS: [u32; 3] = [100, 1_000, 4_000];
/// Offers are made for so many times what a command waits at most: whatever grows has time to show.
const WAITS: u32 = 3;
/// How often offers are made that are due.
const EVERY: Duration = Duration::from_millis(1);
/// What has not been offered for so long is not offered any more.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Commands that are asked with.
const ASKED: u32 = 64;
/// Commands that are handed over one after the other, at most.
const CARRIED_AT_ONCE: u32 = 64;
/// Offers between two looks at the time, at most.
const OFFERS_AT_ONCE: u32 = 256;
const WAITING_MAX: usize = 100_000;
/// The most offers of one run.
const OFFERS_MAX: u32 = 20_000_000;

/// Measures one strategy. `time` is that of each of the runs that look for the peak.
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
    /// While offers were made to nobody: the mean of before and after.
    peak_beside_per_s: f64,
}

/// Effects a second that so many callers bring about, while so many offers a second are made to nobody, if any.
async fn peak(site: &Site, callers: u32, time: Duration, beside_per_s: Option<f64>) -> Result<f64, LabError> {
    let people = site.people(&OVERLOAD, OVERLOAD.user_count(COMMANDS_MAX), Via::Process).await?;
    let users = people.iter().map(|person| person.user).collect();
    let date = boxoffice_domain::DateId(Default::default());
    let task = Task { workload: OVERLOAD, jobs: COMMANDS_MAX, people, date, name: format!("peak-{callers}") };
    let limits = Limits { time, grace: site.settings().strategy.wait() + GRACE };
    let beside = beside_per_s.map(|per_s| {
        let closed = site.instances().iter().map(|running| Door::new(Arc::new(Closed), running)).collect();
        offering(&Arc::new(Offers::new(users, per_s, time, time)), closed, site.outside())
    });
    let instances = site.instances().len() as u32;
    let (tally, _) = drive(Arc::new(task), site.callers(Via::Process, callers), instances, limits, site.outside()).await;
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
    /// From then on no answer is waited for.
    over: Instant,
    prepared: AtomicU32,
    waiting: AtomicUsize,
    in_time: AtomicU32,
    tally: Mutex<Tally>,
}

impl Offers {
    /// For `time` from now on; no answer is waited for after `patience`.
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

/// An instance.
struct Door {
    executor: Arc<dyn Executor>,
    ledger: Arc<dyn Ledger>,
    /// How long each command may take.
    wait: Duration,
    /// Commands to hand over, for which there seemed to be room.
    owed: AtomicU32,
}

impl Door {
    fn new(executor: Arc<dyn Executor>, of: &Running) -> Arc<Self> {
        Arc::new(Self { executor, ledger: of.stores.ledger.clone(), wait: of.executors.wait, owed: AtomicU32::new(0) })
    }
}

/// Turns everybody away.
struct Closed;

#[async_trait]
impl Executor for Closed {
    async fn execute(&self, _: Request, _: Deadline) -> Result<Receipt, ExecuteError> {
        Err(ExecuteError::Overloaded)
    }

    fn turns_away(&self, _: &Request) -> bool {
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
    let doors = site.instances().iter().map(|running| Door::new(running.executors.wallet.clone(), running)).collect();
    offering(&offers, doors, site.outside()).await;
    let took = started.elapsed();
    while offers.waiting.load(Ordering::Acquire) > 0 && Instant::now() < offers.over + GRACE {
        tokio::time::sleep(EVERY).await;
    }
    let tally = std::mem::take(&mut *offers.tally());
    Flood { tally, took, in_time: offers.in_time.load(Ordering::Relaxed) }
}

/// Begins to offer, in a thread of its own; ends with it. What is handed over is carried `on` the callers' threads.
fn offering(offers: &Arc<Offers>, doors: Vec<Arc<Door>>, on: &Handle) -> impl Future<Output = ()> + use<> {
    for door in &doors {
        on.spawn(carry(offers.clone(), door.clone()));
    }
    let offers = offers.clone();
    let thread = tokio::task::spawn_blocking(move || offer_all(&offers, &doors));
    async {
        // One that fails has offered what the tally says.
        if let Err(error) = thread.await {
            tracing::error!(%error, "the offers ended before their time");
        }
    }
}

/// Offers whatever is due, whether or not anything is answered.
fn offer_all(offers: &Arc<Offers>, doors: &[Arc<Door>]) {
    // What is asked for is never handed over itself; several, because they go different ways.
    let asked: Vec<_> = (0..ASKED).map(|_| prepare(offers)).collect();
    let (mut offered, mut turned_away) = (0, 0);
    let pause = Duration::from_secs_f64(1.0 / offers.per_s.max(1.0));
    let mut due = Instant::now();
    while !doors.is_empty() && offered < OFFERS_MAX {
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
            let door = &doors[offered as usize % doors.len()];
            let request = &asked[offered as usize / doors.len() % asked.len()].request;
            offered += 1;
            if door.executor.turns_away(request) {
                turned_away += 1;
            } else {
                door.owed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    offers.turned_away(turned_away);
}

/// Hands over what is owed while offers are made.
async fn carry(offers: Arc<Offers>, door: Arc<Door>) {
    let (back, returned) = mpsc::channel();
    let mut next = None;
    while Instant::now() < offers.until {
        let (owed, mut turned_away) = (door.owed.swap(0, Ordering::Relaxed), 0);
        if owed == 0 {
            tokio::time::sleep(EVERY).await;
        }
        for carried in 1..=owed {
            let prepared = next.take().or_else(|| returned.try_recv().ok()).unwrap_or_else(|| prepare(&offers));
            if door.executor.turns_away(&prepared.request) {
                next = Some(prepared);
                turned_away += 1;
                continue;
            }
            offers.waiting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answered(offers.clone(), door.clone(), prepared, back.clone()));
            if carried % CARRIED_AT_ONCE == 0 {
                // They count once they have been handed over.
                tokio::task::yield_now().await;
            }
        }
        offers.turned_away(turned_away);
    }
    offers.turned_away(door.owed.swap(0, Ordering::Relaxed));
}

/// One command, to its outcome; what is turned away comes back.
async fn answered(offers: Arc<Offers>, door: Arc<Door>, prepared: Prepared, back: mpsc::Sender<Prepared>) {
    let sent = Instant::now();
    let key = IdempotencyKey { user: offers.users[prepared.at as usize], command: prepared.request.command_id };
    let told = async {
        match door.executor.execute(prepared.request.clone(), Deadline::after(door.wait)).await {
            Err(ExecuteError::Overloaded) => None,
            receipt => Some(outcome(receipt, door.ledger.as_ref(), key).await),
        }
    };
    let told = tokio::time::timeout_at(offers.over.into(), told).await;
    match told.unwrap_or_else(|_| Some(Answered::Failed("no answer before the run's end".to_owned()))) {
        Some(told) => {
            if Instant::now() < offers.until && matches!(told, Answered::Applied(_)) {
                offers.in_time.fetch_add(1, Ordering::Relaxed);
            }
            offers.tally().add(prepared.at, OVERLOAD.steps[0], told, sent.elapsed());
        }
        None => {
            offers.turned_away(1);
            // After the last offer nobody takes it.
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
