use super::super::attempt::TRIES;
use super::*;
use crate::testing::{LOCK_TIMEOUT, ScriptedLedger, WAIT, charge, committed, policy, reply_to, soon, until};
use boxoffice_domain::Fingerprint;
use boxoffice_ports::{LedgerError, StoredAnswer};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::time::Instant;

fn direct(ledger: &Arc<ScriptedLedger>, guard: Guard, permits: usize) -> (Arc<Direct>, Arc<Stats>) {
    let stats = Arc::<Stats>::default();
    (Direct::new(ledger.clone(), guard, policy(), Arc::new(Semaphore::new(permits)), stats.clone()), stats)
}

/// Fails `times` times, then commits.
fn failing(times: u32, error: fn() -> LedgerError) -> Arc<ScriptedLedger> {
    let left = AtomicU32::new(times);
    ScriptedLedger::new(move |batch| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err(error()) } else { Ok(committed(batch)) }
    })
}

#[tokio::test]
async fn a_command_is_decided_under_its_guard() {
    for guard in [Guard::RowLock, Guard::Version] {
        let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
        let (executor, stats) = direct(&ledger, guard, 1);
        assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 5))));
        assert_eq!((ledger.batches(), ledger.guards.lock().unwrap().as_slice()), (vec![vec![5]], [guard].as_slice()));
        assert_eq!((stats.commands.get(), stats.batches.get(), stats.retries.get()), (1, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_run_again_until_the_wait_is_over() {
    let ledger = failing(30, || LedgerError::Conflict);
    let (executor, stats) = direct(&ledger, Guard::Version, 1);
    assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 5))));
    assert_eq!((ledger.batches().len(), stats.retries.get()), (31, 30));

    let ledger = failing(u32::MAX, || LedgerError::Conflict);
    let (executor, stats) = direct(&ledger, Guard::Version, 1);
    let before = Instant::now();
    assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Busy)));
    assert!(before.elapsed() <= WAIT);
    assert_eq!(stats.busy.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_run_again_a_few_times() {
    let error = || LedgerError::Retryable("deadlock".into());
    let ledger = failing(TRIES - 1, error);
    assert!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await.is_ok());
    let ledger = failing(TRIES, error);
    assert!(matches!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
    assert_eq!(ledger.batches().len(), TRIES as usize);
    let ledger = failing(1, || LedgerError::Refused("data".into()));
    assert!(matches!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await, Err(ExecuteError::Internal(_))));
    assert_eq!(ledger.batches().len(), 1, "it would be refused again");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_waited_for_until_the_wait_is_over() {
    let ledger = failing(10, || LedgerError::Unavailable("restarting".into()));
    assert!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await.is_ok());
    let ledger = failing(u32::MAX, || LedgerError::Unavailable("gone".into()));
    let before = Instant::now();
    assert!(matches!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
    assert!(before.elapsed() <= WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_found() {
    let found = StoredAnswer { fingerprint: Fingerprint([5; 32]), reply: reply_to(&charge(1, 5)) };
    let ledger = failing(u32::MAX, || LedgerError::Retryable("lost connection".into()));
    ledger.stored.lock().unwrap().push_back(Some(found.clone()));
    assert_eq!(direct(&ledger, Guard::RowLock, 1).0.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(found.reply));
}

#[tokio::test]
async fn a_panic_costs_its_command_alone() {
    let ledger =
        ScriptedLedger::new(|batch| if batch.requests[0] == charge(1, 5) { panic!("the test's panic") } else { Ok(committed(batch)) });
    let (executor, _) = direct(&ledger, Guard::RowLock, 1);
    assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Internal(_))));
    assert!(executor.execute(charge(1, 6), soon()).await.is_ok(), "its permit came back");
}

#[tokio::test(start_paused = true)]
async fn commands_queue_for_permits_in_the_order_they_came() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = direct(&ledger, Guard::RowLock, 2);
    let mut sent = Vec::new();
    for n in 1..=6 {
        let executor = executor.clone();
        sent.push(tokio::spawn(async move { executor.execute(charge(1, n), soon()).await }));
        // Each stands in the queue before the next comes.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ledger.begun.load(Ordering::SeqCst), 2, "no more than there are permits");
    for done in 1..=4 {
        ledger.let_through(1);
        until(|| ledger.begun.load(Ordering::SeqCst) == 2 + done && ledger.batches().len() == done).await;
    }
    assert_eq!(ledger.batches(), [vec![1], vec![2], vec![3], vec![4]]);
    let before = Instant::now();
    let late = executor.execute(charge(1, 7), soon()).await;
    assert!(matches!(late, Err(ExecuteError::Overloaded)) && before.elapsed() == WAIT, "{late:?}");
    assert_eq!(stats.overloaded.get(), 1);
    ledger.let_through(9);
    for (at, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().is_ok(), at < 4, "two were at the ledger at their deadline");
    }
    until(|| ledger.batches().len() == 6).await;
    assert!(ledger.batches().iter().all(|batch| *batch != [7]), "what was refused is not decided later");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_command() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = direct(&ledger, Guard::RowLock, 1);
    let going = executor.clone();
    let caller = tokio::spawn(async move { going.execute(charge(1, 5), soon()).await });
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    caller.abort();
    assert!(caller.await.is_err());
    ledger.let_through(2);
    assert!(executor.execute(charge(1, 6), soon()).await.is_ok(), "its permit came back");
    assert_eq!(ledger.batches(), [vec![5], vec![6]]);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_hangs_is_given_up_at_the_deadline() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = direct(&ledger, Guard::RowLock, 1);
    let before = Instant::now();
    let answer = executor.execute(charge(1, 5), soon()).await;
    assert!(matches!(answer, Err(ExecuteError::Unavailable(_))), "{answer:?}");
    assert_eq!(before.elapsed(), WAIT, "its look-up was answered at once");
    ledger.let_through(2);
    assert!(executor.execute(charge(1, 6), soon()).await.is_ok(), "its permit came back");
    until(|| ledger.batches().len() == 2).await;
    assert_eq!(ledger.batches().concat(), [5, 6], "what was begun went on");
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_takes_no_more_than_the_grace() {
    let mut hangs = boxoffice_ports::MockLedger::new();
    hangs.expect_transact().returning(|_, _, _| Err(LedgerError::Unavailable("gone".into())));
    let executor = Direct::new(Arc::new(HungLookUp(hangs)), Guard::RowLock, policy(), Arc::new(Semaphore::new(1)), Arc::default());
    let before = Instant::now();
    let answer = executor.execute(charge(1, 5), soon()).await;
    assert!(matches!(answer, Err(ExecuteError::Unavailable(_))), "{answer:?}");
    assert!(before.elapsed() <= WAIT + boxoffice_ports::GRACE, "{:?}", before.elapsed());
}

/// Answers no look-up.
struct HungLookUp(boxoffice_ports::MockLedger);

#[async_trait]
impl Ledger for HungLookUp {
    async fn transact(
        &self,
        batch: boxoffice_domain::Batch,
        guard: Guard,
        deadline: Deadline,
    ) -> Result<boxoffice_ports::Committed, LedgerError> {
        self.0.transact(batch, guard, deadline).await
    }

    async fn reply(&self, _: boxoffice_domain::IdempotencyKey) -> Result<Option<boxoffice_ports::StoredAnswer>, LedgerError> {
        std::future::pending().await
    }
}

/// With one permit, a caller that kept it while waiting for its row would delay all others.
#[tokio::test(start_paused = true)]
async fn callers_of_a_held_row_wait_without_a_permit_and_get_through_in_order() {
    for guard in [Guard::RowLock, Guard::Version] {
        let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
        let (executor, stats) = direct(&ledger, guard, 1);
        ledger.lock_wallet(1);
        let mut kept = Vec::new();
        for n in 0..5 {
            let executor = executor.clone();
            kept.push(tokio::spawn(async move { executor.execute(charge(1, n), soon()).await }));
            until(|| stats.held_commands.get() == n as u64 + 1 || ledger.begun.load(Ordering::SeqCst) > 0).await;
        }
        let before = Instant::now();
        for n in 10..30 {
            executor.execute(charge(n, n), soon()).await.unwrap();
        }
        assert!(before.elapsed() <= 2 * LOCK_TIMEOUT, "one time-out, during which the permit was taken: {:?}", before.elapsed());
        ledger.unlock_all();
        for caller in kept {
            caller.await.unwrap().unwrap();
        }
        let decided = ledger.batches().concat().into_iter().filter(|n| *n < 10).collect::<Vec<_>>();
        assert!(decided.is_sorted() && decided.len() == 5, "{decided:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_stays_held_is_unavailable_at_the_deadline() {
    for sees_locks in [true, false] {
        let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
        ledger.sees_locks.store(sees_locks, Ordering::SeqCst);
        let (executor, _) = direct(&ledger, Guard::RowLock, 1);
        ledger.lock_wallet(1);
        let before = Instant::now();
        assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
        assert!(before.elapsed() >= WAIT && before.elapsed() < WAIT + 2 * LOCK_TIMEOUT, "{:?}", before.elapsed());
        assert_eq!(ledger.batches(), Vec::<Vec<u128>>::new());
    }
}
