//! What every lock must do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use tokio::task::JoinSet;

use super::build::{fresh, user};
use crate::{Deadline, Lease, Lock, LockError};

/// Longer than any case needs.
const LONG: Duration = Duration::from_secs(30);
/// For a lock that is not to be had.
const SHORT: Duration = Duration::from_millis(50);

/// A lock that does not wait, asked again by its callers until it is to be had: what its users do. With it such a lock
/// passes the same cases as one that waits.
pub struct AskedAgain(pub Arc<dyn Lock>);

#[async_trait]
impl Lock for AskedAgain {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        loop {
            match self.0.acquire(keys.clone(), owner, Deadline::after(Duration::ZERO)).await {
                Err(LockError::Busy { .. }) if !deadline.is_over() => tokio::time::sleep(Duration::from_millis(2)).await,
                done => return done,
            }
        }
    }
}

fn key() -> Key {
    Key::Account(user())
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort_unstable();
    keys
}

async fn take(lock: &Arc<dyn Lock>, keys: Vec<Key>) -> Box<dyn Lease> {
    lock.acquire(sorted(keys), fresh(), Deadline::after(LONG)).await.expect("a lock")
}

/// Whether the holder is the same command; `None` if the lock was free.
async fn refused(lock: &Arc<dyn Lock>, keys: Vec<Key>, owner: CommandId) -> Option<bool> {
    match lock.acquire(sorted(keys), owner, Deadline::after(SHORT)).await {
        Ok(lease) => {
            lease.release().await;
            None
        }
        Err(LockError::Busy { same_command }) => Some(same_command),
        Err(error) => panic!("{error}"),
    }
}

/// One test for each case: `lock_contract!(make_lock)`, where `async fn make_lock() -> Arc<dyn Lock>`.
#[macro_export]
macro_rules! lock_contract {
    ($make:path) => {
        $crate::contract_cases!($make; lock {
            held_lock_refuses_others_until_it_is_released
            dropped_lease_gives_back
            busy_tells_the_same_command_from_another
            all_keys_or_none
            waiter_gets_it_when_it_is_released
            cancelled_waiter_leaves_nothing
            overlapping_keys_exclude_and_never_deadlock
            free_lock_is_had_without_waiting
            every_waiter_of_one_key_gets_its_turn
        });
    };
}

pub async fn held_lock_refuses_others_until_it_is_released(lock: Arc<dyn Lock>) {
    let (one, other) = (key(), key());
    let lease = take(&lock, vec![one]).await;
    assert_eq!(refused(&lock, vec![one], fresh()).await, Some(false));
    assert_eq!(refused(&lock, vec![other], fresh()).await, None, "another key is another lock");
    let lost = tokio::time::timeout(SHORT, lease.lost()).await;
    assert!(lost.is_err(), "a lease that is held is not lost");
    lease.release().await;
    assert_eq!(refused(&lock, vec![one], fresh()).await, None);
}

pub async fn dropped_lease_gives_back(lock: Arc<dyn Lock>) {
    let one = key();
    drop(take(&lock, vec![one]).await);
    take(&lock, vec![one]).await.release().await;
}

pub async fn busy_tells_the_same_command_from_another(lock: Arc<dyn Lock>) {
    let (one, owner) = (key(), fresh());
    let lease = lock.acquire(vec![one], owner, Deadline::after(LONG)).await.expect("a lock");
    assert_eq!(refused(&lock, vec![one], owner).await, Some(true));
    assert_eq!(refused(&lock, vec![one], fresh()).await, Some(false));
    lease.release().await;
    let lease = take(&lock, vec![one]).await;
    assert_eq!(refused(&lock, vec![one], owner).await, Some(false), "an earlier owner is forgotten");
    lease.release().await;
}

pub async fn all_keys_or_none(lock: Arc<dyn Lock>) {
    let keys = sorted(vec![key(), key(), key()]);
    let last = take(&lock, vec![keys[2]]).await;
    assert_eq!(refused(&lock, keys.clone(), fresh()).await, Some(false));
    let first = take(&lock, keys[..2].to_vec()).await;
    assert_eq!(refused(&lock, vec![keys[1]], fresh()).await, Some(false));
    first.release().await;
    last.release().await;
    take(&lock, keys).await.release().await;
}

pub async fn waiter_gets_it_when_it_is_released(lock: Arc<dyn Lock>) {
    let one = key();
    let lease = take(&lock, vec![one]).await;
    let waiter = {
        let lock = Arc::clone(&lock);
        tokio::spawn(async move { take(&lock, vec![one]).await.release().await })
    };
    assert_eq!(refused(&lock, vec![one], fresh()).await, Some(false));
    assert!(!waiter.is_finished());
    lease.release().await;
    tokio::time::timeout(LONG, waiter).await.expect("in time").expect("no panic");
}

pub async fn cancelled_waiter_leaves_nothing(lock: Arc<dyn Lock>) {
    let keys = sorted(vec![key(), key()]);
    let lease = take(&lock, vec![keys[1]]).await;
    for _ in 0..20 {
        let waiter = {
            let (lock, keys) = (Arc::clone(&lock), keys.clone());
            tokio::spawn(async move { take(&lock, keys).await.release().await })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        waiter.abort();
        assert!(waiter.await.is_err_and(|error| error.is_cancelled()));
    }
    take(&lock, vec![keys[0]]).await.release().await;
    lease.release().await;
    take(&lock, keys).await.release().await;
}

pub async fn overlapping_keys_exclude_and_never_deadlock(lock: Arc<dyn Lock>) {
    let keys = sorted((0..5).map(|_| key()).collect());
    let inside: Arc<Vec<AtomicU32>> = Arc::new(keys.iter().map(|_| AtomicU32::new(0)).collect());
    let mut tasks = JoinSet::new();
    for at in 0..60usize {
        let wanted: Vec<usize> = (0..5).filter(|bit| (at % 31 + 1) & (1 << bit) != 0).collect();
        let (lock, inside, keys) = (Arc::clone(&lock), Arc::clone(&inside), wanted.iter().map(|at| keys[*at]).collect::<Vec<_>>());
        tasks.spawn(async move {
            let lease = take(&lock, keys).await;
            for at in &wanted {
                assert_eq!(inside[*at].fetch_add(1, Ordering::SeqCst), 0, "no other holder is inside");
            }
            tokio::task::yield_now().await;
            for at in &wanted {
                inside[*at].fetch_sub(1, Ordering::SeqCst);
            }
            lease.release().await;
        });
    }
    let done = tokio::time::timeout(LONG, tasks.join_all()).await;
    assert!(done.is_ok(), "each waiter gets a turn");
}

pub async fn free_lock_is_had_without_waiting(lock: Arc<dyn Lock>) {
    let keys = sorted(vec![key(), key()]);
    let lease = lock.acquire(keys.clone(), fresh(), Deadline::after(Duration::ZERO)).await.expect("a free lock");
    let refused = lock.acquire(keys.clone(), fresh(), Deadline::after(Duration::ZERO)).await;
    assert!(matches!(refused, Err(LockError::Busy { same_command: false })));
    lease.release().await;
    lock.acquire(keys, fresh(), Deadline::after(Duration::ZERO)).await.expect("it was given back before the answer").release().await;
}

/// Prints how the turns were spread; an order is not part of the contract.
pub async fn every_waiter_of_one_key_gets_its_turn(lock: Arc<dyn Lock>) {
    const WAITERS: usize = 40;
    let (one, inside, turns) = (key(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let lease = take(&lock, vec![one]).await;
    let mut tasks = JoinSet::new();
    for at in 0..WAITERS {
        let (lock, inside, turns) = (Arc::clone(&lock), Arc::clone(&inside), Arc::clone(&turns));
        tasks.spawn(async move {
            let lease = take(&lock, vec![one]).await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "no other holder is inside");
            let turn = turns.fetch_add(1, Ordering::SeqCst) as usize;
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            lease.release().await;
            turn.abs_diff(at)
        });
    }
    lease.release().await;
    let moved = tokio::time::timeout(LONG, tasks.join_all()).await.expect("each waiter gets a turn");
    assert_eq!(moved.len(), WAITERS);
    println!("fairness: {WAITERS} waiters, at most {} places from the order they were started in", moved.iter().max().unwrap_or(&0));
}
