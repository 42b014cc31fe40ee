//! Executors that lie, accept without an outcome, reject or hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use boxoffice_app::wiring::{Executors, SystemIds};
use boxoffice_domain::{Command, CommandId, Decision, FreshIds, Outcome, Reply, Request, UserId};
use boxoffice_ports::{Deadline, ExecuteError, Executor, Ids as _, Receipt};

/// The ways in which an executor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Answers with success and does nothing.
    Drops,
    /// Applies the command twice.
    Doubles,
    /// Applies it to another user, and answers with that.
    Misdirects,
    /// Applies a larger amount.
    Exaggerates,
    /// Applies it and answers with the reply to the previous command.
    Repeats,
    /// Applies it and answers with a failure, which leaves the outcome open and is no lie.
    Fails,
}

struct Liar {
    inner: Arc<dyn Executor>,
    lie: Lie,
    received: AtomicU32,
    last: std::sync::Mutex<Option<Reply>>,
}

/// One in so many commands gets a lie.
const ONE_IN: u32 = 4;

fn fresh() -> FreshIds {
    let fresh = || SystemIds.fresh();
    FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] }
}

#[async_trait]
impl Executor for Liar {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        if self.received.fetch_add(1, Ordering::Relaxed) % ONE_IN != ONE_IN - 1 {
            let receipt = self.inner.execute(request, deadline).await?;
            if let Receipt::Done(reply) = &receipt {
                *self.last.lock().unwrap() = Some(reply.clone());
            }
            return Ok(receipt);
        }
        let mut other = Request { command_id: CommandId(SystemIds.fresh()), fresh: fresh(), ..request.clone() };
        match (self.lie, &mut other.command) {
            (Lie::Drops, _) => {
                let last = self.last.lock().unwrap().clone();
                let Some(Reply { decision: Decision::Done(Outcome::Entered { entry }), decided_at, .. }) = last else {
                    return Err(ExecuteError::Busy);
                };
                let entry = boxoffice_domain::WalletEntry { id: SystemIds.fresh().into(), ..entry };
                Ok(Receipt::Done(Reply { decision: Decision::Done(Outcome::Entered { entry }), decided_at, replayed: false }))
            }
            (Lie::Doubles, _) => {
                self.inner.execute(other, deadline).await?;
                self.inner.execute(request, deadline).await
            }
            (Lie::Misdirects, Command::ChargeWallet { user, .. } | Command::UseWallet { user, .. }) => {
                *user = UserId(SystemIds.fresh());
                other.command = Command::ChargeWallet { user: *user, amount: 7 };
                self.inner.execute(other, deadline).await
            }
            (Lie::Exaggerates, Command::ChargeWallet { amount, .. } | Command::UseWallet { amount, .. }) => {
                *amount += 1;
                self.inner.execute(other, deadline).await
            }
            (Lie::Repeats, _) => {
                let last = self.last.lock().unwrap().clone();
                self.inner.execute(request, deadline).await?;
                last.map(Receipt::Done).ok_or(ExecuteError::Busy)
            }
            (Lie::Fails, _) => {
                self.inner.execute(request, deadline).await?;
                Err(ExecuteError::Unavailable("the answer was lost".into()))
            }
            (Lie::Misdirects | Lie::Exaggerates, _) => self.inner.execute(request, deadline).await,
        }
    }
}

pub(super) fn lying(executors: Executors, lie: Lie) -> Executors {
    let liar = |inner| -> Arc<dyn Executor> { Arc::new(Liar { inner, lie, received: AtomicU32::new(0), last: Default::default() }) };
    Executors { seat: executors.seat, wallet: liar(executors.wallet), ..executors }
}

/// Accepts every command and never gives its outcome, as a log whose callers wait for too short a time.
pub(super) struct Accepts(pub(super) Arc<dyn Executor>);

#[async_trait]
impl Executor for Accepts {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        let (inner, command) = (self.0.clone(), request.command_id);
        tokio::spawn(async move { inner.execute(request, deadline).await });
        Ok(Receipt::Accepted(command))
    }
}

/// Rejects every second command.
pub(super) struct Picky(pub(super) Arc<dyn Executor>, pub(super) AtomicU32);

#[async_trait]
impl Executor for Picky {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        match self.1.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Err(ExecuteError::Overloaded),
            _ => self.0.execute(request, deadline).await,
        }
    }
}

/// Never answers.
pub(super) struct Hangs;

#[async_trait]
impl Executor for Hangs {
    async fn execute(&self, _: Request, _: Deadline) -> Result<Receipt, ExecuteError> {
        std::future::pending().await
    }
}
