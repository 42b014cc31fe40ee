//! Mutual exclusion in front of the ledger.
//!
//! A lock orders commands that meet and nothing else: the ledger guards every write by itself, so a lock that fails costs
//! speed, never correctness.

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};

use crate::{Deadline, Source};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It was still held when the wait ended. `same_command`: it is held for this very command.
    #[error("timed out waiting for a lock held by another command")]
    Busy { same_command: bool },
    /// The server that keeps the locks cannot be reached.
    #[error("the lock is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// A lock that is held. Dropping it without [`Lease::release`] releases it too, at the latest when it expires.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Lease: Send + Sync {
    /// Returns when the lease is lost; never, if it cannot be.
    async fn lost(&self);
    /// Releases it for the next waiter. A lease that was lost is not released twice.
    async fn release(self: Box<Self>);
}

/// See the module's opening.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Lock: Send + Sync {
    /// Takes all of `keys`, which are sorted and without duplicates, in that order, or none. Waits until
    /// `deadline` for all of them; a caller that stops waiting leaves nothing behind.
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError>;
}
