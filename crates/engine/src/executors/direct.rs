//! `pessimistic` and `optimistic`: no lock in front, the ledger's own guard decides which command goes next. One
//! command, one commit.
//!
//! Under [`Guard::RowLock`] commands queue for the rows they change, in the ledger. Under [`Guard::Version`] all of
//! them read, the first commit wins, and the others try again. Either way each command runs in a task of its own: a
//! caller that goes away leaves no half command.
//!
//! *Bounds.* The request's deadline, queueing for a permit included; at most as many commands at the ledger as there
//! are permits. See `one_by_one` for what is retried and what the caller gets in the end.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{Policy, Request};
use boxoffice_ports::{Deadline, ExecuteError, Executor, Guard, Ledger, Receipt};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::one_by_one::OneByOne;
use crate::Stats;

/// See the module's opening.
pub struct Direct {
    ledger: Arc<OneByOne>,
}

impl Direct {
    pub fn new(ledger: Arc<dyn Ledger>, guard: Guard, policy: Arc<Policy>, permits: Arc<Semaphore>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { ledger: Arc::new(OneByOne::new(ledger, guard, policy, permits, stats)) })
    }
}

#[async_trait]
impl Executor for Direct {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        let ledger = self.ledger.clone();
        let decide = async move { ledger.decide(&request, deadline, std::future::pending()).await };
        let task = tokio::spawn(decide.in_current_span());
        task.await.map_err(|panic| ExecuteError::Internal(panic.to_string().into()))?.map(Receipt::Done)
    }
}

#[cfg(test)]
mod tests;
