//! Work that many callers ask for at once and that is done once for all of them.
//!
//! A caller wants an outcome that is not older than its call. It gets that of the first run that began after its call:
//! its own, or another caller's. So runs follow one another, never two at a time, and a crowd of any size costs two.
//!
//! *Failure.* A run that fails has failed for all callers that waited for it; the next caller begins another. A caller
//! that goes away in the middle of its run leaves the work to one of those that wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use boxoffice_ports::StoreError;
use tokio::sync::{MutexGuard, watch};

use crate::sync::lock;

/// See the module's opening.
#[derive(Debug, Default)]
pub(crate) struct Coalesced<T> {
    running: tokio::sync::Mutex<()>,
    /// How many runs have begun.
    begun: AtomicU64,
    /// The last run that ended, and its outcome.
    ended: Mutex<(u64, Option<Result<T, Failed>>)>,
    /// Notified whenever a run has ended.
    idle: watch::Sender<()>,
}

/// A failure that several callers get.
#[derive(Clone, Debug)]
struct Failed {
    unavailable: bool,
    reason: String,
}

impl From<&StoreError> for Failed {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => Self { unavailable: true, reason: source.to_string() },
            StoreError::Broken(source) => Self { unavailable: false, reason: source.to_string() },
        }
    }
}

impl From<Failed> for StoreError {
    fn from(Failed { unavailable, reason }: Failed) -> Self {
        if unavailable { Self::Unavailable(reason.into()) } else { Self::Broken(reason.into()) }
    }
}

/// The right to run. It is released on every path, and then the waiting callers are woken.
struct RunGuard<'a> {
    lock: Option<MutexGuard<'a, ()>>,
    idle: &'a watch::Sender<()>,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        // In this order: a caller that is woken while the lock is still held would wait for ever.
        self.lock.take();
        self.idle.send_modify(|()| ());
    }
}

impl<T: Clone> Coalesced<T> {
    /// The outcome of a run that began after this call.
    pub(crate) async fn run<F>(&self, work: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.run_after(std::future::ready(()), work).await
    }

    /// The same. Each run begins only when `pause` is over, and serves the callers that come meanwhile.
    pub(crate) async fn run_after<F>(&self, pause: impl Future<Output = ()>, work: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut idle = self.idle.subscribe();
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let guard = loop {
            idle.mark_unchanged();
            if let Some(outcome) = self.outcome(wanted) {
                return outcome.map_err(StoreError::from);
            }
            match self.running.try_lock() {
                Ok(running) => break RunGuard { lock: Some(running), idle: &self.idle },
                // The sender lives as long as this does.
                Err(_) => drop(idle.changed().await),
            }
        };
        // Another run may have ended between the look at its outcome and the lock.
        if let Some(outcome) = self.outcome(wanted) {
            return outcome.map_err(StoreError::from);
        }
        pause.await;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work().await;
        let shared = outcome.as_ref().map(T::clone).map_err(Failed::from);
        *lock(&self.ended) = (number, Some(shared));
        drop(guard);
        outcome
    }

    /// How many runs have begun.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Callers that have not returned.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.idle.receiver_count()
    }

    fn outcome(&self, wanted: u64) -> Option<Result<T, Failed>> {
        let ended = lock(&self.ended);
        if ended.0 >= wanted { ended.1.clone() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Semaphore;

    /// Work that waits for a permit each time, and counts.
    #[derive(Default)]
    struct Work {
        runs: Coalesced<usize>,
        begun: AtomicUsize,
        fails: std::sync::atomic::AtomicBool,
    }

    impl Work {
        async fn ask(&self, gate: &Semaphore) -> Result<usize, StoreError> {
            self.runs
                .run(async || {
                    let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.acquire().await.unwrap().forget();
                    if self.fails.load(Ordering::SeqCst) { Err(StoreError::Unavailable("gone".into())) } else { Ok(number) }
                })
                .await
        }
    }

    fn crowd(work: &Arc<Work>, gate: &Arc<Semaphore>, size: usize) -> Vec<tokio::task::JoinHandle<Result<usize, StoreError>>> {
        let ask = |_| {
            let (work, gate) = (work.clone(), gate.clone());
            tokio::spawn(async move { work.ask(&gate).await })
        };
        (0..size).map(ask).collect()
    }

    async fn come(work: &Work, waiting: usize) {
        crate::testing::until(|| work.runs.waiting() == waiting).await;
    }

    #[tokio::test]
    async fn a_crowd_gets_the_first_run_that_began_after_it_came() {
        let (work, gate) = (Arc::<Work>::default(), Arc::new(Semaphore::new(0)));
        let early = crowd(&work, &gate, 1);
        crate::testing::until(|| work.begun.load(Ordering::SeqCst) == 1).await;
        let late = crowd(&work, &gate, 500);
        come(&work, 501).await;
        gate.add_permits(1_000);
        for one in early {
            assert_eq!(one.await.unwrap().unwrap(), 1);
        }
        for one in late {
            assert_eq!(one.await.unwrap().unwrap(), 2, "the run that was under way may have read before the crowd came");
        }
        assert_eq!(work.begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_reaches_all_callers_that_waited_for_it_and_no_others() {
        let (work, gate) = (Arc::<Work>::default(), Arc::new(Semaphore::new(0)));
        work.fails.store(true, Ordering::SeqCst);
        let all = crowd(&work, &gate, 20);
        come(&work, 20).await;
        gate.add_permits(100);
        for one in all {
            assert!(matches!(one.await.unwrap(), Err(StoreError::Unavailable(_))));
        }
        let runs = work.begun.load(Ordering::SeqCst);
        assert!(runs <= 2, "{runs}");
        work.fails.store(false, Ordering::SeqCst);
        assert_eq!(work.ask(&gate).await.unwrap(), runs + 1);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_work_to_another() {
        let (work, gate) = (Arc::<Work>::default(), Arc::new(Semaphore::new(0)));
        let leader = crowd(&work, &gate, 1);
        crate::testing::until(|| work.begun.load(Ordering::SeqCst) == 1).await;
        let waiting = crowd(&work, &gate, 3);
        come(&work, 4).await;
        leader.into_iter().for_each(|one| one.abort());
        gate.add_permits(1);
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap(), 2);
        }
    }
}
