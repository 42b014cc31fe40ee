//! Long-lived tasks, so that none ends unseen.

use std::future::Future;
use std::pin::Pin;

use crate::Source;

/// One run of a task. `Ok` is its end; an error, or a panic, is a failure.
pub type TaskRun = Pin<Box<dyn Future<Output = Result<(), Source>> + Send>>;

/// Makes the runs of a task: the first one, and another after each failure.
pub type TaskStart = Box<dyn FnMut() -> TaskRun + Send>;

/// What it means for the instance that a task fails repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFailing {
    /// It still serves: readiness names the task and stays good.
    Impaired,
    /// It cannot serve as promised: readiness names the task and is bad.
    NotReady,
}

/// Runs the long-lived tasks of an instance.
pub trait Tasks: Send + Sync {
    /// Runs `start` in the background, on the current tokio runtime. A run that fails or panics is logged and counted
    /// under `name`, and another one begins after a pause.
    fn start(&self, name: String, when_failing: WhenFailing, start: TaskStart) -> Kept;
}

impl dyn Tasks + '_ {
    /// [`Tasks::start`] for runs of any type.
    pub fn keep<R>(&self, name: impl Into<String>, when_failing: WhenFailing, mut start: impl FnMut() -> R + Send + 'static) -> Kept
    where
        R: Future<Output = Result<(), Source>> + Send + 'static,
    {
        self.start(name.into(), when_failing, Box::new(move || Box::pin(start())))
    }
}

/// A running task: dropping this ends it at its next await.
#[must_use = "dropping it ends the task"]
pub struct Kept(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Kept {
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(end)))
    }

    /// Lets the task go on until it ends by itself.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}
