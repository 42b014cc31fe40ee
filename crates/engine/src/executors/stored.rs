//! Looking up in the ledger what a request was answered before.

use std::sync::Arc;

use boxoffice_domain::{Decision, Rejection, Reply, Request};
use boxoffice_ports::{Deadline, ExecuteError, Ledger};

/// The reply stored for `request`, if it has one: the same answer, or that its key was used for another request. A
/// store that has not answered by `deadline` is unavailable.
pub(super) async fn stored(ledger: &Arc<dyn Ledger>, request: &Request, deadline: Deadline) -> Result<Option<Reply>, ExecuteError> {
    let Some((key, fingerprint)) = request.idempotency() else { return Ok(None) };
    let stored = deadline.bound(ledger.reply(key)).await.map_err(|overdue| ExecuteError::Unavailable(overdue.into()))?;
    let stored = stored.map_err(|error| ExecuteError::Unavailable(error.into()))?;
    Ok(stored.map(|answer| {
        if answer.fingerprint == fingerprint {
            answer.reply
        } else {
            Reply { decision: Decision::Refused(Rejection::IdempotencyKeyReused), replayed: false, ..answer.reply }
        }
    }))
}
