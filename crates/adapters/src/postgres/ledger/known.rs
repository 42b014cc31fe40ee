//! Which accounts exist. Accounts are never deleted, so one that was committed is not inserted again.
//!
//! This is only a hint. If a known account is missing (a standby took over without the last commits), the lock finds fewer
//! rows than expected, and the batch forgets its accounts and runs again.

use boxoffice_domain::UserId;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// How many are remembered. Beyond that all are forgotten, and each is inserted once more without effect.
const KNOWN_MAX: usize = 1 << 18;

#[derive(Default)]
pub(super) struct KnownAccounts(Mutex<HashSet<UserId>>);

impl KnownAccounts {
    /// Those of `users` that may not exist yet, sorted.
    pub(super) fn unknown(&self, users: &BTreeSet<UserId>) -> Vec<Uuid> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter(|user| !known.contains(user)).map(|user| user.0).collect()
    }

    /// Call after their commit.
    pub(super) fn remember(&self, users: &BTreeSet<UserId>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + users.len() > KNOWN_MAX {
            known.clear();
        }
        known.extend(users);
    }

    pub(super) fn forget(&self, users: &BTreeSet<UserId>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|user| !users.contains(user));
    }
}
