//! `pubsub`: the same lock; a waiter sleeps until it is notified of the holder's release.
//!
//! Giving back publishes on the key's channel, in the script that deletes the key. In each process only the head of a
//! key's queue waits ([`super::queue`]), so a release wakes one caller in each process. A waiter subscribes before its
//! second try. So no release between its tries is missed: either a message comes after the try began, or the try succeeds.
//!
//! A message is a hint and may be lost: Redis drops it for a subscriber that is just connecting, and a holder that crashed
//! sends none. So a waiter polls every [`FALLBACK_POLL`] anyway.
//!
//! *Round trips.* One to take. If it is refused, one to subscribe, unless this process has already, and one try for each
//! release. One to give back, its message included. *Bounds*: `wait`, and the last try may take one more round trip.
//! *Crash*: see [`super::lock`]; the waiters' next poll after the key's expiry finds it free.

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError, Tasks};
use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::connect::Redis;
use super::failure::Failure;
use super::lock::{LockAttempt, Locks, Tried, WaitMode};
use super::queue::LocalQueue;
use super::releases::{Releases, Subscription};
use crate::pause::jittered;

/// How long a lost message can go unnoticed; at most a few commands a second from each process.
const FALLBACK_POLL: Duration = Duration::from_millis(200);
/// The first pause after a try that failed; no message ends it.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long it yields to other processes; the message has reached them once the release was answered.
const YIELD: Duration = Duration::from_millis(3);

/// See the module's opening.
pub struct PubSubLock {
    locks: Locks,
    queue: LocalQueue,
    releases: Releases,
}

impl PubSubLock {
    /// `lease` is how long a lock outlives a holder that is gone. Starts a task for the subscriptions, kept by `tasks`; it
    /// ends with the lock.
    pub fn start(redis: Redis, lease: Duration, tasks: &dyn Tasks) -> Self {
        let releases = Releases::start(redis.clone(), tasks);
        Self { locks: Locks::new(redis, lease, WaitMode::Subscribing), queue: LocalQueue::new(YIELD), releases }
    }

    /// The subscription to the `at`-th key, the one that was refused.
    async fn subscribe(&self, attempt: &LockAttempt, at: usize, deadline: Instant) -> (usize, Subscription) {
        let mut subscription = self.releases.subscription(attempt.name(at));
        subscription.confirmed(deadline).await;
        (at, subscription)
    }
}

#[async_trait]
impl Lock for PubSubLock {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        let head = self.queue.enter(&keys, owner, deadline).await.map_err(|error| self.locks.never_head(error))?;
        let deadline = deadline.instant();
        let claim = self.locks.claim(&keys, owner, Some(head));
        let mut backoff = Backoff::new(FAILURE_PAUSE_MIN, FALLBACK_POLL);
        let mut subscribed: Option<(usize, Subscription)> = None;
        loop {
            if let Some((_, subscription)) = &mut subscribed {
                subscription.mark();
            }
            let tried: Result<Tried, Failure> = claim.held().take().await;
            match (&tried, &mut subscribed) {
                (Ok(Tried::Taken(until)), _) => return Ok(Box::new(claim.into_lease(*until, self.locks.ttl()))),
                (Ok(Tried::Refused { same_command: true, .. }), _) => return Err(Tried::refusal(&tried)),
                _ if Instant::now() >= deadline => return Err(Tried::refusal(&tried)),
                (Ok(Tried::Refused { at, .. }), Some((to, subscription))) if to == at => {
                    let poll = Instant::now() + jittered(FALLBACK_POLL);
                    // After a message or at the poll: the next step is the same.
                    let _ = timeout_at(poll.min(deadline), subscription.notified()).await;
                }
                (Ok(Tried::Refused { at, .. }), _) => subscribed = Some(self.subscribe(claim.held(), *at, deadline).await),
                (Err(_), _) => {
                    backoff.pause(deadline).await;
                }
            }
        }
    }
}
