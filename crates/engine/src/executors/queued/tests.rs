mod held;
mod overload;
mod reading;

use super::outstanding::may_retry;
use super::*;
use crate::Supervisor;
use crate::testing::log::{Appends, Log, MemoryLog};
use crate::testing::{ScriptedLedger, TestClock, WAIT, best, charge, committed, eventually, id, number, policy, reply_to, soon, until};
use boxoffice_domain::Fingerprint;
use boxoffice_ports::{Answer, LedgerError, MockLedger, StoredAnswer};
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const RETENTION: Duration = Duration::from_secs(600);
const SETTINGS: QueuedSettings = QueuedSettings { batch_max: 100, backlog_max: 1_000, wait: WAIT, retention: RETENTION };

fn instance(n: u128) -> InstanceId {
    InstanceId(id(n))
}

async fn start_kept(
    log: &Arc<MemoryLog>,
    ledger: Arc<dyn Ledger>,
    n: u128,
    settings: QueuedSettings,
    tasks: &Supervisor,
) -> (Arc<Queued>, Arc<Stats>) {
    let (stats, clock) = (Arc::<Stats>::default(), Arc::new(TestClock::default()));
    let log = Arc::new(Log(log.clone()));
    let parts = QueuedParts { log, ledger, policy: policy(), clock, instance: instance(n), stats: stats.clone() };
    (Queued::start(parts, settings, tasks).await.unwrap(), stats)
}

async fn start_with(log: &Arc<MemoryLog>, ledger: Arc<dyn Ledger>, n: u128, settings: QueuedSettings) -> (Arc<Queued>, Arc<Stats>) {
    start_kept(log, ledger, n, settings, &Supervisor::new()).await
}

async fn start(log: &Arc<MemoryLog>, ledger: &Arc<ScriptedLedger>) -> (Arc<Queued>, Arc<Stats>) {
    start_with(log, ledger.clone(), 1, SETTINGS).await
}

fn deciding() -> Arc<ScriptedLedger> {
    ScriptedLedger::new(|batch| Ok(committed(batch)))
}

fn gated() -> Arc<ScriptedLedger> {
    ScriptedLedger::gated(|batch| Ok(committed(batch)))
}

fn stored_for(request: &Request) -> StoredAnswer {
    StoredAnswer { fingerprint: request.fingerprint.unwrap(), reply: Reply { replayed: true, ..reply_to(request) } }
}

type Sent = JoinHandle<Result<Receipt, ExecuteError>>;

fn send(executor: &Arc<Queued>, request: Request) -> Sent {
    let executor = executor.clone();
    tokio::spawn(async move { executor.execute(request, soon()).await })
}

/// Sends in order: each stands in the log before the next.
async fn send_all(executor: &Arc<Queued>, log: &MemoryLog, requests: impl IntoIterator<Item = Request>) -> Vec<Sent> {
    let mut all = Vec::new();
    for request in requests {
        let left = log.left();
        all.push(send(executor, request));
        until(|| log.left() == left + 1).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_command_is_decided_and_answered() {
    let (log, ledger) = (MemoryLog::new(3), deciding());
    let (executor, stats) = start(&log, &ledger).await;
    let before = Instant::now();
    assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 5))));
    assert_eq!(before.elapsed(), Duration::ZERO);
    until(|| log.left() == 0).await;
    assert_eq!((stats.commands.get(), stats.batches.get(), stats.logged_commands.get()), (1, 1, 0));
    assert!(log.sent.lock().unwrap().is_empty(), "callers of the same instance are answered without a message");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_runs_out_ends_with_what_the_ledger_has() {
    let other = Request { fingerprint: Some(Fingerprint([9; 32])), ..charge(1, 5) };
    let (plain, choosing, last) = (charge(1, 5), best(1, 5, false), best(1, 5, true));
    for (request, stored, expected) in [
        (&plain, None, Ok(Receipt::Accepted(id(5)))),
        (&last, None, Ok(Receipt::Accepted(id(5)))),
        (&choosing, None, Err(())),
        (&plain, Some(stored_for(&plain)), Ok(Receipt::Done(stored_for(&plain).reply))),
        (&choosing, Some(stored_for(&plain)), Ok(Receipt::Done(stored_for(&plain).reply))),
        (
            &plain,
            Some(stored_for(&other)),
            Ok(Receipt::Done(Reply { decision: Decision::Refused(Rejection::IdempotencyKeyReused), ..reply_to(&plain) })),
        ),
    ] {
        let (log, ledger) = (MemoryLog::new(1), gated());
        let (executor, stats) = start(&log, &ledger).await;
        let is_stored = stored.is_some();
        ledger.stored.lock().unwrap().push_back(stored);
        let before = Instant::now();
        let receipt = executor.execute(request.clone(), soon()).await;
        assert_eq!(before.elapsed(), WAIT);
        match (receipt, expected) {
            (Ok(receipt), Ok(expected)) => assert_eq!(receipt, expected),
            (Err(ExecuteError::InProgress), Err(())) => {}
            (receipt, expected) => panic!("{receipt:?}, not {expected:?}"),
        }
        assert_eq!(stats.accepted_commands.get(), u64::from(!is_stored && !may_retry(&request.command)));
        assert_eq!(stats.logged_commands.get(), u64::from(!is_stored), "what is not decided still counts");
        ledger.let_through(1);
        until(|| stats.logged_commands.get() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_when_the_wait_runs_out_changes_nothing() {
    let mut ledger = MockLedger::new();
    ledger.expect_transact().returning(|_, _, _| Err(LedgerError::Unavailable("gone".into())));
    ledger.expect_reply().returning(|_| Err(LedgerError::Unavailable("gone".into())));
    let log = MemoryLog::new(1);
    let (executor, _) = start_with(&log, Arc::new(ledger), 1, SETTINGS).await;
    assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Accepted(id(5)));
    assert!(matches!(executor.submit(charge(1, 6), soon()).await, Err(ExecuteError::Unavailable(_))), "it may have been decided before");
    assert_eq!(log.left(), 1, "nothing is acknowledged");
}

#[tokio::test(start_paused = true)]
async fn without_a_key_nothing_is_appended() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let (executor, stats) = start(&log, &ledger).await;
    let request = Request { fingerprint: None, ..charge(1, 5) };
    assert!(matches!(executor.execute(request.clone(), soon()).await, Err(ExecuteError::Internal(_))));
    assert!(matches!(executor.submit(request, soon()).await, Err(ExecuteError::Internal(_))));
    assert_eq!((log.left(), stats.logged_commands.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_nothing_is_overload() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let (executor, stats) = start(&log, &ledger).await;
    log.appends(Appends::Block);
    assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Overloaded)));
    assert!(matches!(executor.submit(charge(1, 6), soon()).await, Err(ExecuteError::Overloaded)));
    assert_eq!((stats.overloaded.get(), stats.logged_commands.get()), (2, 0));
    assert!(ledger.batches().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_may_have_happened() {
    for (appends, after) in [(Appends::Fail, Duration::ZERO), (Appends::Hang, WAIT)] {
        let (log, ledger) = (MemoryLog::new(1), deciding());
        let (executor, stats) = start(&log, &ledger).await;
        log.appends(appends);
        let before = Instant::now();
        assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
        assert_eq!(before.elapsed(), after, "{appends:?}");
        ledger.stored.lock().unwrap().push_back(Some(stored_for(&charge(1, 5))));
        assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(stored_for(&charge(1, 5)).reply));
        assert!(matches!(executor.submit(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
        assert_eq!(stats.logged_commands.get(), 0, "it may not stand in the log");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_overtake_the_confirmation() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let (executor, stats) = start(&log, &ledger).await;
    log.appends(Appends::HangAppended);
    assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 5))));
    assert_eq!(stats.logged_commands.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_submitted_command_is_accepted_at_once_and_still_counts() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    assert_eq!(executor.submit(charge(1, 5), soon()).await.unwrap(), Receipt::Accepted(id(5)));
    assert_eq!((stats.logged_commands.get(), stats.accepted_commands.get()), (1, 1));
    ledger.stored.lock().unwrap().push_back(Some(stored_for(&charge(1, 6))));
    assert_eq!(executor.submit(charge(1, 6), soon()).await.unwrap(), Receipt::Done(stored_for(&charge(1, 6)).reply), "a replay");
    assert_eq!(log.left(), 1);
    ledger.let_through(1);
    until(|| stats.logged_commands.get() == 0).await;

    // After a receipt the caller could not be asked to choose again.
    let choosing = tokio::spawn({
        let executor = executor.clone();
        async move { executor.submit(best(1, 7, false), soon()).await }
    });
    until(|| ledger.begun.load(Ordering::SeqCst) == 2).await;
    assert!(!choosing.is_finished());
    ledger.let_through(1);
    assert_eq!(choosing.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, 7))));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_decides_nothing() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    let caller = send(&executor, charge(1, 5));
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(stats.logged_commands.get(), 1, "it stands in the log");
    ledger.let_through(1);
    until(|| stats.logged_commands.get() == 0 && log.left() == 0).await;
    assert_eq!(ledger.batches(), [vec![5]]);

    log.appends(Appends::Hang);
    let caller = send(&executor, charge(1, 6));
    until(|| stats.logged_commands.get() == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(stats.logged_commands.get(), 0, "it does not stand in the log, as far as is known");
}

#[tokio::test(start_paused = true)]
async fn another_request_under_a_key_that_stands_in_the_log_is_refused() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    executor.submit(charge(1, 5), soon()).await.unwrap();
    let other = Request { fingerprint: Some(Fingerprint([9; 32])), ..charge(1, 5) };
    let Receipt::Done(reply) = executor.execute(other, soon()).await.unwrap() else { panic!("not done") };
    assert_eq!(reply.decision, Decision::Refused(Rejection::IdempotencyKeyReused));
    assert_eq!((log.left(), stats.logged_commands.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn several_callers_of_one_command_share_its_answer() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    let sent = send_all(&executor, &log, (0..3).map(|_| charge(1, 5))).await;
    assert_eq!(stats.logged_commands.get(), 3);
    ledger.let_through(3);
    let mut replayed = Vec::new();
    for caller in sent {
        let Receipt::Done(reply) = caller.await.unwrap().unwrap() else { panic!("not done") };
        replayed.push(reply.replayed);
        assert_eq!(Reply { replayed: false, ..reply }, reply_to(&charge(1, 5)));
    }
    assert_eq!(replayed, [false, true, true]);
    assert_eq!(stats.logged_commands.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn choosing_again_answers_the_first_caller_of_a_command_alone() {
    let log = MemoryLog::new(1);
    let ledger = ScriptedLedger::gated(|batch| {
        let mut committed = committed(batch);
        for (reply, request) in committed.replies.iter_mut().zip(batch.requests.iter()) {
            if may_retry(&request.command) {
                reply.decision = Decision::Retry;
            }
        }
        Ok(committed)
    });
    let (executor, stats) = start(&log, &ledger).await;
    let sent = send_all(&executor, &log, [best(1, 5, false), best(1, 5, false), best(1, 5, true)]).await;
    // The first is decided alone, then the others.
    ledger.let_through(1);
    until(|| sent[0].is_finished()).await;
    assert!(!sent[1].is_finished() && !sent[2].is_finished());
    assert_eq!(stats.logged_commands.get(), 2);
    ledger.let_through(1);
    let mut decisions = Vec::new();
    for caller in sent {
        let Receipt::Done(reply) = caller.await.unwrap().unwrap() else { panic!("not done") };
        decisions.push(reply.decision);
    }
    let decided = reply_to(&charge(1, 5)).decision;
    assert_eq!(decisions, [Decision::Retry, Decision::Retry, decided]);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_answer_makes_no_other_caller_choose_again() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    let mut sent = send_all(&executor, &log, [best(1, 5, true)]).await;
    let retry = Reply { decision: Decision::Retry, ..reply_to(&charge(1, 5)) };
    executor.outstanding.answered([Answer { command: id(5), reply: Ok(retry) }]);
    assert_eq!(stats.logged_commands.get(), 1, "its own answer is still to come");
    ledger.let_through(1);
    let Receipt::Done(reply) = sent.remove(0).await.unwrap().unwrap() else { panic!("not done") };
    assert_eq!(reply, reply_to(&charge(1, 5)));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_the_answer_is_overloaded_at_once() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start_with(&log, ledger.clone(), 1, QueuedSettings { backlog_max: 5, ..SETTINGS }).await;
    let mut sent = send_all(&executor, &log, (0..4).map(|n| charge(1, n))).await;
    assert!(!executor.would_reject(&charge(1, 4)), "there is room for one");
    sent.extend(send_all(&executor, &log, [charge(1, 4)]).await);
    assert!(executor.would_reject(&charge(1, 5)));
    assert_eq!(stats.overloaded.get(), 1);
    for n in 5..50 {
        assert!(matches!(executor.execute(charge(1, n), soon()).await, Err(ExecuteError::Overloaded)));
        assert!(matches!(executor.submit(charge(1, n), soon()).await, Err(ExecuteError::Overloaded)));
    }
    assert_eq!((stats.overloaded.get(), stats.logged_commands.get(), log.left()), (91, 5, 5));
    ledger.let_through(10);
    for caller in sent {
        caller.await.unwrap().unwrap();
    }
    assert!(!executor.would_reject(&charge(1, 50)));
    assert!(executor.execute(charge(1, 50), soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_found_in_the_ledger() {
    let log = MemoryLog::new(1);
    // Another instance reads, and its messages are lost.
    let (reading, _) = start_with(&log, deciding(), 2, SETTINGS).await;
    // From then on it owns the shard.
    reading.execute(charge(1, 1), soon()).await.unwrap();
    let mut ledger = MockLedger::new();
    ledger.expect_reply().returning(|key| {
        let request = charge(1, key.command.0.as_u128());
        Ok((number(&request) != 7).then(|| stored_for(&request)))
    });
    let (executor, stats) = start_with(&log, Arc::new(ledger), 1, SETTINGS).await;
    log.loses_answers.store(true, Ordering::SeqCst);
    assert_eq!(executor.execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(stored_for(&charge(1, 5)).reply));
    assert_eq!(stats.logged_commands.get(), 0);
    let before = Instant::now();
    executor.execute(charge(1, 7), soon()).await.unwrap();
    assert!(matches!(executor.execute(best(1, 7, false), soon()).await, Err(ExecuteError::InProgress)));
    eventually(|| stats.logged_commands.get() == 1).await;
    assert!(before.elapsed() < RETENTION, "one that may never be stored counts for a shorter time");
    eventually(|| stats.logged_commands.get() == 0).await;
    assert!(before.elapsed() >= RETENTION, "and others until they are too old to be decided");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_executor_ends_its_tasks() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    executor.submit(charge(1, 5), soon()).await.unwrap();
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    let held = Arc::downgrade(&executor.outstanding);
    drop(executor);
    until(|| log.taken() == 0 && held.strong_count() == 0).await;
    assert_eq!((log.left(), stats.logged_commands.get()), (1, 0));
}
