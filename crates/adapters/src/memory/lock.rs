//! A lock in this process: one fair mutex for each key, kept as long as a caller holds it or waits for it.
//!
//! Keys are locked in the order given, which is sorted everywhere, so there is no deadlock. A caller that gives up or goes
//! away while waiting releases the keys it already has. A lease is never lost: it lasts until it is released.

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
    /// The command that holds the key.
    owner: Option<CommandId>,
    /// How many callers hold the key or wait for it. The last one removes the slot.
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

/// Its keys are released when it is dropped.
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

/// One caller's share in a slot, and the mutex once locked. Dropping it, on any path, gives both back.
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
                // Before the next caller can lock the mutex and write its own name.
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

/// A poisoned mutex is safe to use: no code that could panic runs while a change is half made.
fn enter(slots: &Slots) -> MutexGuard<'_, HashMap<Key, Slot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_ports::contract::build::{fresh, user};
    use std::time::Duration;

    #[tokio::test]
    async fn a_released_key_has_no_owner() {
        let lock = MemoryLock::new();
        let (key, owner) = (Key::Account(user()), fresh());
        let lease = lock.acquire(vec![key], owner, Deadline::after(Duration::ZERO)).await.unwrap();
        let (waiter, other) = (lock.clone(), fresh());
        let waiter =
            tokio::spawn(async move { waiter.acquire(vec![key], other, Deadline::after(Duration::from_secs(30))).await.map(drop) });
        while enter(&lock.slots)[&key].interested < 2 {
            tokio::task::yield_now().await;
        }
        // The key is the waiter's now, but the waiter has not run yet to write its name.
        drop(lease);
        assert_eq!(enter(&lock.slots)[&key].owner, None);
        waiter.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_key_without_holder_or_waiter_is_forgotten() {
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
