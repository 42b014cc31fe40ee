//! The part that `simple`, `spin` and `pubsub` share: one lock on one Redis, taken, extended and given back by scripts.
//!
//! The value of a key is `command_id:random`, one for each acquisition. Extending and giving back compare it first, in
//! the same script, so a lock that another owner has taken is never touched. Asking again under the same value is
//! harmless: a first command whose answer was lost may have taken the keys already.
//!
//! | step | round trips | keys |
//! | --- | --- | --- |
//! | [`TAKE`] | one; on a Cluster one for each key, in order | all or none; on a Cluster, those taken before one was refused are given back |
//! | [`EXTEND`] | the same, each third of the time to live | all, or it is lost |
//! | [`GIVE_BACK`] | the same, once | those that are still its own; notifies the waiters, if they subscribe |
//!
//! *Promise.* Mutual exclusion as long as Redis keeps its memory and no holder outlives its lease. It promises neither
//! fencing nor to survive a fail-over, which loses writes that were not replicated. Such a loss costs speed and nothing
//! else, because the ledger compares versions.
//!
//! *Unknown outcomes.* After an answer that does not come, the lock may have been taken: the claim stays armed and gives
//! back. A server that hung may run the old command after the new one. So after an unknown outcome the keys are given back
//! once more, a round trip later, and in the end their time to live bounds it.
//!
//! *Crash.* Keys of a process that ended last until their time to live has passed; waiters find them gone by asking again.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::LockError;
use tokio::time::{Instant, sleep};

use super::connect::Redis;
use super::failure::{Failure, ROUND_TRIP_MAX};
use super::keys;
use super::lease::{Claim, Extended, Held};
use super::queue::QueueHead;
use super::script::Script;
use crate::pause::jittered;

/// How long a mark lasts that another process waits. It is set again each time that one is refused.
const WANTED_TTL: Duration = Duration::from_secs(1);
/// The pause between tries to give back to a Redis that is away.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(100);

/// KEYS: the locks, then the mark of each. ARGV: value, time to live, this process, the mark's time to live or 0.
/// Answers with the first refused one: its place from 1 and its value; or 0.
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

/// KEYS: the locks, then the mark of each. ARGV: value, this process, whether to notify waiters. A lock's channel has the
/// name of the lock. How many were still its own, and whether another process waits for one.
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

/// How a caller waits that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitMode {
    /// It does not, and leaves no mark.
    Never,
    /// It asks again.
    Polling,
    /// It subscribes to the release.
    Subscribing,
}

/// One Redis with the settings of its locks.
#[derive(Clone)]
pub(super) struct Locks {
    redis: Redis,
    ttl: Duration,
    waiting: WaitMode,
    /// Distinguishes the marks of this process from those of others.
    process: Arc<str>,
}

/// The outcome of one try to take the locks.
#[derive(Debug)]
pub(super) enum Tried {
    /// Taken, until then.
    Taken(Instant),
    /// Another owner has the `at`-th key.
    Refused { at: usize, same_command: bool },
}

impl Locks {
    /// `lease` is the time to live. Three renewals must fit in it, each of which may take a round trip: two seconds at least.
    pub(super) fn new(redis: Redis, lease: Duration, waiting: WaitMode) -> Self {
        Self { redis, ttl: lease, waiting, process: random().into() }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Why a caller did not become the head of the queue in time. Callers in front had the lock; or Redis answered none of
    /// them, so that nothing is known of the lock.
    pub(super) fn never_head(&self, error: LockError) -> LockError {
        match error {
            LockError::Busy { same_command: false } if !self.redis.is_answering() => LockError::Unavailable(Failure::Silent.into()),
            error => error,
        }
    }

    /// Claims `keys` for a command; nothing is sent yet.
    pub(super) fn claim(&self, keys: &[Key], owner: CommandId, head: Option<QueueHead>) -> Claim<LockAttempt> {
        let names = keys.iter().map(keys::lock).collect();
        let (owner, value) = (format!("{owner}:"), format!("{owner}:{}", random()));
        let (unknown, over) = (AtomicBool::new(false), AtomicBool::new(true));
        Claim::new(LockAttempt { locks: self.clone(), names, owner, value, unknown, over }, head)
    }
}

/// 128 random bits.
fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// One acquisition: all its locks have one value.
pub(super) struct LockAttempt {
    locks: Locks,
    names: Vec<String>,
    /// The prefix of all values of the same command.
    owner: String,
    value: String,
    /// An answer did not come: an old command may still run.
    unknown: AtomicBool,
    /// None of its keys can be in Redis.
    over: AtomicBool,
}

impl LockAttempt {
    pub(super) fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    /// Tries once to take all of them.
    pub(super) async fn take(&self) -> Result<Tried, Failure> {
        let until = Instant::now() + self.locks.ttl;
        let ttl = self.locks.ttl.as_millis().to_string();
        let mark = if self.locks.waiting == WaitMode::Never { 0 } else { WANTED_TTL.as_millis() }.to_string();
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

    /// Keys that one script can use together.
    fn groups(&self) -> std::slice::Chunks<'_, String> {
        self.names.chunks(if self.locks.redis.is_cluster() { 1 } else { self.names.len().max(1) })
    }

    /// Whether another process waits for one of them.
    async fn give_back_once(&self, names: &[String]) -> Result<bool, Failure> {
        let notify = if self.locks.waiting == WaitMode::Subscribing { "1" } else { "0" };
        let arguments = vec![self.value.as_str(), &self.locks.process, notify];
        let mut wanted = false;
        for group in names.chunks(if self.locks.redis.is_cluster() { 1 } else { names.len().max(1) }) {
            let (_, other) = self.locks.redis.run::<(u32, bool)>(&GIVE_BACK, &with_marks(group), &arguments).await?;
            wanted |= other;
        }
        Ok(wanted)
    }

    /// Retries until Redis has answered, or the keys have expired.
    async fn keep_giving_back(self: Arc<Self>, mut done: bool) {
        let expired = Instant::now() + self.locks.ttl;
        while !done && Instant::now() < expired {
            sleep(jittered(GIVE_BACK_PAUSE)).await;
            done = self.give_back_once(&self.names).await.is_ok();
        }
        if self.unknown.load(Ordering::SeqCst) {
            sleep(ROUND_TRIP_MAX).await;
            // Keys that it does not reach now expire.
            let _ = self.give_back_once(&self.names).await;
        }
    }
}

#[async_trait]
impl Held for LockAttempt {
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
    /// The error of the port for the last try.
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
