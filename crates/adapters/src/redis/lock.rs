//! What `simple`, `spin` and `pubsub` share: one lock on one Redis, taken, extended and given back by scripts.
//!
//! The value of a key is `command_id:random`, one for each acquisition. Extending and giving back compare it first, in
//! the same script, so nobody touches a lock that has become somebody else's. Asking again under the same value is
//! harmless: a first command whose answer was lost may have taken the keys already.
//!
//! | step | round trips | keys |
//! | --- | --- | --- |
//! | [`TAKE`] | one; on a Cluster one a key, in order | all or none; what was taken of a Cluster's before one was refused is given back |
//! | [`EXTEND`] | the same, each third of the time to live | all, or it is lost |
//! | [`GIVE_BACK`] | the same, once | those that are still its own; tells the waiters, where they listen |
//!
//! *What it promises.* Mutual exclusion as long as Redis keeps its memory and no lease is outlived. What it does not:
//! fencing, or surviving a fail-over, which forgets what had not been replicated. It costs speed then and nothing else,
//! because the ledger compares versions.
//!
//! *Unknown outcomes.* An answer that does not come may mean a lock that was taken: the claim stays armed and gives
//! back. A server that hung may do the old command after the new one; so what was unknown is given back once more, a
//! round trip later, and in the end the key's time to live bounds it.
//!
//! *Crash.* Keys of a process that ended last until their time to live is over; waiters find them gone by asking again.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::LockError;
use tokio::time::{Instant, sleep};

use super::connect::{Failure, ROUND_TRIP_MAX, Redis, Script};
use super::keys;
use super::lease::{Claim, Extended, Held};
use super::queue::Turn;

/// How long a mark says that another process waits. It is set again each time that one is refused.
const WANTED_TTL: Duration = Duration::from_secs(1);
/// The pauses between tries to give back to a Redis that is away.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(100);

/// KEYS: the locks, then the mark of each. ARGV: value, time to live, this process, the mark's time to live or 0.
/// Whose the first refused one is: its place from 1 and its value; or 0.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
local n = #KEYS / 2
for i = 1, n do
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= ARGV[1] then
    if ARGV[4] ~= '0' then redis.call('SET', KEYS[n + i], ARGV[3], 'PX', ARGV[4]) end
    return {i, holder}
  end
end
for i = 1, n do
  redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
  if redis.call('GET', KEYS[n + i]) == ARGV[3] then redis.call('DEL', KEYS[n + i]) end
end
return {0, ''}
"#,
    )
});

/// KEYS: the locks. ARGV: value, time to live. Whether all of them are still its own.
static EXTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[1] then return 0 end
end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 1
"#,
    )
});

/// KEYS: the locks, then the mark of each. ARGV: value, this process, whether to tell waiters. A lock's channel is
/// called as the lock. How many were still its own, and whether another process waits for one.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
local n = #KEYS / 2
local own, wanted = 0, 0
for i = 1, n do
  local mark = redis.call('GET', KEYS[n + i])
  if mark and mark ~= ARGV[2] then wanted = 1 end
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('DEL', KEYS[i])
    own = own + 1
    if ARGV[3] == '1' then redis.call('PUBLISH', KEYS[i], '') end
  end
end
return {own, wanted}
"#,
    )
});

/// How those who are refused wait: what they leave and what they must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// They do not.
    Never,
    /// They ask again.
    Asking,
    /// They listen.
    Listening,
}

/// One Redis with the settings of its locks.
#[derive(Clone)]
pub(super) struct Locks {
    redis: Redis,
    ttl: Duration,
    waiting: Waiting,
    /// Tells this process's marks from others'.
    process: Arc<str>,
}

/// What one try to take found.
#[derive(Debug)]
pub(super) enum Tried {
    /// It is taken, and lasts until then.
    Taken(Instant),
    /// The `at`-th key is somebody else's.
    Refused { at: usize, same_command: bool },
}

impl Locks {
    /// `lease` is the time to live. Three renewals must fit in it, each of which may take a round trip: two seconds at least.
    pub(super) fn new(redis: Redis, lease: Duration, waiting: Waiting) -> Self {
        Self { redis, ttl: lease, waiting, process: random().into() }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Why a caller's turn to ask did not come in time. Callers in front had the lock; or Redis answered none of them, and
    /// then nothing is known of the lock.
    pub(super) fn no_turn(&self, error: LockError) -> LockError {
        match error {
            LockError::Busy { same_command: false } if !self.redis.is_answering() => LockError::Unavailable(Failure::Silent.into()),
            error => error,
        }
    }

    /// Claims `keys` for a command; nothing is sent yet.
    pub(super) fn claim(&self, keys: &[Key], owner: CommandId, turn: Option<Turn>) -> Claim<Ticket> {
        let names = keys.iter().map(keys::lock).collect();
        let (owner, value) = (format!("{owner}:"), format!("{owner}:{}", random()));
        Claim::new(Ticket { locks: self.clone(), names, owner, value, unknown: AtomicBool::new(false), over: AtomicBool::new(true) }, turn)
    }
}

/// 128 random bits.
fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Locks under one value.
pub(super) struct Ticket {
    locks: Locks,
    names: Vec<String>,
    /// What a value of the same command begins with.
    owner: String,
    value: String,
    /// An answer did not come: an old command may still be done.
    unknown: AtomicBool,
    /// Nothing of it can be in Redis.
    over: AtomicBool,
}

impl Ticket {
    pub(super) fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    /// Asks once for all of them.
    pub(super) async fn take(&self) -> Result<Tried, Failure> {
        let until = Instant::now() + self.locks.ttl;
        let ttl = self.locks.ttl.as_millis().to_string();
        let mark = if self.locks.waiting == Waiting::Never { 0 } else { WANTED_TTL.as_millis() }.to_string();
        let arguments = vec![self.value.as_str(), &ttl, &self.locks.process, &mark];
        self.over.store(false, Ordering::SeqCst);
        let mut taken = 0;
        for group in self.groups() {
            let answer = self.locks.redis.run::<(usize, String)>(&TAKE, &with_marks(group), &arguments).await;
            let (at, holder) = answer.inspect_err(|_| self.unknown.store(true, Ordering::SeqCst))?;
            if let Some(at) = at.checked_sub(1) {
                let clean = taken == 0 || self.give_back_once(&self.names[..taken]).await.is_ok();
                self.over.store(clean && !self.unknown.load(Ordering::SeqCst), Ordering::SeqCst);
                return Ok(Tried::Refused { at: taken + at, same_command: holder.starts_with(&self.owner) });
            }
            taken += group.len();
        }
        Ok(Tried::Taken(until))
    }

    /// Keys that one script can have together.
    fn groups(&self) -> std::slice::Chunks<'_, String> {
        self.names.chunks(if self.locks.redis.is_cluster() { 1 } else { self.names.len().max(1) })
    }

    /// Whether another process waits for one of them.
    async fn give_back_once(&self, names: &[String]) -> Result<bool, Failure> {
        let tell = if self.locks.waiting == Waiting::Listening { "1" } else { "0" };
        let arguments = vec![self.value.as_str(), &self.locks.process, tell];
        let mut wanted = false;
        for group in names.chunks(if self.locks.redis.is_cluster() { 1 } else { names.len().max(1) }) {
            let (_, other) = self.locks.redis.run::<(u32, bool)>(&GIVE_BACK, &with_marks(group), &arguments).await?;
            wanted |= other;
        }
        Ok(wanted)
    }

    /// Until it is told to Redis, or expired there.
    async fn keep_giving_back(self: Arc<Self>, mut done: bool) {
        let expired = Instant::now() + self.locks.ttl;
        while !done && Instant::now() < expired {
            sleep(super::jittered(GIVE_BACK_PAUSE)).await;
            done = self.give_back_once(&self.names).await.is_ok();
        }
        if self.unknown.load(Ordering::SeqCst) {
            sleep(ROUND_TRIP_MAX).await;
            // What it does not reach now expires.
            let _ = self.give_back_once(&self.names).await;
        }
    }
}

#[async_trait]
impl Held for Ticket {
    async fn extend(&self) -> Extended {
        let arguments = vec![self.value.clone(), self.locks.ttl.as_millis().to_string()];
        for group in self.groups() {
            match self.locks.redis.run::<bool>(&EXTEND, group, &arguments).await {
                Ok(true) => {}
                Ok(false) => return Extended::Lost,
                Err(_) => return Extended::Unknown,
            }
        }
        Extended::Held
    }

    fn left_nothing(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    async fn give_back(self: Arc<Self>) -> bool {
        let given = self.give_back_once(&self.names).await;
        if given.is_err() || self.unknown.load(Ordering::SeqCst) {
            tokio::spawn(Arc::clone(&self).keep_giving_back(given.is_ok()));
        }
        given.unwrap_or(false)
    }
}

impl Tried {
    /// What the port calls it when there is no other try.
    pub(super) fn refusal(tried: &Result<Self, Failure>) -> LockError {
        match tried {
            Ok(Self::Taken(_)) => LockError::Busy { same_command: false },
            Ok(Self::Refused { same_command, .. }) => LockError::Busy { same_command: *same_command },
            Err(failure) => LockError::Unavailable(failure.clone().into()),
        }
    }
}

fn with_marks(names: &[String]) -> Vec<String> {
    names.iter().cloned().chain(names.iter().map(|name| keys::wanted(name))).collect()
}
