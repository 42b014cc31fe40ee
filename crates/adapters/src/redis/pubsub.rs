//! `pubsub`: the same lock; whoever waits sleeps until the holder's release is told.
//!
//! Giving back publishes on the key's channel, in the script that deletes the key. In each process only the head of a
//! key's line waits ([`super::queue`]), so a release wakes one caller a process. A waiter listens before its second
//! try, so that a release between its tries is heard: by a message that came after the try began, or by the try.
//!
//! A message is a hint and may be lost: Redis forgets it where a subscriber is just connecting, and a holder that
//! crashed tells nothing. So whoever waits asks every [`FALLBACK_POLL`] anyway.
//!
//! *Round trips.* One to take; when it is refused one to listen, unless this process does already, and one try a
//! release; one to give back, its publication included. *Bounds*: as `wait` says, the last try may take one more round
//! trip. *Crash*: see [`super::lock`]; the waiters' next poll after the key's expiry finds it free.

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError, Tasks};
use tokio::time::{Instant, timeout_at};

use super::connect::{Failure, Redis};
use super::lease::Backoff;
use super::lock::{Locks, Ticket, Tried, Waiting};
use super::queue::LocalQueue;
use super::releases::{Releases, Subscription};

/// How long a lost message can go unnoticed; a few questions a second from each process, whatever happens.
const FALLBACK_POLL: Duration = Duration::from_millis(200);
/// The first pause after a try that failed, which no message will end.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(10);
/// What is given away to other processes, which the message has reached as soon as the release was answered.
const MOMENT: Duration = Duration::from_millis(3);

/// See the module's opening.
pub struct PubSubLock {
    locks: Locks,
    queue: LocalQueue,
    releases: Releases,
}

impl PubSubLock {
    /// `lease` is how long a lock outlives a holder that is gone. Starts a task that listens, kept by `tasks`; it ends with
    /// the lock.
    pub fn start(redis: Redis, lease: Duration, tasks: &dyn Tasks) -> Self {
        let releases = Releases::start(redis.clone(), tasks);
        Self { locks: Locks::new(redis, lease, Waiting::Listening), queue: LocalQueue::new(MOMENT), releases }
    }

    /// The subscription to the `at`-th key of `ticket`, which is the one that was refused.
    async fn listen(&self, ticket: &Ticket, at: usize, deadline: Instant) -> (usize, Subscription) {
        let mut subscription = self.releases.subscription(ticket.name(at));
        subscription.confirmed(deadline).await;
        (at, subscription)
    }
}

#[async_trait]
impl Lock for PubSubLock {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        let turn = self.queue.turn(&keys, owner, deadline).await.map_err(|error| self.locks.no_turn(error))?;
        let deadline = deadline.instant();
        let claim = self.locks.claim(&keys, owner, Some(turn));
        let mut backoff = Backoff::new(FAILURE_PAUSE_MIN, FALLBACK_POLL);
        let mut listening: Option<(usize, Subscription)> = None;
        loop {
            if let Some((_, subscription)) = &mut listening {
                subscription.mark();
            }
            let tried: Result<Tried, Failure> = claim.held().take().await;
            match (&tried, &mut listening) {
                (Ok(Tried::Taken(until)), _) => return Ok(Box::new(claim.into_lease(*until, self.locks.ttl()))),
                (Ok(Tried::Refused { same_command: true, .. }), _) => return Err(Tried::refusal(&tried)),
                _ if Instant::now() >= deadline => return Err(Tried::refusal(&tried)),
                (Ok(Tried::Refused { at, .. }), Some((heard, subscription))) if heard == at => {
                    let poll = Instant::now() + super::jittered(FALLBACK_POLL);
                    // A message or the poll: the next step is the same.
                    let _ = timeout_at(poll.min(deadline), subscription.told()).await;
                }
                (Ok(Tried::Refused { at, .. }), _) => listening = Some(self.listen(claim.held(), *at, deadline).await),
                (Err(_), _) => {
                    backoff.pause(deadline).await;
                }
            }
        }
    }
}
