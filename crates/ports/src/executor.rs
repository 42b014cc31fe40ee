use async_trait::async_trait;
use boxoffice_domain::{CommandId, Reply, Request};

use crate::{Deadline, Source};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    Done(Reply),
    /// It is in a log and will be decided; ask for it by its id.
    Accepted(CommandId),
}

/// Why there is no answer. None of these is stored, and each is safe to try again with the same key.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// More came than can be served in time. Nothing was done.
    #[error("more commands are waiting than can be served")]
    Overloaded,
    /// Somebody else holds the lock, and this strategy does not wait.
    #[error("somebody else is at it")]
    Busy,
    /// The same command is being decided elsewhere, and did not finish in time.
    #[error("the same command is still being decided")]
    InProgress,
    /// The store stayed away; whether the command took effect may be unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A defect of ours. The command had no effect.
    #[error("the command could not be decided: {0}")]
    Internal(#[source] Source),
}

/// Decides who goes next, and sees to it that every request gets one answer.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Executor: Send + Sync {
    /// Answers by `deadline`, or [`GRACE`](crate::GRACE) later. A caller that drops the future loses its answer, never
    /// the command's atomicity.
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError>;

    /// For a caller that does not wait for the outcome: where commands are kept in a log, [`Receipt::Accepted`] as soon
    /// as it stands there; the same as [`Executor::execute`] otherwise.
    async fn submit(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        self.execute(request, deadline).await
    }

    /// Whether `request` is refused as [`ExecuteError::Overloaded`] before anything is done for it, and counted as such:
    /// at many times what can be answered refusals are most of the work. `false` promises nothing.
    fn turns_away(&self, _request: &Request) -> bool {
        false
    }
}
