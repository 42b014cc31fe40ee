use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};

use crate::{Deadline, Source};

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it, and it was not to be had within the wait. `same_command`: it is held for this command.
    #[error("somebody else holds the lock")]
    Busy { same_command: bool },
    /// Whoever keeps the locks cannot be reached.
    #[error("the lock is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// A lock that is held. Dropping it without [`Lease::release`] gives it back too, late at the latest by its expiry.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Lease: Send + Sync {
    /// Returns when the lease was lost; never, when it cannot be.
    async fn lost(&self);
    /// Gives it back to the next one. One that was lost is not given back twice.
    async fn release(self: Box<Self>);
}

/// Mutual exclusion in front of the ledger. It decides who goes next and nothing else: a lock that lies costs speed.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Lock: Send + Sync {
    /// Takes all of `keys`, which are sorted and without duplicates, in that order, or none. Waits until
    /// `deadline` for all of them; a caller that goes away while waiting leaves nothing behind.
    async fn acquire(&self, keys: Vec<Key>, owner: CommandId, deadline: Deadline) -> Result<Box<dyn Lease>, LockError>;
}
