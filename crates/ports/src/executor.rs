//! The driving port: one request in, one answer out, under every strategy.

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Reply, Request};

use crate::{Deadline, Source};

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    Done(Reply),
    /// It is in a log and will be decided; its reply is found by its id.
    Accepted(CommandId),
}

/// Why there is no answer. None of these is stored, and each is safe to try again with the same key.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// More requests are waiting than can be served in time. Nothing was done.
    #[error("more commands are waiting than can be served")]
    Overloaded,
    /// Another command holds the lock, and this strategy does not wait.
    #[error("lock held by another command")]
    Busy,
    /// The same command is being decided elsewhere, and did not finish in time.
    #[error("timed out waiting for the same command, which is still being decided")]
    InProgress,
    /// The store did not answer; whether the command took effect may be unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A defect. The command had no effect.
    #[error("the command could not be decided: {0}")]
    Internal(#[source] Source),
}

/// Orders requests that meet, and gives each one answer.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Executor: Send + Sync {
    /// Answers by `deadline`, or [`GRACE`](crate::GRACE) later. A caller that drops the future loses its answer, never
    /// the command's atomicity.
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError>;

    /// For a caller that does not wait for the outcome: [`Receipt::Accepted`] once the command is in a log, if the
    /// strategy has one; otherwise the same as [`Executor::execute`].
    async fn submit(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        self.execute(request, deadline).await
    }

    /// Whether `request` is refused as [`ExecuteError::Overloaded`], and counted as such, before anything is done for it:
    /// at many times the load that can be served, refusals are most of the work. `false` promises nothing.
    fn would_reject(&self, _request: &Request) -> bool {
        false
    }
}
