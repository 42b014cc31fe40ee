//! The line in front of a lock, one for each key in this process: only its head talks to Redis.
//!
//! A hundred callers of one hot key would otherwise ask Redis a hundred times for each release. The line is fair and
//! in order of arrival, and a place in it is kept until the lease ends, so that the lock is never passed on inside the
//! process: each command takes it in Redis.
//!
//! *Other processes.* A process that has just released is the first to know, and could keep a key to itself. Whoever
//! is refused leaves a mark in Redis that it waits; the release reads it. After [`TURNS_MAX`] turns in a row of a key
//! that others want, the next one waits for a moment before it asks, long enough for theirs.
//!
//! *Lock order.* Places are taken in the keys' order, which is global, before anything is asked of Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};
use tokio::time::{Instant, sleep};

use crate::memory::MemoryLock;

/// Turns in a row that a process may take of a key that other processes want. At one commit a turn that is some tens
/// of milliseconds, within any `wait_ms`; and the moment given away is a small part of it.
pub(super) const TURNS_MAX: u32 = 32;
/// Turns further apart than this are not in a row.
const ROW_GAP: Duration = Duration::from_millis(200);
/// How many keys are counted. Beyond it those not lately used are forgotten, then all, which costs a little fairness.
const COUNTED_MAX: usize = 4_096;

/// See the module's opening.
pub(super) struct LocalQueue {
    places: MemoryLock,
    rows: Arc<Rows>,
    /// What is given away to others after too many turns in a row.
    moment: Duration,
}

type Rows = Mutex<HashMap<Key, Row>>;

/// Turns taken one after the other.
#[derive(Clone, Copy)]
struct Row {
    turns: u32,
    last: Instant,
}

impl LocalQueue {
    pub(super) fn new(moment: Duration) -> Self {
        Self { places: MemoryLock::new(), rows: Arc::default(), moment }
    }

    /// Returns when it is the caller's turn to ask Redis for all of `keys`.
    pub(super) async fn turn(&self, keys: &[Key], owner: CommandId, deadline: Deadline) -> Result<Turn, LockError> {
        let place = self.places.acquire(keys.to_vec(), owner, deadline).await?;
        if self.gives_way(keys) {
            sleep(self.moment.min(deadline.remaining())).await;
        }
        Ok(Turn { _place: place, keys: keys.to_vec(), rows: self.rows.clone() })
    }

    fn gives_way(&self, keys: &[Key]) -> bool {
        let mut rows = enter(&self.rows);
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

/// The head of the line of each of its keys; when it is dropped the next ones are.
pub(super) struct Turn {
    _place: Box<dyn Lease>,
    keys: Vec<Key>,
    rows: Arc<Rows>,
}

impl Turn {
    /// Ends it after the lock was given back; `wanted`: another process wants one of the keys.
    pub(super) fn end(self, wanted: bool) {
        let mut rows = enter(&self.rows);
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

/// Always whole: nothing that could panic runs while it is locked.
fn enter(rows: &Rows) -> MutexGuard<'_, HashMap<Key, Row>> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::contract::build::{fresh, user};

    const MOMENT: Duration = Duration::from_millis(10);

    /// How long it took until the turn came.
    async fn take(queue: &LocalQueue, keys: &[Key], wanted: bool) -> Duration {
        let before = Instant::now();
        let turn = queue.turn(keys, fresh(), Deadline::after(Duration::from_secs(1))).await.unwrap();
        let waited = before.elapsed();
        turn.end(wanted);
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn after_so_many_turns_in_a_row_others_get_their_moment() {
        let (queue, key) = (LocalQueue::new(MOMENT), [Key::Account(user())]);
        for row in 0..3 {
            for turn in 0..TURNS_MAX {
                let waited = take(&queue, &key, true).await;
                assert_eq!(waited, if row > 0 && turn == 0 { MOMENT } else { Duration::ZERO }, "row {row}, turn {turn}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gives_way_to_nobody() {
        let (queue, key) = (LocalQueue::new(MOMENT), [Key::Account(user())]);
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
    async fn what_is_counted_is_bounded() {
        let queue = LocalQueue::new(MOMENT);
        for _ in 0..COUNTED_MAX * 2 + 5 {
            take(&queue, &[Key::Account(user())], true).await;
            assert!(enter(&queue.rows).len() <= COUNTED_MAX);
        }
    }
}
