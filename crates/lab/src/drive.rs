//! Many callers at the same time, and the answers that they get.
//!
//! Jobs are dealt out to instances by their number and taken by that instance's callers as these become free. No job is
//! begun once the time of a run is over; commands that are then unanswered get a grace, and after it count as failed. So
//! a run always ends, even if a store or a lock hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boxoffice_domain::{DateId, ReservationId};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::caller::{Answered, Call, Caller, Person};
use super::workload::{Step, Workload};

/// The longest latency that is recorded as such, microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// The pause of a caller that was turned away, so that its retries do not load the strategy.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(10);

/// The jobs of a run.
pub(super) struct Task {
    pub(super) workload: Workload,
    pub(super) jobs: u32,
    pub(super) people: Vec<Person>,
    pub(super) date: DateId,
    /// Makes keys unique among runs.
    pub(super) name: String,
}

/// How long a run may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// After this no job is begun.
    pub(super) time: Duration,
    /// Beyond `time`: after this no answer is waited for.
    pub(super) grace: Duration,
}

/// One command that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// The index among the users.
    pub(super) person: u32,
    pub(super) step: Step,
    pub(super) id: Uuid,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: u32,
    pub(super) applied: Vec<Applied>,
    pub(super) refused: u32,
    pub(super) busy: u32,
    /// Rejected because too many waited; nothing was done.
    pub(super) turned_away: u32,
    /// Commands without an answer: the index among the users, and the step.
    pub(super) failed: Vec<(u32, Step)>,
    pub(super) first_failure: Option<String>,
    /// Of every answer, microseconds.
    latencies_us: Vec<u32>,
    /// From the first command to the last answer.
    pub(super) took: Duration,
    /// Whether every job was begun.
    pub(super) complete: bool,
}

impl Tally {
    pub(super) fn latencies(&self) -> Option<Latencies> {
        Latencies::of(&self.latencies_us)
    }

    pub(super) fn add(&mut self, person: u32, step: Step, answered: Answered, took: Duration) -> Option<Uuid> {
        self.sent += 1;
        if !matches!(answered, Answered::Failed(_) | Answered::TurnedAway) {
            self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
        match answered {
            Answered::Applied(id) => {
                self.applied.push(Applied { person, step, id });
                return Some(id);
            }
            Answered::Refused => self.refused += 1,
            Answered::Busy => {
                self.refused += 1;
                self.busy += 1;
            }
            Answered::TurnedAway => self.turned_away += 1,
            Answered::Failed(reason) => {
                self.failed.push((person, step));
                self.first_failure.get_or_insert(reason);
            }
        }
        None
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.applied.extend(other.applied);
        self.refused += other.refused;
        self.busy += other.busy;
        self.turned_away += other.turned_away;
        self.failed.extend(other.failed);
        self.latencies_us.extend(other.latencies_us);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// Percentiles of latencies, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latencies {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    /// `None` without any; a latency beyond [`LATENCY_US_MAX`] counts as that.
    pub(super) fn of(latencies_us: &[u32]) -> Option<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS).ok()?;
        for &latency in latencies_us {
            histogram.saturating_record(u64::from(latency));
        }
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self { p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99), max_ms: ms(histogram.max()) })
    }
}

/// Runs `task` by `callers`, as tasks `on` their threads; returns them in their order, with their connections open.
/// Caller `c` belongs to instance `c % instances`.
pub(super) async fn drive(task: Arc<Task>, callers: Vec<Caller>, instances: u32, limits: Limits, on: &Handle) -> (Tally, Vec<Caller>) {
    let lanes = instances.clamp(1, (callers.len() as u32).max(1));
    let taken: Arc<Vec<AtomicU32>> = Arc::new((0..lanes).map(|_| AtomicU32::new(0)).collect());
    let start = Arc::new(Barrier::new(callers.len() + 1));
    let mut running = JoinSet::new();
    for (at, mut caller) in callers.into_iter().enumerate() {
        let (task, taken, start) = (task.clone(), taken.clone(), start.clone());
        let calling = async move {
            start.wait().await;
            let tally = jobs_of(&task, at as u32 % lanes, &taken, &mut caller, limits).await;
            (at, tally, caller)
        };
        running.spawn_on(calling, on);
    }
    let started = Instant::now();
    start.wait().await;
    let (mut tally, mut callers) = (Tally::default(), Vec::new());
    while let Some(done) = running.join_next().await {
        match done {
            Ok((at, one, caller)) => {
                tally.merge(one);
                callers.push((at, caller));
            }
            Err(error) => {
                tally.first_failure.get_or_insert(format!("a caller failed: {error}"));
            }
        }
    }
    tally.took = started.elapsed();
    tally.complete = (0..lanes).all(|lane| job_at(lane, lanes, taken[lane as usize].load(Ordering::Relaxed)) >= task.jobs);
    // In order, so that each caller stays at its instance when the same callers are driven again.
    callers.sort_by_key(|(at, _)| *at);
    (tally, callers.into_iter().map(|(_, caller)| caller).collect())
}

fn job_at(lane: u32, lanes: u32, nth: u32) -> u32 {
    nth.saturating_mul(lanes).saturating_add(lane)
}

async fn jobs_of(task: &Task, lane: u32, taken: &[AtomicU32], caller: &mut Caller, limits: Limits) -> Tally {
    let mut tally = Tally::default();
    let over = Instant::now() + limits.time;
    let deadline = tokio::time::Instant::from_std(over + limits.grace);
    while Instant::now() < over {
        let job = job_at(lane, taken.len() as u32, taken[lane as usize].fetch_add(1, Ordering::Relaxed));
        if job >= task.jobs {
            // Given back, so that the count shows how many jobs were begun and cannot grow without bound.
            taken[lane as usize].fetch_sub(1, Ordering::Relaxed);
            break;
        }
        let at = task.workload.user_of(job);
        let Some(person) = task.people.get(at as usize) else { break };
        let mut held = None;
        for (nth, &step) in task.workload.steps.iter().enumerate() {
            if step == Step::Pay && held.is_none() {
                continue;
            }
            let key = format!("{}-{job}-{nth}", task.name);
            let call = Call { person, key: &key, step, date: task.date, seat: task.workload.seat_of(job), held };
            let sent = Instant::now();
            let answered = match tokio::time::timeout_at(deadline, caller.call(call)).await {
                Ok(answered) => answered,
                Err(_) => Answered::Failed("no answer before the run's end".to_owned()),
            };
            let turned_away = answered == Answered::TurnedAway;
            let id = tally.add(at, step, answered, sent.elapsed());
            if turned_away {
                tokio::time::sleep(TURNED_AWAY_PAUSE).await;
            }
            if matches!(step, Step::Hold | Step::HoldPair | Step::HoldBest) {
                held = id.map(ReservationId);
            }
        }
    }
    tally
}
