//! `spin`: the same lock, tried again and again, with pauses that grow up to a bound.
//!
//! Nothing but Redis's `SET` is needed, and waiters are not notified: a lock that is given back lies idle until the pause of
//! a waiter ends. In this process only the head of a key's queue asks ([`super::queue`]); between processes the first that
//! asks after a release gets it.
//!
//! *Round trips.* One for each try, one to give back. *Bounds.* Pauses between [`PAUSE_MIN`] and [`PAUSE_MAX`], jittered.
//! The last try is made at the end of `wait` and may take one more round trip. A Redis that is away is retried in the same
//! way. *Crash*: see [`super::lock`].

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};

use super::backoff::Backoff;
use super::connect::Redis;
use super::lock::{Locks, Tried, WaitMode};
use super::queue::LocalQueue;

/// About as long as a holder needs for its commit.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// A few commits: the longest that a free lock is overlooked, and still few commands a second from each process.
const PAUSE_MAX: Duration = Duration::from_millis(16);

/// See the module's opening.
pub struct SpinLock {
    locks: Locks,
    queue: LocalQueue,
}

impl SpinLock {
    /// `lease` is how long a lock outlives a holder that is gone.
    pub fn new(redis: Redis, lease: Duration) -> Self {
        // It yields for as long as the others' pauses last, so that each of them asks meanwhile.
        Self { locks: Locks::new(redis, lease, WaitMode::Polling), queue: LocalQueue::new(PAUSE_MAX) }
    }
}

#[async_trait]
impl Lock for SpinLock {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        let head = self.queue.enter(&keys, owner, deadline).await.map_err(|error| self.locks.never_head(error))?;
        let deadline = deadline.instant();
        let claim = self.locks.claim(&keys, owner, Some(head));
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let tried = claim.held().take().await;
            match tried {
                Ok(Tried::Taken(until)) => return Ok(Box::new(claim.into_lease(until, self.locks.ttl()))),
                Ok(Tried::Refused { same_command: true, .. }) => return Err(Tried::refusal(&tried)),
                Ok(Tried::Refused { .. }) | Err(_) if backoff.pause(deadline).await => {}
                refused => return Err(Tried::refusal(&refused)),
            }
        }
    }
}
