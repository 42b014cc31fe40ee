//! A lock in this process: one fair mutex for each key, kept while somebody has it or waits for it.
//!
//! Keys are taken in the order given, which is sorted everywhere, so there is no deadlock; whoever gives up or goes
//! away while waiting drops what it already had. Nothing is ever lost: a lease lasts until it is given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Deadline, Lease, Lock, LockError};
use tokio::sync::OwnedMutexGuard;

/// See the module's opening.
#[derive(Clone, Default)]
pub struct MemoryLock {
    slots: Arc<Slots>,
}

type Slots = Mutex<HashMap<Key, Slot>>;

#[derive(Default)]
struct Slot {
    mutex: Arc<tokio::sync::Mutex<()>>,
    /// The command that has it.
    owner: Option<CommandId>,
    /// How many have it or wait for it. With the last of them the slot goes.
    interested: usize,
}

impl MemoryLock {
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Lock for MemoryLock {
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError> {
        debug_assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            let mut interest = Interest::new(&self.slots, key);
            let mutex = Arc::clone(&interest.mutex);
            match deadline.bound(mutex.lock_owned()).await {
                Ok(guard) => {
                    interest.hold(guard, owner);
                    taken.push(interest);
                }
                Err(_) => return Err(LockError::Busy { same_command: interest.owner() == Some(owner) }),
            }
        }
        Ok(Box::new(MemoryLease { _taken: taken }))
    }
}

/// Its keys are given back when it is dropped.
struct MemoryLease {
    _taken: Vec<Interest>,
}

#[async_trait]
impl Lease for MemoryLease {
    async fn lost(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {}
}

/// One caller's stake in a slot, and the mutex once it has it. Dropping it, on whatever path, takes both back.
struct Interest {
    slots: Arc<Slots>,
    key: Key,
    mutex: Arc<tokio::sync::Mutex<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Interest {
    fn new(slots: &Arc<Slots>, key: Key) -> Self {
        let mut all = enter(slots);
        let slot = all.entry(key).or_default();
        slot.interested += 1;
        let mutex = Arc::clone(&slot.mutex);
        drop(all);
        Self { slots: Arc::clone(slots), key, mutex, guard: None }
    }

    fn hold(&mut self, guard: OwnedMutexGuard<()>, owner: CommandId) {
        if let Some(slot) = enter(&self.slots).get_mut(&self.key) {
            slot.owner = Some(owner);
        }
        self.guard = Some(guard);
    }

    fn owner(&self) -> Option<CommandId> {
        enter(&self.slots).get(&self.key).and_then(|slot| slot.owner)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut all = enter(&self.slots);
        if let Some(slot) = all.get_mut(&self.key) {
            if self.guard.is_some() {
                // Before the next one can have it, which writes its own name.
                slot.owner = None;
            }
            slot.interested -= 1;
            if slot.interested == 0 {
                all.remove(&self.key);
            }
        }
        drop(self.guard.take());
    }
}

/// What is under it is always whole: no code that could panic runs in between.
fn enter(slots: &Slots) -> MutexGuard<'_, HashMap<Key, Slot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::contract::build::{fresh, user};
    use std::time::Duration;

    #[tokio::test]
    async fn memory_lock_forgets_an_owner_that_gave_it_back() {
        let lock = MemoryLock::new();
        let (key, owner) = (Key::Account(user()), fresh());
        let lease = lock.acquire(vec![key], owner, Deadline::after(Duration::ZERO)).await.unwrap();
        let (waiter, other) = (lock.clone(), fresh());
        let waiter =
            tokio::spawn(async move { waiter.acquire(vec![key], other, Deadline::after(Duration::from_secs(30))).await.map(drop) });
        while enter(&lock.slots)[&key].interested < 2 {
            tokio::task::yield_now().await;
        }
        // It is the waiter's now, who has not run yet to write its name.
        drop(lease);
        assert_eq!(enter(&lock.slots)[&key].owner, None);
        waiter.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn memory_lock_forgets_keys_that_nobody_wants() {
        let lock = MemoryLock::new();
        let key = Key::Account(user());
        let lease = lock.acquire(vec![key], fresh(), Deadline::after(Duration::ZERO)).await.unwrap();
        assert!(lock.acquire(vec![key], fresh(), Deadline::after(Duration::ZERO)).await.is_err());
        let (waiter, other) = (lock.clone(), fresh());
        let waiter =
            tokio::spawn(async move { waiter.acquire(vec![key], other, Deadline::after(Duration::from_secs(30))).await.map(drop) });
        while enter(&lock.slots)[&key].interested < 2 {
            tokio::task::yield_now().await;
        }
        lease.release().await;
        waiter.await.unwrap().unwrap();
        assert!(enter(&lock.slots).is_empty());
    }
}
