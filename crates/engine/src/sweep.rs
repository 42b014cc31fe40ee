//! Writing down what has already taken effect: holds that are over, and replies past their time.
//!
//! A hold is over at its `expires_at`, with or without a sweep. The sweep writes the reservation's row, frees the seats
//! that still name it and emits its event. It works in batches of [`SWEEP_BATCH`], each a ledger call like any other,
//! so that other commands go in between. Two instances that sweep the same hold write it once: the second one's command
//! finds nothing due. Holds whose rows another transaction keeps locked are left for the next round, and a hold that
//! the store refuses is skipped: neither delays the others.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{Actor, Batch, Command, CommandId, FreshIds, Key, Policy, Request, ReservationId};
use boxoffice_ports::{Deadline, Guard, Ids, Ledger, LedgerError, Source, Upkeep};

use crate::Stats;

/// Holds swept in one ledger call.
pub(crate) const SWEEP_BATCH: usize = 500;
/// Due holds looked up in one step.
const LOOK_AHEAD: u32 = 4_000;
/// Replies pruned in one step.
const PRUNE_BATCH: u32 = 2_000;
/// How long one ledger call may take. What it did not do stays due.
const CALL_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Sweep {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) upkeep: Arc<dyn Upkeep>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) stats: Arc<Stats>,
}

impl Sweep {
    /// Sweeps until nothing is due, or another transaction is in conflict with all of it.
    pub(crate) async fn holds(&self) -> Result<(), Source> {
        loop {
            let due = self.upkeep.due_holds(LOOK_AHEAD).await?;
            let mut swept = 0;
            for batch in due.chunks(SWEEP_BATCH) {
                match self.expire_all(batch).await? {
                    Some(count) => swept += count,
                    None => return Ok(()),
                }
            }
            self.stats.swept_holds.add(swept);
            // What is refused stays due: if nothing was swept, another look would find the same holds.
            if due.len() < LOOK_AHEAD as usize || swept == 0 {
                return Ok(());
            }
        }
    }

    /// How many were written; `None` if another transaction is in conflict with the batch.
    async fn expire_all(&self, holds: &[ReservationId]) -> Result<Option<u64>, Source> {
        let (mut parts, mut swept) = (vec![holds.to_vec()], 0);
        while let Some(part) = parts.pop() {
            let requests: Arc<[Request]> = part.iter().map(|&hold| self.expire(hold)).collect();
            let batch = Batch { requests: requests.clone(), policy: self.policy.clone() };
            match self.ledger.transact(batch, Guard::RowLock, Deadline::after(CALL_MAX)).await {
                Ok(_) => swept += part.len() as u64,
                Err(LedgerError::Refused(error)) => match part.as_slice() {
                    [hold] => tracing::error!(error, reservation.id = %hold, "the store refuses to let a hold expire"),
                    part => parts.extend(halves(part)),
                },
                Err(LedgerError::LockTimeout) => {
                    let held = self.ledger.held(requests).await?;
                    let free = part.iter().copied().filter(|hold| !held.contains(&Key::Reservation(*hold))).collect::<Vec<_>>();
                    match free.len() {
                        // A lock that cannot be seen, or was released just now: the hold is left for the next round.
                        1 if part.len() == 1 => {}
                        all if all == part.len() => parts.extend(halves(&part)),
                        0 => {}
                        _ => parts.push(free),
                    }
                }
                Err(error @ (LedgerError::Conflict | LedgerError::Retryable(_))) => {
                    tracing::debug!(%error, "another transaction is in conflict with a sweep; the holds stay due");
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(swept))
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

fn halves(holds: &[ReservationId]) -> [Vec<ReservationId>; 2] {
    let (left, right) = holds.split_at(holds.len() / 2);
    [left.to_vec(), right.to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ScriptedLedger, TestIds, committed, id, policy};
    use boxoffice_ports::MockUpkeep;
    use std::sync::Mutex;

    fn sweep(due: Vec<Vec<u128>>, ledger: Arc<ScriptedLedger>) -> Sweep {
        let due = Mutex::new(due.into_iter());
        let mut upkeep = MockUpkeep::new();
        upkeep.expect_due_holds().returning(move |limit| {
            assert_eq!(limit, LOOK_AHEAD);
            Ok(due.lock().unwrap().next().unwrap_or_default().into_iter().map(id).collect())
        });
        Sweep { ledger, upkeep: Arc::new(upkeep), ids: TestIds::new(), policy: policy(), stats: Arc::default() }
    }

    #[tokio::test]
    async fn holds_are_swept_a_batch_at_a_time_until_none_is_due() {
        let ledger = ScriptedLedger::new(|batch| {
            for request in batch.requests.iter() {
                assert!(matches!(request.command, Command::ExpireHold { .. }));
                assert_eq!((request.actor, request.fingerprint), (Actor::System, None));
            }
            Ok(committed(batch))
        });
        let full: Vec<u128> = (0..u128::from(LOOK_AHEAD)).collect();
        let sweep = sweep(vec![full.clone(), full, (0..503).collect()], ledger.clone());
        sweep.holds().await.unwrap();
        let sizes: Vec<_> = ledger.batches().iter().map(Vec::len).collect();
        assert_eq!((sizes.len(), sizes.iter().max(), &sizes[16..]), (18, Some(&500), [500, 3].as_slice()));
        assert_eq!(sweep.stats.swept_holds.get(), 8_503);
        assert!(ledger.guards.lock().unwrap().iter().all(|guard| *guard == Guard::RowLock));
    }

    #[tokio::test]
    async fn a_sweep_that_fails_returns_the_error_and_ends_its_round() {
        let ledger = ScriptedLedger::new(|_| Err(LedgerError::Unavailable("gone".into())));
        let sweep = sweep(vec![vec![1]; 3], ledger.clone());
        assert!(sweep.holds().await.is_err());
        assert_eq!(ledger.batches().len(), 1);
    }

    #[tokio::test]
    async fn conflicts_with_another_transaction_end_the_round() {
        for error in [|| LedgerError::Retryable("deadlock".into()), || LedgerError::Conflict] {
            let ledger = ScriptedLedger::new(move |_| Err(error()));
            let sweep = sweep(vec![(0..1_000).collect()], ledger.clone());
            sweep.holds().await.unwrap();
            assert_eq!((ledger.batches().len(), sweep.stats.swept_holds.get()), (1, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_whose_row_is_locked_stays_for_the_next_round_and_delays_no_other() {
        for sees_locks in [true, false] {
            let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
            ledger.locked.lock().unwrap().insert(Key::Reservation(id(7)));
            ledger.sees_locks.store(sees_locks, std::sync::atomic::Ordering::SeqCst);
            let sweep = sweep(vec![(0..600).collect(), vec![7]], ledger.clone());
            sweep.holds().await.unwrap();
            assert_eq!(sweep.stats.swept_holds.get(), 599);
            ledger.unlock_all();
            sweep.holds().await.unwrap();
            assert_eq!(sweep.stats.swept_holds.get(), 600);
        }
    }

    #[tokio::test]
    async fn a_hold_that_is_refused_delays_no_other() {
        let ledger = ScriptedLedger::new(|batch| {
            let refused = batch.requests.iter().any(|request| request.command == Command::ExpireHold { reservation: id(7) });
            if refused { Err(LedgerError::Refused("data".into())) } else { Ok(committed(batch)) }
        });
        let full: Vec<u128> = (0..u128::from(LOOK_AHEAD)).collect();
        let sweep = sweep(vec![full, vec![7]], ledger.clone());
        sweep.holds().await.unwrap();
        assert_eq!(sweep.stats.swept_holds.get(), u64::from(LOOK_AHEAD) - 1);
    }

    #[tokio::test]
    async fn a_round_of_nothing_but_refusals_ends() {
        let ledger = ScriptedLedger::new(|_| Err(LedgerError::Refused("data".into())));
        let full: Vec<u128> = (0..u128::from(LOOK_AHEAD)).collect();
        let sweep = sweep(vec![full.clone(), full], ledger.clone());
        sweep.holds().await.unwrap();
        assert_eq!(ledger.batches().iter().filter(|batch| batch.len() == 1).count(), LOOK_AHEAD as usize, "each was tried once");
    }

    #[tokio::test]
    async fn replies_are_pruned_in_bounded_steps() {
        let mut upkeep = MockUpkeep::new();
        let steps = Mutex::new(vec![2_000, 2_000, 7].into_iter());
        upkeep.expect_prune_replies().times(3).returning(move |limit| {
            assert_eq!(limit, PRUNE_BATCH);
            Ok(steps.lock().unwrap().next().unwrap())
        });
        let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
        let sweep = Sweep { upkeep: Arc::new(upkeep), ledger, ids: TestIds::new(), policy: policy(), stats: Arc::default() };
        sweep.replies().await.unwrap();
    }
}
