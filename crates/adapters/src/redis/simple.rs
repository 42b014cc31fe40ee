//! `simple`: `SET NX PX`, one attempt; a caller that does not get the lock is refused at once.
//!
//! The quickest refusal there is, and no queue: under contention nearly all callers are refused, and which one succeeds is
//! a matter of chance. Retries by the callers are its only fairness.
//!
//! *Round trips.* One to take, also if it is refused, one to give back. *Crash*: see [`super::lock`].

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};

use super::connect::Redis;
use super::lock::{Locks, Tried, WaitMode};

/// See the module's opening.
pub struct SimpleLock {
    locks: Locks,
}

impl SimpleLock {
    /// `lease` is how long a lock outlives a holder that is gone.
    pub fn new(redis: Redis, lease: Duration) -> Self {
        Self { locks: Locks::new(redis, lease, WaitMode::Never) }
    }
}

#[async_trait]
impl Lock for SimpleLock {
    /// Never waits, however much time is left.
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, _: Deadline) -> Result<Box<dyn Lease>, LockError> {
        let claim = self.locks.claim(&keys, owner, None);
        match claim.held().take().await {
            Ok(Tried::Taken(until)) => Ok(Box::new(claim.into_lease(until, self.locks.ttl()))),
            refused => Err(Tried::refusal(&refused)),
        }
    }
}
