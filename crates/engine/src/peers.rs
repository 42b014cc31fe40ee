//! The other instances on the same store: they are told of each commit at once, and what they tell is heard.
//!
//! Telling never delays a commit: it goes through a bounded queue to a task. What does not fit, or cannot be handed
//! over, is not told; then the others find out by reading again, and for as long as the last attempt failed this
//! instance reads more often as well, since it may not hear either. Whoever has nothing to tell sends an empty message
//! every [`HEARTBEAT`], to notice.
//!
//! *Bounds.* [`COMMITS_MAX`] commits wait to be told of; one message carries [`SEATS_MAX`] seats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_domain::SeatChange;
use boxoffice_ports::{Fanout, Listener, Source, Tasks, WhenFailing};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Commits that wait to be told of, at most. Beyond it they are not told.
const COMMITS_MAX: usize = 1_024;
/// Seats in one message, at most.
const SEATS_MAX: usize = 2_048;
/// After how long without a commit an empty message is sent.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often the store is read again for what others changed: when they tell it, only for what was not heard.
const EVERY_TOLD: Duration = Duration::from_secs(5);
const EVERY_UNTOLD: Duration = Duration::from_millis(500);

/// See the module's opening.
pub struct Siblings {
    fanout: Option<Arc<dyn Fanout>>,
    commits: Option<mpsc::Sender<Vec<SeatChange>>>,
    /// Whether the last message was handed over, or none was sent yet.
    reached: Arc<AtomicBool>,
}

impl Siblings {
    /// Starts the task that tells them, kept by `tasks`; it ends when this is dropped. Without a fan-out nobody is told
    /// anything.
    pub fn start(fanout: Option<Arc<dyn Fanout>>, tasks: &dyn Tasks) -> Arc<Self> {
        let reached = Arc::new(AtomicBool::new(true));
        let commits = fanout.clone().map(|fanout| {
            let (commits, waiting) = mpsc::channel(COMMITS_MAX);
            let (waiting, reached) = (Arc::new(Mutex::new(waiting)), reached.clone());
            let run = move || {
                let (fanout, waiting, reached) = (fanout.clone(), waiting.clone(), reached.clone());
                async move {
                    tell_all(&*fanout, &mut *waiting.lock().await, &reached).await;
                    Ok(())
                }
            };
            tasks.keep("siblings", WhenFailing::NotReady, run).detach();
            commits
        });
        Arc::new(Self { fanout, commits, reached })
    }

    /// Tells what a commit changed, if there is room for it.
    pub(crate) fn tell(&self, changes: &[SeatChange]) {
        if let Some(commits) = self.commits.as_ref().filter(|_| !changes.is_empty()) {
            // Full: the others read it.
            let _ = commits.try_send(changes.to_vec());
        }
    }

    /// Hears what they tell from now on; `None` where nobody is told anything.
    pub(crate) async fn listen(&self) -> Option<Result<Box<dyn Listener>, Source>> {
        match &self.fanout {
            Some(fanout) => Some(fanout.listen().await),
            None => None,
        }
    }

    /// How long what they changed may go unread.
    pub(crate) fn read_again_after(&self) -> Duration {
        if self.fanout.is_some() && self.reached.load(Ordering::Relaxed) { EVERY_TOLD } else { EVERY_UNTOLD }
    }
}

async fn tell_all(fanout: &dyn Fanout, waiting: &mut mpsc::Receiver<Vec<SeatChange>>, reached: &AtomicBool) {
    let mut commits = Vec::new();
    // `Err`: nobody has committed anything.
    while timeout(HEARTBEAT, waiting.recv_many(&mut commits, COMMITS_MAX)).await != Ok(0) {
        let changes: Vec<_> = commits.drain(..).flatten().collect();
        let heartbeat = changes.is_empty().then_some(&changes[..]);
        for some in changes.chunks(SEATS_MAX).chain(heartbeat) {
            let told = fanout.tell(some.to_vec()).await;
            let before = reached.swap(told.is_ok(), Ordering::Relaxed);
            match told {
                Err(error) if before => tracing::warn!(error, "other instances are not told of commits; they have to read again"),
                Ok(()) if !before => tracing::info!("other instances are told of commits again"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Supervisor;
    use crate::testing::{key, until};
    use async_trait::async_trait;
    use boxoffice_domain::SeatState;
    use std::sync::Mutex;
    use tokio::sync::Semaphore;

    fn changes(numbers: std::ops::Range<u32>) -> Vec<SeatChange> {
        numbers.map(|number| SeatChange { key: key(number), version: 1, state: SeatState::Available }).collect()
    }

    struct Gated {
        gate: Semaphore,
        fails: AtomicBool,
        told: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Fanout for Gated {
        async fn tell(&self, changes: Vec<SeatChange>) -> Result<(), Source> {
            self.gate.acquire().await?.forget();
            self.told.lock().unwrap().push(changes.len());
            if self.fails.load(Ordering::SeqCst) { Err("gone".into()) } else { Ok(()) }
        }

        async fn listen(&self) -> Result<Box<dyn Listener>, Source> {
            Err("nobody listens here".into())
        }
    }

    fn gated(permits: usize) -> Arc<Gated> {
        Arc::new(Gated { gate: Semaphore::new(permits), fails: AtomicBool::new(false), told: Mutex::default() })
    }

    #[tokio::test]
    async fn what_queued_is_told_together_and_in_bounded_messages() {
        let fanout = gated(0);
        let siblings = Siblings::start(Some(fanout.clone()), &*Supervisor::new());
        siblings.tell(&changes(1..3));
        siblings.tell(&[]);
        siblings.tell(&changes(3..4));
        fanout.gate.add_permits(1);
        until(|| *fanout.told.lock().unwrap() == [3]).await;
        siblings.tell(&changes(0..3_000));
        fanout.gate.add_permits(2);
        until(|| *fanout.told.lock().unwrap() == [3, 2_048, 952]).await;
    }

    #[tokio::test]
    async fn a_fanout_that_hangs_holds_nobody_up() {
        let fanout = gated(0);
        let siblings = Siblings::start(Some(fanout.clone()), &*Supervisor::new());
        for _ in 0..5 * COMMITS_MAX {
            siblings.tell(&changes(1..2));
        }
        fanout.gate.add_permits(100);
        until(|| !fanout.told.lock().unwrap().is_empty()).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let told: usize = fanout.told.lock().unwrap().iter().sum();
        assert!(told <= 2 * COMMITS_MAX, "what does not fit is not told: {told}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_nothing_to_tell_notices_too() {
        let fanout = gated(100);
        let siblings = Siblings::start(Some(fanout.clone()), &*Supervisor::new());
        fanout.fails.store(true, Ordering::SeqCst);
        tokio::time::sleep(2 * HEARTBEAT).await;
        assert_eq!(siblings.read_again_after(), EVERY_UNTOLD);
        fanout.fails.store(false, Ordering::SeqCst);
        tokio::time::sleep(2 * HEARTBEAT).await;
        assert_eq!(siblings.read_again_after(), EVERY_TOLD);
    }

    #[tokio::test]
    async fn what_cannot_be_told_is_read_more_often() {
        assert_eq!(Siblings::start(None, &*Supervisor::new()).read_again_after(), EVERY_UNTOLD);
        let fanout = gated(100);
        let siblings = Siblings::start(Some(fanout.clone()), &*Supervisor::new());
        assert_eq!(siblings.read_again_after(), EVERY_TOLD);
        fanout.fails.store(true, Ordering::SeqCst);
        siblings.tell(&changes(1..2));
        until(|| siblings.read_again_after() == EVERY_UNTOLD).await;
        fanout.fails.store(false, Ordering::SeqCst);
        siblings.tell(&changes(1..2));
        until(|| siblings.read_again_after() == EVERY_TOLD).await;
    }
}
