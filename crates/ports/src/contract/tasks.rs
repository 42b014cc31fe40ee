//! Long-lived tasks under test: what fails is started again soon, and fails when a test makes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::{Kept, TaskStart, Tasks, WhenFailing};

const PAUSE: Duration = Duration::from_millis(10);

/// See the module's opening.
#[derive(Default)]
pub struct TestTasks {
    known: Mutex<Vec<Arc<Known>>>,
}

struct Known {
    name: String,
    struck: Notify,
    failures: Mutex<usize>,
}

/// None is known yet.
pub fn supervisor() -> Arc<TestTasks> {
    Arc::default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestTasks {
    /// Ends the runs of the tasks whose names begin so, where they wait, as a panic would. How many there are.
    pub fn strike(&self, name: &str) -> usize {
        let known = lock(&self.known);
        known.iter().filter(|task| task.name.starts_with(name)).inspect(|task| task.struck.notify_one()).count()
    }

    /// How many runs of those tasks have failed.
    pub fn failures(&self, name: &str) -> usize {
        lock(&self.known).iter().filter(|task| task.name.starts_with(name)).map(|task| *lock(&task.failures)).sum()
    }
}

impl Tasks for TestTasks {
    fn start(&self, name: String, _: WhenFailing, mut start: TaskStart) -> Kept {
        let task = Arc::new(Known { name, struck: Notify::new(), failures: Mutex::default() });
        lock(&self.known).push(task.clone());
        let running = tokio::spawn(async move {
            loop {
                // It ends with the set when this is ended.
                let mut run = JoinSet::new();
                run.spawn(start());
                let is_over = tokio::select! {
                    ended = run.join_next() => matches!(ended, Some(Ok(Ok(())))),
                    () = task.struck.notified() => false,
                };
                if is_over {
                    return;
                }
                drop(run);
                *lock(&task.failures) += 1;
                sleep(PAUSE).await;
            }
        });
        let ending = running.abort_handle();
        Kept::new(move || ending.abort())
    }
}
