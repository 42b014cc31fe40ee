use super::*;
use crate::testing::{ScriptedLedger, charge, committed, policy, reply_to, soon, until};
use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey};
use boxoffice_ports::{Committed, Guard, LedgerError, StoredAnswer};

fn waiters(ledger: Arc<dyn Ledger>, waiting_max: usize) -> (RowWaiters, Arc<Stats>) {
    let stats = Arc::<Stats>::default();
    (RowWaiters::new(ledger, policy(), stats.clone(), waiting_max), stats)
}

fn add(waiters: &RowWaiters, request: Request) -> oneshot::Receiver<Answer> {
    let (answer, answered) = oneshot::channel();
    let rows = request.command.rows();
    waiters.add(request, &rows, soon(), answer);
    answered
}

#[tokio::test(start_paused = true)]
async fn commands_beyond_the_bound_are_overloaded() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (waiters, stats) = waiters(ledger.clone(), 3);
    ledger.lock_wallet(1);
    let waiting: Vec<_> = (0..3).map(|n| add(&waiters, charge(1, n))).collect();
    assert!(matches!(add(&waiters, charge(1, 3)).await.unwrap(), Err(ExecuteError::Overloaded)));
    assert_eq!((stats.held_commands.get(), stats.overloaded.get()), (3, 1));
    ledger.unlock_all();
    for (n, caller) in waiting.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), reply_to(&charge(1, n as u128)));
    }
    assert!(waiters.must_wait([&charge(1, 4)]).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_is_gone_is_dropped_and_delays_no_other() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (waiters, _) = waiters(ledger.clone(), 10);
    ledger.lock_wallet(1);
    drop(add(&waiters, charge(1, 0)));
    let next = add(&waiters, charge(1, 1));
    ledger.unlock_all();
    next.await.unwrap().unwrap();
    assert_eq!(ledger.batches(), [[1]]);
}

/// Panics when it is asked which rows are held.
struct Panics(Arc<ScriptedLedger>);

#[async_trait]
impl Ledger for Panics {
    async fn transact(&self, batch: Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        self.0.transact(batch, guard, deadline).await
    }

    async fn held(&self, _: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError> {
        panic!("the test's panic")
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        self.0.reply(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_no_command_waiting_for_ever() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (waiters, _) = waiters(Arc::new(Panics(ledger.clone())), 10);
    ledger.lock_wallet(1);
    let lost = [add(&waiters, charge(1, 0)), add(&waiters, charge(1, 1))];
    for caller in lost {
        assert!(caller.await.is_err(), "its caller gets an error");
    }
    until(|| waiters.must_wait([&charge(1, 2)]).is_none()).await;
    ledger.unlock_all();
    assert_eq!(add(&waiters, charge(1, 3)).await.unwrap().unwrap(), reply_to(&charge(1, 3)), "it begins anew");
}
