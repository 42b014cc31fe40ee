//! The other instances on the same store: each commit's seat changes are published to them at once, and theirs are
//! received.
//!
//! Publishing never delays a commit: it goes through a bounded queue to a task. Changes that do not fit, or cannot be
//! published, are dropped: the peers then find them by reading the store again. While the last attempt has failed, this
//! instance reads more often as well, since it may not receive messages either. To notice that, it publishes an empty
//! message every [`HEARTBEAT`] without a commit.
//!
//! *Bounds.* [`COMMITS_MAX`] commits wait to be published; one message carries [`SEATS_MAX`] seats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_domain::SeatChange;
use boxoffice_ports::{Fanout, FanoutListener, Source, Tasks, WhenFailing};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Commits that wait to be published. Beyond it they are dropped.
const COMMITS_MAX: usize = 1_024;
/// Seats in one message.
const SEATS_MAX: usize = 2_048;
/// After how long without a commit an empty message is published.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often the store is read again for what peers changed: seldom if they publish it, to find lost messages.
const READ_EVERY_PUBLISHED: Duration = Duration::from_secs(5);
const READ_EVERY_UNPUBLISHED: Duration = Duration::from_millis(500);

/// See the module's opening.
pub struct Peers {
    fanout: Option<Arc<dyn Fanout>>,
    commits: Option<mpsc::Sender<Vec<SeatChange>>>,
    /// Whether the last message was published, or none was yet.
    reached: Arc<AtomicBool>,
}

impl Peers {
    /// Starts the task that publishes, kept by `tasks`; it ends when this is dropped. Without a fan-out nothing is
    /// published.
    pub fn start(fanout: Option<Arc<dyn Fanout>>, tasks: &dyn Tasks) -> Arc<Self> {
        let reached = Arc::new(AtomicBool::new(true));
        let commits = fanout.clone().map(|fanout| {
            let (commits, waiting) = mpsc::channel(COMMITS_MAX);
            let (waiting, reached) = (Arc::new(Mutex::new(waiting)), reached.clone());
            let run = move || {
                let (fanout, waiting, reached) = (fanout.clone(), waiting.clone(), reached.clone());
                async move {
                    publish_all(&*fanout, &mut *waiting.lock().await, &reached).await;
                    Ok(())
                }
            };
            tasks.keep("siblings", WhenFailing::NotReady, run).detach();
            commits
        });
        Arc::new(Self { fanout, commits, reached })
    }

    /// Publishes what a commit changed, if there is room for it.
    pub(crate) fn publish(&self, changes: &[SeatChange]) {
        if let Some(commits) = self.commits.as_ref().filter(|_| !changes.is_empty()) {
            // Full: the peers find the changes by reading.
            let _ = commits.try_send(changes.to_vec());
        }
    }

    /// Receives what peers publish from now on; `None` without a fan-out.
    pub(crate) async fn listen(&self) -> Option<Result<Box<dyn FanoutListener>, Source>> {
        match &self.fanout {
            Some(fanout) => Some(fanout.listen().await),
            None => None,
        }
    }

    /// After how long the changes of peers are read again.
    pub(crate) fn read_again_after(&self) -> Duration {
        if self.fanout.is_some() && self.reached.load(Ordering::Relaxed) { READ_EVERY_PUBLISHED } else { READ_EVERY_UNPUBLISHED }
    }
}

async fn publish_all(fanout: &dyn Fanout, waiting: &mut mpsc::Receiver<Vec<SeatChange>>, reached: &AtomicBool) {
    let mut commits = Vec::new();
    // `Err`: there was no commit.
    while timeout(HEARTBEAT, waiting.recv_many(&mut commits, COMMITS_MAX)).await != Ok(0) {
        let changes: Vec<_> = commits.drain(..).flatten().collect();
        let heartbeat = changes.is_empty().then_some(&changes[..]);
        for some in changes.chunks(SEATS_MAX).chain(heartbeat) {
            let published = fanout.publish(some.to_vec()).await;
            let before = reached.swap(published.is_ok(), Ordering::Relaxed);
            match published {
                Err(error) if before => tracing::warn!(error, "seat changes could not be published; other instances find them by reading"),
                Ok(()) if !before => tracing::info!("seat changes are published to other instances again"),
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
        published: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl Fanout for Gated {
        async fn publish(&self, changes: Vec<SeatChange>) -> Result<(), Source> {
            self.gate.acquire().await?.forget();
            self.published.lock().unwrap().push(changes.len());
            if self.fails.load(Ordering::SeqCst) { Err("gone".into()) } else { Ok(()) }
        }

        async fn listen(&self) -> Result<Box<dyn FanoutListener>, Source> {
            Err("listening is not part of this test".into())
        }
    }

    fn gated(permits: usize) -> Arc<Gated> {
        Arc::new(Gated { gate: Semaphore::new(permits), fails: AtomicBool::new(false), published: Mutex::default() })
    }

    #[tokio::test]
    async fn queued_commits_are_published_together_and_in_bounded_messages() {
        let fanout = gated(0);
        let peers = Peers::start(Some(fanout.clone()), &*Supervisor::new());
        peers.publish(&changes(1..3));
        peers.publish(&[]);
        peers.publish(&changes(3..4));
        fanout.gate.add_permits(1);
        until(|| *fanout.published.lock().unwrap() == [3]).await;
        peers.publish(&changes(0..3_000));
        fanout.gate.add_permits(2);
        until(|| *fanout.published.lock().unwrap() == [3, 2_048, 952]).await;
    }

    #[tokio::test]
    async fn a_fanout_that_hangs_delays_no_commit() {
        let fanout = gated(0);
        let peers = Peers::start(Some(fanout.clone()), &*Supervisor::new());
        for _ in 0..5 * COMMITS_MAX {
            peers.publish(&changes(1..2));
        }
        fanout.gate.add_permits(100);
        until(|| !fanout.published.lock().unwrap().is_empty()).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let published: usize = fanout.published.lock().unwrap().iter().sum();
        assert!(published <= 2 * COMMITS_MAX, "what does not fit is dropped: {published}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_without_commits_notices_a_fanout_that_fails() {
        let fanout = gated(100);
        let peers = Peers::start(Some(fanout.clone()), &*Supervisor::new());
        fanout.fails.store(true, Ordering::SeqCst);
        tokio::time::sleep(2 * HEARTBEAT).await;
        assert_eq!(peers.read_again_after(), READ_EVERY_UNPUBLISHED);
        fanout.fails.store(false, Ordering::SeqCst);
        tokio::time::sleep(2 * HEARTBEAT).await;
        assert_eq!(peers.read_again_after(), READ_EVERY_PUBLISHED);
    }

    #[tokio::test]
    async fn while_publishing_fails_the_store_is_read_more_often() {
        assert_eq!(Peers::start(None, &*Supervisor::new()).read_again_after(), READ_EVERY_UNPUBLISHED);
        let fanout = gated(100);
        let peers = Peers::start(Some(fanout.clone()), &*Supervisor::new());
        assert_eq!(peers.read_again_after(), READ_EVERY_PUBLISHED);
        fanout.fails.store(true, Ordering::SeqCst);
        peers.publish(&changes(1..2));
        until(|| peers.read_again_after() == READ_EVERY_UNPUBLISHED).await;
        fanout.fails.store(false, Ordering::SeqCst);
        peers.publish(&changes(1..2));
        until(|| peers.read_again_after() == READ_EVERY_PUBLISHED).await;
    }
}
