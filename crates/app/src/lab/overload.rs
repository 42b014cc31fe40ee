//! Ten times more than can be answered: what is let in must still be answered in time, and refusing the rest must cost
//! nearly nothing.
//!
//! First the peak: callers who wait for each answer, by [`PEAK_CALLERS`] at once, and the highest rate of effects counts.
//! Then commands are offered at ten times that rate whether or not any are answered, by [`OFFERERS`] tasks on each
//! instance; whoever is told that a command was accepted asks for its outcome until there is one. Everything happens in
//! this process, which is why offering itself takes a part of the processor: the offered rate that is reported is what
//! was really offered.
//!
//! *Bounds.* At most [`WAITING_MAX`] commands wait for an outcome; while so many do nothing is offered, and the offered
//! rate shows it. After the last offer an answer may take as long as a command waits, and a grace; then it counts as
//! failed.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use boxoffice_domain::{Command, IdempotencyKey, UserId};
use boxoffice_ports::{ExecuteError, Executor, Ledger, Receipt};
use tokio::task::JoinSet;

use super::LabError;
use super::caller::{Answered, keyed, outcome};
use super::drive::{Limits, Tally, Task, drive};
use super::effects::{self, Effects};
use super::entrant::Entrant;
use super::report::{Overload, Via};
use super::run::GRACE;
use super::site::Site;
use super::workload::{COMMANDS_MAX, OVERLOAD, Step};
use crate::wiring::SystemIds;

const TIMES: f64 = 10.0;
/// One after the other, on all instances together.
const PEAK_CALLERS: [u32; 3] = [100, 1_000, 4_000];
/// On each instance.
const OFFERERS: u32 = 2;
/// Offers are made for so many times what a command waits at most: whatever grows has time to show.
const WAITS: u32 = 3;
/// How often offers are made that are due.
const EVERY: Duration = Duration::from_millis(1);
/// What has not been offered for so long is not offered any more.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Offers between two looks at the time.
const OFFERS_AT_ONCE: u32 = 32;
const WAITING_MAX: usize = 100_000;
/// The most offers of one run.
const OFFERS_MAX: u32 = 20_000_000;

/// Measures one strategy. `time` is that of each of the runs that look for the peak.
pub(super) async fn overload(site: &Site, entrant: Entrant, time: Duration) -> Result<Overload, LabError> {
    let (mut peak_per_s, mut peak_callers) = (0.0, 0);
    for callers in PEAK_CALLERS {
        let per_s = peak(site, callers, time).await?;
        if per_s > peak_per_s {
            (peak_per_s, peak_callers) = (per_s, callers);
        }
    }
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
    Ok(record(entrant, (peak_per_s, peak_callers), site.settings().strategy.wait_ms, flood, effects))
}

/// Effects a second that so many callers bring about.
async fn peak(site: &Site, callers: u32, time: Duration) -> Result<f64, LabError> {
    let people = site.people(&OVERLOAD, OVERLOAD.user_count(COMMANDS_MAX), Via::Process).await?;
    let date = boxoffice_domain::DateId(Default::default());
    let task = Task { workload: OVERLOAD, jobs: COMMANDS_MAX, people, date, name: format!("peak-{callers}") };
    let limits = Limits { time, grace: site.settings().strategy.wait() + GRACE };
    let (tally, _) = drive(Arc::new(task), site.callers(Via::Process, callers), site.instances().len() as u32, limits).await;
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
    next: AtomicU32,
    waiting: AtomicUsize,
    in_time: AtomicU32,
    tally: Mutex<Tally>,
}

type Offer = Pin<Box<dyn Future<Output = Result<Receipt, ExecuteError>> + Send>>;

async fn flood(site: &Site, users: Arc<[UserId]>, per_s: f64) -> Flood {
    let wait = site.settings().strategy.wait();
    let started = Instant::now();
    let until = started + wait * WAITS;
    let offers = Arc::new(Offers {
        users,
        per_s: per_s / f64::from(OFFERERS * site.instances().len().max(1) as u32),
        until,
        over: until + wait + GRACE,
        next: AtomicU32::new(0),
        waiting: AtomicUsize::new(0),
        in_time: AtomicU32::new(0),
        tally: Mutex::default(),
    });
    let mut offerers = JoinSet::new();
    for running in site.instances() {
        for _ in 0..OFFERERS {
            offerers.spawn(offer(offers.clone(), running.executors.wallet.clone(), running.stores.ledger.clone()));
        }
    }
    while offerers.join_next().await.is_some() {}
    let took = started.elapsed();
    while offers.waiting.load(Ordering::Acquire) > 0 && Instant::now() < offers.over + GRACE {
        tokio::time::sleep(EVERY).await;
    }
    let tally = std::mem::take(&mut *offers.tally.lock().unwrap_or_else(PoisonError::into_inner));
    Flood { tally, took, in_time: offers.in_time.load(Ordering::Relaxed) }
}

/// Offers its share, whether or not it is answered.
async fn offer(offers: Arc<Offers>, executor: Arc<dyn Executor>, ledger: Arc<dyn Ledger>) {
    let mut turned_away = Tally::default();
    let mut due = Instant::now();
    let pause = Duration::from_secs_f64(1.0 / offers.per_s.max(1.0));
    loop {
        let now = Instant::now();
        if now >= offers.until || offers.next.load(Ordering::Relaxed) >= OFFERS_MAX {
            break;
        }
        due = due.max(now.checked_sub(LATE_MAX).unwrap_or(due));
        if due > now || offers.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            tokio::time::sleep(EVERY).await;
            continue;
        }
        for _ in 0..OFFERS_AT_ONCE {
            one(&offers, &executor, &ledger, &mut turned_away).await;
            due += pause;
        }
        tokio::task::yield_now().await;
    }
    offers.tally.lock().unwrap_or_else(PoisonError::into_inner).merge(turned_away);
}

/// One command. What is refused at once costs no task.
async fn one(offers: &Arc<Offers>, executor: &Arc<dyn Executor>, ledger: &Arc<dyn Ledger>, turned_away: &mut Tally) {
    let [Step::Charge(amount)] = *OVERLOAD.steps else { return };
    let (number, sent) = (offers.next.fetch_add(1, Ordering::Relaxed), Instant::now());
    let at = OVERLOAD.user_of(number);
    let Some(&user) = offers.users.get(at as usize) else { return };
    let request = keyed(&SystemIds, user, &format!("overload-{number}"), Command::ChargeWallet { user, amount });
    let key = IdempotencyKey { user, command: request.command_id };
    let executor = executor.clone();
    let mut answer: Offer = Box::pin(async move { executor.execute(request).await });
    let first = std::future::poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
    let first = match first {
        Poll::Ready(Err(ExecuteError::Overloaded)) => {
            turned_away.add(at, OVERLOAD.steps[0], Answered::TurnedAway, sent.elapsed());
            return;
        }
        Poll::Ready(receipt) => Some(receipt),
        Poll::Pending => None,
    };
    offers.waiting.fetch_add(1, Ordering::Relaxed);
    let (offers, ledger) = (offers.clone(), ledger.clone());
    tokio::spawn(async move {
        let told = async {
            let receipt = match first {
                Some(receipt) => receipt,
                None => answer.await,
            };
            outcome(receipt, ledger.as_ref(), key).await
        };
        let told = tokio::time::timeout_at(offers.over.into(), told).await;
        let told = told.unwrap_or_else(|_| Answered::Failed("no answer before the run's end".to_owned()));
        if Instant::now() < offers.until && matches!(told, Answered::Applied(_)) {
            offers.in_time.fetch_add(1, Ordering::Relaxed);
        }
        offers.tally.lock().unwrap_or_else(PoisonError::into_inner).add(at, OVERLOAD.steps[0], told, sent.elapsed());
        offers.waiting.fetch_sub(1, Ordering::Release);
    });
}

fn record(entrant: Entrant, (peak_per_s, peak_callers): (f64, u32), wait_ms: u64, flood: Flood, effects: Effects) -> Overload {
    let Flood { tally, took, in_time } = flood;
    let rate = |count: u32| f64::from(count) / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let answered_per_s = rate(in_time);
    Overload {
        strategy: entrant.strategy.name(),
        partitions: entrant.partitions,
        peak_per_s,
        peak_callers,
        seconds: took.as_secs_f64(),
        offered: tally.sent,
        offered_per_s: rate(tally.sent),
        answered_per_s,
        share_of_peak: if peak_per_s > 0.0 { answered_per_s / peak_per_s } else { 0.0 },
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
