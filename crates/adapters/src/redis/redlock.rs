//! `redlock`: a lock held on a majority of independent nodes, so that no single one can lose it. Through rslock.
//!
//! rslock is asked for one attempt at a time. The queue inside the process ([`super::queue`]), the pauses, the deadline,
//! the renewal ([`super::lease`]) and the choice of nodes ([`super::quorum`]) are ours. Several keys are taken one after
//! the other; if one is refused, those before it are given back.
//!
//! | step | messages, for each key |
//! | --- | --- |
//! | take | one to each voting node, at once; without a majority another one to each, to take it back |
//! | extend | one to each |
//! | give back | one to each |
//!
//! *Promise.* Mutual exclusion while a majority of nodes keeps its memory and clocks run at about the same rate. It does
//! not promise fencing. A holder that stops for longer than its lease still believes that it has the lock, and only the
//! ledger's versions stop it. See [`super::quorum`] for nodes that restart empty.
//!
//! *Same command.* rslock's values are random, so the holder leaves a note on the first voting node that names its command.
//! A note may be lost or late. Then a duplicate of the command waits, is refused as busy, and finds the stored reply.
//!
//! *Failure.* A node that hangs makes calls slow until a probe finds it, and fails no call. A failed extension deletes the
//! rest of the lock: the lease is lost at once. An attempt whose caller stops waiting goes on in its task, which gives back
//! what it may still take. If an attempt were dropped half way, it would leave keys under an unknown value. *Crash*: keys
//! last until their time to live has passed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError, Tasks, Traffic};
use futures_util::future::join_all;
use rslock::LockError as Refusal;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::backoff::Backoff;
use super::connect::Redis;
use super::failure::{Failure, ROUND_TRIP_MAX};
use super::keys;
use super::lease::{Claim, Extended, Held};
use super::queue::LocalQueue;
use super::quorum::{Majority, Quorum};
use super::script::Script;

/// A few attempts long: processes that collided, each with a part of the nodes, should not collide again.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(32);
/// The longest wait for an attempt, within the caller's own wait. rslock waits less for a node that hangs, so the votes of
/// the others count.
const ATTEMPT_MAX: Duration = Duration::from_millis(1_500);
/// The longest wait for giving back; for a node that hangs a task goes on.
const GIVE_BACK_MAX: Duration = Duration::from_millis(100);
/// How far clocks may drift apart during a lease: rslock's own allowance, in parts of the lease, and 2 ms.
const DRIFT: u32 = 100;
const DRIFT_MIN: Duration = Duration::from_millis(2);

/// KEYS: the names of notes. ARGV: the note.
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new("for i = 1, #KEYS do if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end end return 0")
});

/// See the module's opening.
pub struct Redlock {
    nodes: Arc<Quorum>,
    queue: LocalQueue,
    ttl: Duration,
    traffic: Arc<Traffic>,
}

impl Redlock {
    /// `urls` are independent nodes, preferably an odd number. Starts the tasks that probe them, kept by `tasks`; they end with
    /// the lock.
    pub fn start(urls: &[String], lease: Duration, traffic: Arc<Traffic>, tasks: &dyn Tasks) -> Result<Self, Failure> {
        let ttl = lease;
        let nodes = Arc::new(Quorum::start(urls, ttl, &traffic, tasks)?);
        Ok(Self { nodes, queue: LocalQueue::new(PAUSE_MAX), ttl, traffic })
    }
}

#[async_trait]
impl Lock for Redlock {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        let head = self.queue.enter(&keys, owner, deadline).await?;
        let deadline = deadline.instant();
        let claim = Claim::new(Votes::new(self, &keys, owner), Some(head));
        let votes = claim.held();
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut has_looked = false;
        loop {
            let refused = match votes.take(deadline + ROUND_TRIP_MAX).await {
                Ok(until) => {
                    votes.leave_note().await;
                    return Ok(Box::new(claim.into_lease(until, votes_last(self.ttl))));
                }
                Err(refused) => refused,
            };
            let over = Instant::now() >= deadline;
            if let (Refused::Busy { at }, true) = (&refused, over || !has_looked) {
                has_looked = true;
                if votes.is_noted(*at).await {
                    return Err(LockError::Busy { same_command: true });
                }
            }
            if !backoff.pause(deadline).await {
                return Err(match refused {
                    Refused::Busy { .. } => LockError::Busy { same_command: false },
                    Refused::NoMajority => LockError::Unavailable(self.nodes.shortage().into()),
                });
            }
        }
    }
}

/// How long a vote for `ttl` lasts at least.
fn votes_last(ttl: Duration) -> Duration {
    ttl - ttl / DRIFT - DRIFT_MIN
}

/// Why an attempt did not succeed.
enum Refused {
    /// A majority of nodes answers, and did not agree on the `at`-th key.
    Busy { at: usize },
    /// Too few nodes answer.
    NoMajority,
}

/// A lock that rslock took and no claim has yet. When it is dropped, it is given back.
struct Given {
    lock: Option<rslock::Lock>,
    traffic: Arc<Traffic>,
    nodes: u64,
}

impl Given {
    fn keep(mut self) -> Option<Arc<rslock::Lock>> {
        self.lock.take().map(Arc::new)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.traffic.redis_commands(self.nodes);
            runtime.spawn(lock.release());
        }
    }
}

/// The locks that were taken for one command.
struct Votes {
    nodes: Arc<Quorum>,
    traffic: Arc<Traffic>,
    ttl: Duration,
    names: Vec<String>,
    owner: String,
    note: String,
    taken: Mutex<Vec<Arc<rslock::Lock>>>,
    noted: AtomicBool,
}

impl Votes {
    fn new(lock: &Redlock, keys: &[Key], owner: CommandId) -> Self {
        let (owner, note) = (format!("{owner}:"), format!("{owner}:{:032x}", rand::random::<u128>()));
        Self {
            nodes: lock.nodes.clone(),
            traffic: lock.traffic.clone(),
            ttl: lock.ttl,
            names: keys.iter().map(keys::lock).collect(),
            owner,
            note,
            taken: Mutex::default(),
            noted: AtomicBool::new(false),
        }
    }

    /// One attempt at all keys; until when they are held. Returns by `deadline`.
    async fn take(&self, deadline: Instant) -> Result<Instant, Refused> {
        let mut until = Instant::now() + votes_last(self.ttl);
        for (at, name) in self.names.iter().enumerate() {
            let asked = Instant::now();
            match self.vote(name.clone(), deadline.min(asked + ATTEMPT_MAX)).await {
                Some(Ok(given)) => {
                    until = until.min(asked + votes_last(self.ttl));
                    self.taken().extend(given.keep());
                }
                refused => {
                    self.give_back_taken().await;
                    return Err(match refused {
                        Some(_) if self.nodes.majority().is_some() => Refused::Busy { at },
                        _ => Refused::NoMajority,
                    });
                }
            }
        }
        if Instant::now() >= until {
            self.give_back_taken().await;
            return Err(Refused::NoMajority);
        }
        Ok(until)
    }

    /// One attempt at one key; `None`: no majority to ask, or no answer in time.
    async fn vote(&self, name: String, deadline: Instant) -> Option<Result<Given, Refusal>> {
        let Majority { manager, nodes } = self.nodes.majority()?;
        let (traffic, ttl) = (self.traffic.clone(), self.ttl);
        traffic.redis_commands(nodes);
        let (done, outcome) = oneshot::channel();
        tokio::spawn(async move {
            // After that time it has expired on every node, so there is nothing to give back.
            let Ok(vote) = timeout(ttl, manager.lock(name.as_bytes(), ttl)).await else { return };
            if vote.is_err() {
                // rslock has given back the votes that it got.
                traffic.redis_commands(nodes);
            }
            // If the caller has stopped waiting, or stops before it looks, the lock gives itself back.
            let _ = done.send(vote.map(|lock| Given { lock: Some(lock), traffic, nodes }));
        });
        timeout_at(deadline, outcome).await.ok()?.ok()
    }

    /// Gives back on every node that votes; within [`GIVE_BACK_MAX`], or in the background.
    async fn give_back_taken(&self) {
        let taken = std::mem::take(&mut *self.taken());
        if taken.is_empty() {
            return;
        }
        let (majority, traffic, ttl) = (self.nodes.majority(), self.traffic.clone(), self.ttl);
        let task = tokio::spawn(async move {
            let unlocked = taken.iter().map(|lock| {
                let (manager, nodes) = majority.as_ref().map_or((&lock.lock_manager, 1), |majority| (&majority.manager, majority.nodes));
                traffic.redis_commands(nodes);
                manager.unlock(lock)
            });
            let _ = timeout(ttl, join_all(unlocked)).await;
        });
        let _ = timeout(GIVE_BACK_MAX, task).await;
    }

    fn notes(&self) -> Vec<String> {
        self.names.iter().map(|name| keys::note(name)).collect()
    }

    async fn leave_note(&self) {
        let Some(first) = self.nodes.first() else { return };
        self.noted.store(true, Ordering::SeqCst);
        let mut set = redis::pipe();
        for note in self.notes() {
            set.cmd("SET").arg(note).arg(&self.note).arg("PX").arg(self.ttl.as_millis() as u64).ignore();
        }
        // Without a note duplicates wait for longer, and nothing else.
        let _ = timeout(GIVE_BACK_MAX, first.pipeline::<()>(&set)).await;
    }

    /// Whether the holder of the `at`-th key is the same command, according to its note.
    async fn is_noted(&self, at: usize) -> bool {
        let Some(first) = self.nodes.first() else { return false };
        let found = timeout(GIVE_BACK_MAX, first.query::<Option<String>>(redis::cmd("GET").arg(keys::note(&self.names[at])))).await;
        matches!(found, Ok(Ok(Some(note))) if note.starts_with(&self.owner))
    }

    /// Never left half changed: no code that could panic runs while it is locked.
    fn taken(&self) -> MutexGuard<'_, Vec<Arc<rslock::Lock>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_noted(&self) -> Option<&Redis> {
        self.noted.load(Ordering::SeqCst).then(|| self.nodes.first()).flatten()
    }
}

#[async_trait]
impl Held for Votes {
    async fn extend(&self) -> Extended {
        let taken: Vec<_> = self.taken().clone();
        for lock in taken {
            // On the nodes that vote now, so that it does not wait for one that began to hang.
            let Some(Majority { manager, nodes }) = self.nodes.majority() else { return Extended::Unknown };
            self.traffic.redis_commands(nodes);
            if manager.extend(&lock, self.ttl).await.is_err() {
                return Extended::Lost;
            }
        }
        if self.first_noted().is_some() {
            self.leave_note().await;
        }
        Extended::Held
    }

    /// An attempt still under way gives back by itself.
    fn left_nothing(&self) -> bool {
        self.taken().is_empty()
    }

    async fn give_back(self: Arc<Self>) -> bool {
        self.give_back_taken().await;
        if let Some(first) = self.first_noted() {
            let _ = timeout(GIVE_BACK_MAX, first.run::<u32>(&FORGET, &self.notes(), &vec![&self.note])).await;
        }
        // It is not known here; to yield for a moment now and then costs little.
        true
    }
}
