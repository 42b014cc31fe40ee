//! Giving back the holds of buyers that leave or are gone: the system's own commands, under no strategy.
//!
//! The request of a buyer that leaves waits for it ([`HoldReturns::all_of`]). For buyers that are gone it is done soon,
//! beside promotion, in rounds: thousands may be gone at once, when a network fails.
//!
//! *Round trips.* One read for [`LOOKED_TOGETHER`] users, and one transaction for [`TOGETHER_MAX`] holds. A hold that
//! was paid or ran out meanwhile is refused by the decision, and stays as it is.
//!
//! *Failure.* Holds that the store does not take are tried again in the next round. A row that is locked, or that the
//! store refuses, delays its own hold and no other. At most [`DUE_MAX`] wait. Beyond that, and after a crash, holds run
//! out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use boxoffice_domain::{Actor, Batch, Command, CommandId, ConcertId, FreshIds, Policy, Request, ReservationId, UserId};
use boxoffice_ports::{Deadline, Guard, Ids, Ledger, LedgerError, Queries, Source, StoreError};

use crate::sync::lock;

/// How often a transaction is run when it may succeed on another try.
const TRIES_MAX: u32 = 3;
/// Holds given back in one transaction.
const TOGETHER_MAX: usize = 500;
/// Users whose holds are looked for in one read.
const LOOKED_TOGETHER: usize = 2_000;
/// Users, and holds, that wait to be given back.
const DUE_MAX: usize = 100_000;
/// How long one transaction may take.
const CALL_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ReturnError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What is to be given back soon.
#[derive(Default)]
struct Due {
    users: HashMap<ConcertId, Vec<UserId>>,
    /// How many users those are.
    count: usize,
    /// Found in an earlier round, and not given back yet.
    holds: Vec<ReservationId>,
}

/// See the module's opening.
pub struct HoldReturns {
    ledger: Arc<dyn Ledger>,
    queries: Arc<dyn Queries>,
    ids: Arc<dyn Ids>,
    policy: Arc<Policy>,
    due: Mutex<Due>,
}

impl HoldReturns {
    /// `ledger` is the observed one.
    pub fn new(ledger: Arc<dyn Ledger>, queries: Arc<dyn Queries>, ids: Arc<dyn Ids>, policy: Arc<Policy>) -> Arc<Self> {
        Arc::new(Self { ledger, queries, ids, policy, due: Mutex::default() })
    }

    /// Gives back every live hold that this user has of the concert.
    pub async fn all_of(&self, user: UserId, concert: ConcertId) -> Result<(), ReturnError> {
        let holds = self.queries.live_holds(user, concert).await?;
        for some in holds.chunks(TOGETHER_MAX) {
            self.give_back(some).await?;
        }
        Ok(())
    }

    /// The same for users that are gone, in the next round.
    pub(crate) fn soon(&self, concert: ConcertId, users: Vec<UserId>) {
        let mut due = self.due();
        let free = DUE_MAX.saturating_sub(due.count);
        if users.len() > free {
            tracing::warn!(concert.id = %concert, users = users.len() - free, "too many holds wait to be given back; those of these users run out");
        }
        let before = due.users.get(&concert).map_or(0, Vec::len);
        let of_concert = due.users.entry(concert).or_default();
        of_concert.extend(users.into_iter().take(free));
        let added = of_concert.len() - before;
        due.count += added;
    }

    /// Gives back what is due. Returns the first failure, after the other parts have been tried.
    pub(crate) async fn round(&self) -> Result<(), Source> {
        let (mut failed, mut left) = (Ok(()), Vec::new());
        let mut holds = std::mem::take(&mut self.due().holds);
        loop {
            let mut parts: VecDeque<&[ReservationId]> = holds.chunks(TOGETHER_MAX).collect();
            while let Some(part) = parts.pop_front() {
                match self.give_back(part).await {
                    Ok(()) => {}
                    // The halves go behind all others: a row that is locked delays its own hold alone.
                    Err(LedgerError::Refused(_) | LedgerError::LockTimeout) if part.len() > 1 => {
                        parts.extend([&part[..part.len() / 2], &part[part.len() / 2..]]);
                    }
                    Err(LedgerError::Refused(error)) => {
                        tracing::error!(error, reservation.id = ?part.first(), "the store refuses to release a hold");
                    }
                    Err(error) => {
                        left.extend_from_slice(part);
                        if matches!(error, LedgerError::Unavailable(_)) {
                            // The store would not take the others either.
                            left.extend(parts.drain(..).flatten());
                        }
                        failed = failed.and(Err(error.into()));
                    }
                }
            }
            if failed.is_err() {
                break;
            }
            let Some((concert, users)) = self.next_users() else { break };
            holds = match self.queries.live_holds_of(users.clone(), concert).await {
                Ok(holds) => holds,
                Err(error) => {
                    self.soon(concert, users);
                    failed = Err(error.into());
                    break;
                }
            };
        }
        left.truncate(DUE_MAX);
        self.due().holds = left;
        failed
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        lock(&self.due)
    }

    /// Takes out some users of one concert.
    fn next_users(&self) -> Option<(ConcertId, Vec<UserId>)> {
        let mut due = self.due();
        let concert = *due.users.keys().next()?;
        let mut users = due.users.remove(&concert)?;
        let rest = users.split_off(users.len().min(LOOKED_TOGETHER));
        if !rest.is_empty() {
            due.users.insert(concert, rest);
        }
        due.count -= users.len();
        Some((concert, users))
    }

    /// Gives back holds in one transaction.
    async fn give_back(&self, holds: &[ReservationId]) -> Result<(), LedgerError> {
        let batch = Batch::new(holds.iter().map(|hold| self.release(*hold)).collect::<Vec<_>>(), self.policy.clone());
        let mut tried = 1;
        loop {
            match self.ledger.transact(batch.clone(), Guard::RowLock, Deadline::after(CALL_MAX)).await {
                Ok(_) => return Ok(()),
                Err(LedgerError::Retryable(_) | LedgerError::Conflict) if tried < TRIES_MAX => tried += 1,
                Err(error) => return Err(error),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, ScriptedLedger, TestIds, committed, id, policy};
    use boxoffice_ports::MockQueries;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn users(count: u128) -> Vec<UserId> {
        (1..=count).map(id).collect()
    }

    /// Each user has one hold, whose id is the user's number.
    fn queries() -> Arc<MockQueries> {
        let mut queries = MockQueries::new();
        queries.expect_live_holds_of().returning(|users, concert| {
            assert_eq!(concert, id(CONCERT));
            Ok(users.into_iter().map(|user| ReservationId(user.0)).collect())
        });
        Arc::new(queries)
    }

    fn released(batch: &Batch) -> Vec<ReservationId> {
        let of = |request: &Request| match request.command {
            Command::ReleaseHold { reservation } => reservation,
            ref other => panic!("{other:?}"),
        };
        batch.requests.iter().map(of).collect()
    }

    #[tokio::test]
    async fn ten_thousand_holds_are_a_few_transactions() {
        let (given, calls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, called) = (given.clone(), calls.clone());
        let ledger = ScriptedLedger::new(move |batch: &Batch| {
            called.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().extend(released(batch));
            Ok(committed(batch))
        });
        let returns = HoldReturns::new(ledger, queries(), TestIds::new(), policy());
        returns.soon(id(CONCERT), users(10_000));
        returns.round().await.unwrap();
        let mut given = given.lock().unwrap().clone();
        given.sort_unstable();
        given.dedup();
        let called = calls.load(Ordering::SeqCst);
        assert_eq!(given.len(), 10_000, "each once");
        assert!(called <= 50, "{called} transactions");
        returns.round().await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), called, "nothing is due any more");
    }

    #[tokio::test]
    async fn a_locked_hold_delays_no_other_and_is_given_back_later() {
        let is_locked = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let given = Arc::new(Mutex::new(Vec::new()));
        let (seen, locked) = (given.clone(), is_locked.clone());
        let ledger = ScriptedLedger::new(move |batch: &Batch| {
            let holds = released(batch);
            if locked.load(Ordering::SeqCst) && holds.contains(&id(7)) {
                return Err(LedgerError::LockTimeout);
            }
            seen.lock().unwrap().extend(holds);
            Ok(committed(batch))
        });
        let returns = HoldReturns::new(ledger, queries(), TestIds::new(), policy());
        returns.soon(id(CONCERT), users(600));
        assert!(returns.round().await.is_err());
        assert_eq!(given.lock().unwrap().len(), 599);
        is_locked.store(false, Ordering::SeqCst);
        returns.round().await.unwrap();
        assert_eq!(given.lock().unwrap().iter().filter(|hold| **hold == id(7)).count(), 1);
    }

    #[tokio::test]
    async fn a_failed_look_up_of_holds_is_repeated_in_the_next_round() {
        let mut queries = MockQueries::new();
        queries.expect_live_holds_of().times(1).returning(|_, _| Err(StoreError::Unavailable("away".into())));
        queries.expect_live_holds_of().times(1).returning(|users, _| Ok(users.into_iter().map(|user| ReservationId(user.0)).collect()));
        let given = Arc::new(AtomicUsize::new(0));
        let seen = given.clone();
        let ledger = ScriptedLedger::new(move |batch: &Batch| {
            seen.fetch_add(batch.requests.len(), Ordering::SeqCst);
            Ok(committed(batch))
        });
        let returns = HoldReturns::new(ledger, Arc::new(queries), TestIds::new(), policy());
        returns.soon(id(CONCERT), users(3));
        assert!(returns.round().await.is_err());
        returns.round().await.unwrap();
        assert_eq!(given.load(Ordering::SeqCst), 3);
    }
}
