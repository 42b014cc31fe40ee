//! Giving back what somebody holds, because they leave or are gone: the system's own commands, under no strategy.
//!
//! *Round trips.* One to look, one a transaction of [`TOGETHER_MAX`] holds. What was paid or ran out meanwhile is refused by the
//! decision, and stays as it is.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Actor, Batch, Command, CommandId, ConcertId, FreshIds, Policy, Request, ReservationId, UserId};
use boxoffice_ports::{Deadline, Guard, Ids, Ledger, LedgerError, Queries, StoreError};

/// How often it is tried when the store asks for it to be run again.
const TRIES_MAX: u32 = 3;
/// Holds given back in one transaction.
const TOGETHER_MAX: usize = 200;
/// How long one transaction may take.
const CALL_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum NotReturned {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// See the module's opening.
pub struct HoldReturns {
    ledger: Arc<dyn Ledger>,
    queries: Arc<dyn Queries>,
    ids: Arc<dyn Ids>,
    policy: Arc<Policy>,
}

impl HoldReturns {
    /// `ledger` is the watched one.
    pub fn new(ledger: Arc<dyn Ledger>, queries: Arc<dyn Queries>, ids: Arc<dyn Ids>, policy: Arc<Policy>) -> Arc<Self> {
        Arc::new(Self { ledger, queries, ids, policy })
    }

    /// Gives back every live hold that this user has of the concert.
    pub async fn all_of(&self, user: UserId, concert: ConcertId) -> Result<(), NotReturned> {
        let holds = self.queries.live_holds(user, concert).await?;
        for some in holds.chunks(TOGETHER_MAX) {
            let batch = Batch::new(some.iter().map(|hold| self.release(*hold)).collect::<Vec<_>>(), self.policy.clone());
            let mut tried = 1;
            loop {
                match self.ledger.transact(batch.clone(), Guard::RowLock, Deadline::after(CALL_MAX)).await {
                    Ok(_) => break,
                    Err(LedgerError::Retryable(_) | LedgerError::Conflict) if tried < TRIES_MAX => tried += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn release(&self, reservation: ReservationId) -> Request {
        let fresh = || self.ids.fresh();
        Request {
            command_id: CommandId(fresh()),
            actor: Actor::System,
            fingerprint: None,
            fresh: FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] },
            command: Command::ReleaseHold { reservation },
        }
    }
}
