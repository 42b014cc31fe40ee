//! The supervisor of an instance: every long-lived task belongs to it, so that none ends in silence.
//!
//! A task is a name and a factory of runs. A run that returns has ended, since its owner is gone or the server stops. A
//! run that panics or returns an error has failed: that is logged with the name and counted. Another run begins after a
//! pause, [`PAUSE`] at first and twice as long each time up to [`PAUSE_MAX`]. What a task must not lose (the receiving
//! end of its queue) belongs to the factory, not to one run: the next run serves what has queued up. What a run has in
//! hand is dropped with it, and the callers that wait for it get an error at once.
//!
//! *Readiness.* One failure is repaired by the next run and shows in the counter alone. A task that fails again before
//! it has run for [`STEADY`] is failing, until it has. `/health/ready` names failing tasks. Whether it is 503 then
//! depends on what each task was started with ([`WhenFailing`]).
//!
//! *Locks.* One mutex over the table of tasks, one in each task; neither is held across an await.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use boxoffice_ports::{Kept, Source, TaskStart, Tasks, WhenFailing};
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::sync::lock;

/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A run of this length clears the failures before it.
const STEADY: Duration = Duration::from_secs(60);
/// A task is failing after so many failures without a run of [`STEADY`] between them.
const FAILURES_MAX: u32 = 2;

/// See the module's opening.
#[derive(Debug)]
pub struct Supervisor {
    table: Arc<Mutex<Table>>,
    /// Set when the server stops: from then on no task is started again.
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    tasks: BTreeMap<u64, Arc<Task>>,
    /// By name, including tasks that have ended.
    restarts: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Task {
    name: String,
    when_failing: WhenFailing,
    state: Mutex<State>,
    struck: Notify,
}

#[derive(Debug)]
struct State {
    runs: bool,
    /// When the last run began.
    since: Instant,
    /// Since the last run of [`STEADY`].
    failures: u32,
}

/// The state of the tasks of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFigures {
    pub name: String,
    /// All of them run, and none of them is failing.
    pub up: bool,
    pub restarts: u64,
}

/// A task that is failing: see the module's opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingTask {
    pub name: String,
    pub when_failing: WhenFailing,
    pub failures: u32,
}

impl Supervisor {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { table: Arc::default(), closing: watch::Sender::new(false) })
    }

    /// The tasks that are failing.
    pub fn failing(&self) -> Vec<FailingTask> {
        let tasks = self.tasks();
        let failing = tasks.iter().filter_map(|task| {
            let failures = task.failures();
            (failures > 0).then(|| FailingTask { name: task.name.clone(), when_failing: task.when_failing, failures })
        });
        failing.collect()
    }

    /// By name.
    pub fn figures(&self) -> Vec<TaskFigures> {
        let mut up = BTreeMap::new();
        for task in self.tasks() {
            *up.entry(task.name.clone()).or_insert(true) &= task.is_up();
        }
        let table = lock(&self.table);
        let restarts = |name: &String| table.restarts.get(name).copied().unwrap_or_default();
        up.into_iter().map(|(name, up)| TaskFigures { restarts: restarts(&name), name, up }).collect()
    }

    /// Makes the tasks of this name panic where they wait, as a defect would: for drills. Returns how many there are.
    pub fn strike(&self, name: &str) -> usize {
        let struck = self.tasks().into_iter().filter(|task| task.name == name);
        struck.inspect(|task| task.struck.notify_one()).count()
    }

    /// The server stops: a run that fails from now on is the last of its task.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        lock(&self.table).tasks.values().cloned().collect()
    }
}

impl Tasks for Supervisor {
    fn start(&self, name: String, when_failing: WhenFailing, start: TaskStart) -> Kept {
        let state = State { runs: true, since: Instant::now(), failures: 0 };
        let task = Arc::new(Task { name, when_failing, state: Mutex::new(state), struck: Notify::new() });
        let registration = {
            let mut table = lock(&self.table);
            table.next += 1;
            let id = table.next;
            table.tasks.insert(id, task.clone());
            Registration { id, table: Arc::downgrade(&self.table) }
        };
        let running = tokio::spawn(supervise(task, start, registration, self.closing.subscribe())).abort_handle();
        Kept::new(move || running.abort())
    }
}

/// A task's row in the table, removed when the task ends, also by a panic.
struct Registration {
    id: u64,
    table: Weak<Mutex<Table>>,
}

impl Registration {
    fn restarted(&self, name: &str) {
        if let Some(table) = self.table.upgrade() {
            *lock(&table).restarts.entry(name.to_owned()).or_default() += 1;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            lock(&table).tasks.remove(&self.id);
        }
    }
}

async fn supervise(task: Arc<Task>, mut start: TaskStart, registration: Registration, mut closing: watch::Receiver<bool>) {
    loop {
        let run = AssertUnwindSafe(async {
            tokio::select! {
                biased;
                () = task.struck.notified() => panic!("the task was struck"),
                ended = start() => ended,
            }
        });
        let error: Source = match run.catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => format!("the task panicked: {}", message(&*panic)).into(),
        };
        let (failures, pause) = task.failed();
        tracing::error!(error, task = task.name, failures, "a task failed; it is started again after a pause");
        tokio::select! {
            () = sleep(pause) => {}
            // Also when the supervisor is gone: the next failure would go unseen.
            _ = closing.wait_for(|closing| *closing) => return,
        }
        registration.restarted(&task.name);
        task.began();
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl Task {
    fn began(&self) {
        let mut state = lock(&self.state);
        (state.runs, state.since) = (true, Instant::now());
    }

    /// How often it has failed since its last run of [`STEADY`], and how long to pause.
    fn failed(&self) -> (u32, Duration) {
        let mut state = lock(&self.state);
        if state.since.elapsed() >= STEADY {
            state.failures = 0;
        }
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(state.failures)).min(PAUSE_MAX);
        state.failures = state.failures.saturating_add(1);
        state.runs = false;
        (state.failures, pause)
    }

    /// How often it has failed, if it is failing.
    fn failures(&self) -> u32 {
        let state = lock(&self.state);
        let is_steady = state.runs && state.since.elapsed() >= STEADY;
        if state.failures < FAILURES_MAX || is_steady { 0 } else { state.failures }
    }

    fn is_up(&self) -> bool {
        lock(&self.state).runs && self.failures() == 0
    }
}

#[cfg(test)]
mod tests;
