//! Writing down what has already taken effect: holds that are over, replies past their time.
//!
//! A hold is over at its `expires_at` whether or not a sweep comes by; the sweep writes the reservation's row, frees
//! the seats that still name it and tells of it. It works in batches of [`SWEEP_BATCH`], each a ledger call like any
//! other, so that other commands go in between. Two instances that sweep the same hold write it once: the second one's
//! command finds nothing due.

use std::sync::Arc;

use boxoffice_domain::{Actor, Batch, Command, CommandId, FreshIds, Policy, Request, ReservationId};
use boxoffice_ports::{Guard, Ids, Ledger, Source, Upkeep};

use crate::Stats;

/// Holds swept in one ledger call.
pub(crate) const SWEEP_BATCH: u32 = 500;
/// Replies pruned in one step.
const PRUNE_BATCH: u32 = 2_000;

pub(crate) struct Sweep {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) upkeep: Arc<dyn Upkeep>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) stats: Arc<Stats>,
}

impl Sweep {
    /// Sweeps until nothing is due.
    pub(crate) async fn holds(&self) -> Result<(), Source> {
        loop {
            let due = self.upkeep.due_holds(SWEEP_BATCH).await?;
            let full = due.len() as u32 >= SWEEP_BATCH;
            if due.is_empty() {
                return Ok(());
            }
            let requests: Vec<_> = due.into_iter().map(|hold| self.expire(hold)).collect();
            let count = requests.len() as u64;
            self.ledger.transact(Batch::new(requests, self.policy.clone()), Guard::RowLock).await?;
            self.stats.swept_holds.add(count);
            if !full {
                return Ok(());
            }
        }
    }

    fn expire(&self, reservation: ReservationId) -> Request {
        let fresh = self.ids.fresh();
        Request {
            command_id: CommandId(fresh),
            actor: Actor::System,
            fingerprint: None,
            // An expiry creates nothing.
            fresh: FreshIds { subject: fresh, entry: fresh, points: [fresh; 2] },
            command: Command::ExpireHold { reservation },
        }
    }

    /// Prunes until nothing is past its time.
    pub(crate) async fn replies(&self) -> Result<(), Source> {
        while self.upkeep.prune_replies(PRUNE_BATCH).await? >= u64::from(PRUNE_BATCH) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
