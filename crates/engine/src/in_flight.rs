//! Equal commands at the same moment: the first one runs, the others wait for its answer and get the same.
//!
//! The map holds a command only while it runs, so it is as small as the number of callers. A follower with another
//! fingerprint is refused at once, as the ledger would. When the first one gets no answer (an error, or its caller
//! went away), the followers run the command themselves: the ledger's stored reply keeps it to one effect.
//!
//! *Bounds.* A follower waits at most `wait`, then [`ExecuteError::InProgress`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Decision, Fingerprint, IdempotencyKey, Rejection, Reply, Request};
use boxoffice_ports::{Clock, ExecuteError, Executor, Receipt};
use tokio::sync::oneshot;

/// The map is cut into this many, each under its own mutex.
const SHARDS: usize = 64;

struct Flight {
    fingerprint: Fingerprint,
    followers: Vec<oneshot::Sender<Receipt>>,
}

type Shard = Mutex<HashMap<IdempotencyKey, Flight>>;

/// See the module's opening.
pub struct SingleFlight {
    inner: Arc<dyn Executor>,
    shards: Vec<Shard>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    wait: Duration,
}

impl SingleFlight {
    pub fn new(inner: Arc<dyn Executor>, clock: Arc<dyn Clock>, wait: Duration) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Arc::new(Self { inner, shards, hasher: RandomState::new(), clock, wait })
    }

    fn shard(&self, key: &IdempotencyKey) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

#[async_trait]
impl Executor for SingleFlight {
    async fn execute(&self, request: Request) -> Result<Receipt, ExecuteError> {
        let Some((key, fingerprint)) = request.idempotency() else { return self.inner.execute(request).await };
        let shard = self.shard(&key);
        let deadline = tokio::time::Instant::now() + self.wait;
        loop {
            let follow = {
                let mut flights = lock(shard);
                match flights.get_mut(&key) {
                    None => {
                        flights.insert(key, Flight { fingerprint, followers: Vec::new() });
                        None
                    }
                    Some(flight) if flight.fingerprint != fingerprint => {
                        let decision = Decision::Refused(Rejection::IdempotencyKeyReused);
                        return Ok(Receipt::Done(Reply { decision, decided_at: self.clock.now(), replayed: false }));
                    }
                    Some(flight) => {
                        let (sender, receiver) = oneshot::channel();
                        flight.followers.push(sender);
                        Some(receiver)
                    }
                }
            };
            match follow {
                None => {
                    let landing = Landing { shard, key, landed: false };
                    let result = self.inner.execute(request).await;
                    let followers = landing.end();
                    if let Ok(receipt) = &result {
                        share(receipt, followers);
                    }
                    return result;
                }
                Some(receiver) => match tokio::time::timeout_at(deadline, receiver).await {
                    Ok(Ok(receipt)) => return Ok(receipt),
                    // The first one got no answer: one of the followers becomes the first.
                    Ok(Err(_)) => {}
                    Err(_) => return Err(ExecuteError::InProgress),
                },
            }
        }
    }
}

fn share(receipt: &Receipt, followers: Vec<oneshot::Sender<Receipt>>) {
    for follower in followers {
        let receipt = match receipt {
            // Choosing again is for each caller to do with its own choices, and under one command.
            Receipt::Done(Reply { decision: Decision::Retry, .. }) => continue,
            Receipt::Done(reply) => Receipt::Done(Reply { replayed: true, ..reply.clone() }),
            Receipt::Accepted(command) => Receipt::Accepted(*command),
        };
        // A follower that went away needs no answer.
        let _ = follower.send(receipt);
    }
}

/// Takes the flight out of the map once, also when the first caller goes away: by then the key may fly again for
/// somebody else, whose flight is not ours to take.
struct Landing<'a> {
    shard: &'a Shard,
    key: IdempotencyKey,
    landed: bool,
}

impl Landing<'_> {
    fn end(mut self) -> Vec<oneshot::Sender<Receipt>> {
        self.take()
    }

    fn take(&mut self) -> Vec<oneshot::Sender<Receipt>> {
        if std::mem::replace(&mut self.landed, true) {
            return Vec::new();
        }
        lock(self.shard).remove(&self.key).map(|flight| flight.followers).unwrap_or_default()
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // Dropping the senders wakes the followers.
        drop(self.take());
    }
}

fn lock(shard: &Shard) -> MutexGuard<'_, HashMap<IdempotencyKey, Flight>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
