//! The queue in front of a lock, one for each key in this process: only its head asks Redis.
//!
//! Otherwise a hundred callers of one hot key would ask Redis a hundred times for each release. The queue is fair, in order
//! of arrival, and a place in it is kept until the lease ends. So the lock is never passed on inside the process: each
//! command takes it in Redis.
//!
//! *Other processes.* A process that has just released is the first to know, and could keep a key to itself. So a process
//! that is refused leaves a mark in Redis that it waits, and the release reads it. After [`TURNS_MAX`] turns in a row of a
//! key that others want, the next head yields. It pauses before it asks, long enough for the others to ask first.
//!
//! *Lock order.* Places are taken in the keys' order, which is global, before anything is asked of Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};
use tokio::time::{Instant, sleep};

use crate::memory::MemoryLock;

/// Turns in a row that a process may take of a key that other processes want. At one commit for each turn that is some tens
/// of milliseconds, within any `wait_ms`; and the pause is a small part of it.
pub(super) const TURNS_MAX: u32 = 32;
/// Turns further apart than this are not in a row.
const ROW_GAP: Duration = Duration::from_millis(200);
/// How many keys are counted. Beyond it those that were not used lately are forgotten, then all, which costs a little fairness.
const COUNTED_MAX: usize = 4_096;

/// See the module's opening.
pub(super) struct LocalQueue {
    places: MemoryLock,
    rows: Arc<Rows>,
    /// How long it yields to other processes after too many turns in a row.
    pause: Duration,
}

type Rows = Mutex<HashMap<Key, Row>>;

/// Turns taken one after the other.
#[derive(Clone, Copy)]
struct Row {
    turns: u32,
    last: Instant,
}

impl LocalQueue {
    pub(super) fn new(pause: Duration) -> Self {
        Self { places: MemoryLock::new(), rows: Arc::default(), pause }
    }

    /// Returns when the caller is the head of the queues of all `keys`, and may ask Redis for them.
    pub(super) async fn enter(&self, keys: &[Key], owner: CommandId, deadline: Deadline) -> Result<QueueHead, LockError> {
        let place = self.places.acquire(keys.to_vec(), owner, deadline).await?;
        if self.yields(keys) {
            sleep(self.pause.min(deadline.remaining())).await;
        }
        Ok(QueueHead { _place: place, keys: keys.to_vec(), rows: self.rows.clone() })
    }

    fn yields(&self, keys: &[Key]) -> bool {
        let mut rows = locked(&self.rows);
        if rows.is_empty() {
            return false;
        }
        let full = keys.iter().any(|key| rows.get(key).is_some_and(|row| row.turns >= TURNS_MAX && row.last.elapsed() <= ROW_GAP));
        if full {
            rows.retain(|key, _| !keys.contains(key));
        }
        full
    }
}

/// The head of the queue of each of its keys. When it is dropped, the next callers are.
pub(super) struct QueueHead {
    _place: Box<dyn Lease>,
    keys: Vec<Key>,
    rows: Arc<Rows>,
}

impl QueueHead {
    /// Ends the turn after the lock was given back; `wanted`: another process wants one of the keys.
    pub(super) fn leave(self, wanted: bool) {
        let mut rows = locked(&self.rows);
        let now = Instant::now();
        for key in &self.keys {
            if !wanted {
                rows.remove(key);
                continue;
            }
            if rows.len() >= COUNTED_MAX && !rows.contains_key(key) {
                rows.retain(|_, row| now - row.last <= ROW_GAP);
                if rows.len() >= COUNTED_MAX {
                    rows.clear();
                }
            }
            let row = rows.entry(*key).or_insert(Row { turns: 0, last: now });
            let turns = if now - row.last <= ROW_GAP { row.turns + 1 } else { 1 };
            *row = Row { turns, last: now };
        }
    }
}

/// Never left half changed: no code that could panic runs while it is locked.
fn locked(rows: &Rows) -> MutexGuard<'_, HashMap<Key, Row>> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::contract::build::{fresh, user};

    const PAUSE: Duration = Duration::from_millis(10);

    /// One turn; how long the wait for it was.
    async fn take(queue: &LocalQueue, keys: &[Key], wanted: bool) -> Duration {
        let before = Instant::now();
        let head = queue.enter(keys, fresh(), Deadline::after(Duration::from_secs(1))).await.unwrap();
        let waited = before.elapsed();
        head.leave(wanted);
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn after_many_turns_in_a_row_the_queue_yields() {
        let (queue, key) = (LocalQueue::new(PAUSE), [Key::Account(user())]);
        for row in 0..3 {
            for turn in 0..TURNS_MAX {
                let waited = take(&queue, &key, true).await;
                assert_eq!(waited, if row > 0 && turn == 0 { PAUSE } else { Duration::ZERO }, "row {row}, turn {turn}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_yields_to_waiting_processes_only() {
        let (queue, key) = (LocalQueue::new(PAUSE), [Key::Account(user())]);
        for turn in 1..=TURNS_MAX * 3 {
            // Once in a row others do not want it, and the row begins again.
            let wanted = turn % TURNS_MAX != 0;
            assert_eq!(take(&queue, &key, wanted).await, Duration::ZERO);
        }
        for _ in 0..TURNS_MAX * 2 {
            assert_eq!(take(&queue, &key, true).await, Duration::ZERO, "turns that far apart are not in a row");
            sleep(ROW_GAP * 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_counted_keys_is_bounded() {
        let queue = LocalQueue::new(PAUSE);
        for _ in 0..COUNTED_MAX * 2 + 5 {
            take(&queue, &[Key::Account(user())], true).await;
            assert!(locked(&queue.rows).len() <= COUNTED_MAX);
        }
    }
}
