use super::*;
use crate::testing::{ScriptedLedger, charge, committed, policy, reply_to, soon, until};
use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey};
use boxoffice_ports::{Committed, Guard, LedgerError, StoredAnswer};

fn aside(ledger: Arc<dyn Ledger>, waiting_max: usize) -> (Aside, Arc<Stats>) {
    let stats = Arc::<Stats>::default();
    (Aside::new(ledger, policy(), stats.clone(), waiting_max), stats)
}

fn join(aside: &Aside, request: Request) -> oneshot::Receiver<Answer> {
    let (answer, answered) = oneshot::channel();
    let rows = request.command.rows();
    aside.join(request, &rows, soon(), answer);
    answered
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_may() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (aside, stats) = aside(ledger.clone(), 3);
    ledger.lock_wallet(1);
    let waiting: Vec<_> = (0..3).map(|n| join(&aside, charge(1, n))).collect();
    assert!(matches!(join(&aside, charge(1, 3)).await.unwrap(), Err(ExecuteError::Overloaded)));
    assert_eq!((stats.held_commands.get(), stats.overloaded.get()), (3, 1));
    ledger.unlock_all();
    for (n, caller) in waiting.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), reply_to(&charge(1, n as u128)));
    }
    assert!(aside.takes([&charge(1, 4)]).is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_gone_is_not_decided_and_keeps_nobody_back() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (aside, _) = aside(ledger.clone(), 10);
    ledger.lock_wallet(1);
    drop(join(&aside, charge(1, 0)));
    let next = join(&aside, charge(1, 1));
    ledger.unlock_all();
    next.await.unwrap().unwrap();
    assert_eq!(ledger.batches(), [[1]]);
}

/// Panics when it is looked which rows are held.
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
async fn a_panic_leaves_nobody_waiting_for_ever() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (aside, _) = aside(Arc::new(Panics(ledger.clone())), 10);
    ledger.lock_wallet(1);
    let lost = [join(&aside, charge(1, 0)), join(&aside, charge(1, 1))];
    for caller in lost {
        assert!(caller.await.is_err(), "it is told that there will be no answer");
    }
    until(|| aside.takes([&charge(1, 2)]).is_none()).await;
    ledger.unlock_all();
    assert_eq!(join(&aside, charge(1, 3)).await.unwrap().unwrap(), reply_to(&charge(1, 3)), "it begins anew");
}
