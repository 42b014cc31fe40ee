mod held;

use super::*;
use crate::Supervisor;
use crate::testing::{ScriptedLedger, WAIT, charge, committed, number, policy, reply_to, soon, until};
use boxoffice_domain::Batch;
use boxoffice_ports::{Guard, LedgerError};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinHandle;

fn start(ledger: &Arc<ScriptedLedger>, batch_max: usize, queue_max: usize) -> (Arc<Combining>, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    let settings = CombiningSettings { lanes: 1, batch_max, queue_max };
    (Combining::start(ledger.clone(), policy(), settings, stats.clone(), &*Supervisor::new()), stats)
}

fn send(executor: &Arc<Combining>, n: u128) -> JoinHandle<Result<Receipt, ExecuteError>> {
    let executor = executor.clone();
    tokio::spawn(async move { executor.execute(charge(1, n), soon()).await })
}

/// Sends `all` in order, behind one command (number 0) whose ledger call does not come back yet.
async fn queue_up(
    executor: &Arc<Combining>,
    ledger: &ScriptedLedger,
    all: std::ops::Range<u128>,
) -> Vec<JoinHandle<Result<Receipt, ExecuteError>>> {
    let mut sent = vec![send(executor, 0)];
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    for n in all {
        let waiting = executor.waiting();
        sent.push(send(executor, n));
        until(|| executor.waiting() == waiting + 1).await;
    }
    sent
}

fn refuse(batch: &Batch, culprit: u128) -> Result<boxoffice_ports::Committed, LedgerError> {
    if batch.requests.iter().any(|request| number(request) == culprit) {
        Err(LedgerError::Refused("data".into()))
    } else {
        Ok(committed(batch))
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_command_does_not_wait_for_company() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 10, 10);
    let before = Instant::now();
    let receipt = executor.execute(charge(1, 7), soon()).await.unwrap();
    assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, 7))));
    assert_eq!(before.elapsed(), Duration::ZERO, "no window");
    assert_eq!((stats.batches.get(), stats.commands.get()), (1, 1));
    assert_eq!(*ledger.guards.lock().unwrap(), [Guard::RowLock]);
}

#[tokio::test(start_paused = true)]
async fn what_queued_during_a_commit_is_one_batch_in_order() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 100, 100);
    let sent = queue_up(&executor, &ledger, 1..41).await;
    ledger.let_through(2);
    for (n, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, n as u128))), "each gets its own answer");
    }
    assert_eq!(ledger.batches(), [vec![0], (1..41).collect()]);
    assert_eq!((stats.batches.get(), stats.commands.get()), (2, 41));
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_at_most_batch_max() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = start(&ledger, 4, 100);
    let sent = queue_up(&executor, &ledger, 1..11).await;
    ledger.let_through(10);
    for answer in sent {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(ledger.batches().iter().map(Vec::len).collect::<Vec<_>>(), [1, 4, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn beyond_queue_max_the_answer_is_overloaded_at_once() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 100, 5);
    let accepted = queue_up(&executor, &ledger, 1..6).await;
    for n in 6..60 {
        assert!(matches!(executor.execute(charge(1, n), soon()).await, Err(ExecuteError::Overloaded)));
    }
    assert_eq!((stats.overloaded.get(), executor.waiting()), (54, 5));
    assert!(executor.would_reject(&charge(1, 60)));
    assert_eq!(stats.overloaded.get(), 55, "a request that is turned away is counted as well");
    ledger.let_through(2);
    for answer in accepted {
        answer.await.unwrap().unwrap();
    }
    assert!(!executor.would_reject(&charge(1, 61)));
    assert_eq!(ledger.batches().concat().len(), 6, "nothing that was refused was decided");
}

#[tokio::test(start_paused = true)]
async fn one_hot_key_may_use_all_of_queue_max() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let settings = CombiningSettings { lanes: 4, batch_max: 100, queue_max: 8 };
    let executor = Combining::start(ledger.clone(), policy(), settings, Arc::default(), &*Supervisor::new());
    let accepted = queue_up(&executor, &ledger, 1..9).await;
    for user in 1..20 {
        assert!(matches!(executor.execute(charge(user, 100 + user), soon()).await, Err(ExecuteError::Overloaded)), "whatever its lane");
        assert!(executor.would_reject(&charge(user, 100 + user)));
    }
    ledger.let_through(2);
    for answer in accepted {
        answer.await.unwrap().unwrap();
    }
    assert_eq!((ledger.batches().concat().len(), executor.waiting()), (9, 0));
}

#[tokio::test(start_paused = true)]
async fn each_caller_is_answered_at_its_deadline_whatever_hangs() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = start(&ledger, 100, 100);
    let before = Instant::now();
    for late in queue_up(&executor, &ledger, 1..3).await {
        let answer = late.await.unwrap();
        assert!(matches!(answer, Err(ExecuteError::Unavailable(_) | ExecuteError::Overloaded)), "{answer:?}");
    }
    assert_eq!(before.elapsed(), WAIT);
    // The call that hung goes on in its task. Commands that waited behind it are not decided: their callers are gone.
    ledger.let_through(3);
    assert!(executor.execute(charge(1, 9), soon()).await.is_ok(), "the lane goes on");
    until(|| ledger.batches().len() == 2).await;
    assert_eq!(ledger.batches(), [vec![0], vec![9]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_the_latest_deadline_and_its_callers_have_their_own() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = start(&ledger, 100, 100);
    let first = send(&executor, 0);
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    let with = |n, wait| {
        let executor = executor.clone();
        tokio::spawn(async move { executor.execute(charge(1, n), Deadline::after(wait)).await })
    };
    let (soon, later) = (with(1, WAIT / 3), with(2, WAIT * 2));
    until(|| executor.waiting() == 2).await;
    ledger.let_through(1);
    first.await.unwrap().unwrap();
    until(|| ledger.begun.load(Ordering::SeqCst) == 2).await;
    assert!(matches!(soon.await.unwrap(), Err(ExecuteError::Unavailable(_))));
    tokio::time::advance(WAIT / 2).await;
    ledger.let_through(1);
    assert!(later.await.unwrap().is_ok(), "the batch was not given up for the first one's sake");
    assert_eq!(ledger.batches(), [vec![0], vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_would_be_answered_too_late_is_refused_before_the_ledger() {
    let ms = Duration::from_millis;
    // A call takes `before + waited`; a command comes after `before`. What the last call took counts for half of the
    // wait at most, or one slow call would turn all commands away.
    for (before, waited, decided) in [
        (ms(0), ms(1_500), true),
        (ms(0), ms(1_501), false),
        (ms(500), ms(1_500), true),
        (ms(1_300), ms(1_200), true),
        (ms(0), ms(2_000), false),
    ] {
        let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
        let (executor, stats) = start(&ledger, 100, 100);
        let first = send(&executor, 0);
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        tokio::time::advance(before).await;
        let second = send(&executor, 1);
        until(|| executor.waiting() == 1).await;
        tokio::time::advance(waited).await;
        ledger.let_through(2);
        first.await.unwrap().unwrap();
        let answer = second.await.unwrap();
        assert_eq!(answer.is_ok(), decided, "{before:?}, {waited:?}: {answer:?}");
        assert!(decided || matches!(answer, Err(ExecuteError::Overloaded)));
        assert_eq!(stats.overloaded.get(), u64::from(!decided));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_a_reply_for_each_request_costs_the_culprit_alone() {
    let ledger = ScriptedLedger::gated(|batch| {
        let mut committed = committed(batch);
        if batch.requests.iter().any(|request| number(request) == 2) {
            committed.replies.remove(0);
        }
        Ok(committed)
    });
    let (executor, _) = start(&ledger, 100, 100);
    let sent = queue_up(&executor, &ledger, 1..4).await;
    ledger.let_through(100);
    for (n, answer) in sent.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(receipt) => assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, n as u128)))),
            Err(ExecuteError::Internal(_)) => assert_eq!(n, 2),
            Err(error) => panic!("{n}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_costs_its_neighbours_nothing() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = start(&ledger, 100, 100);
    let mut sent = queue_up(&executor, &ledger, 1..4).await;
    sent.remove(2).abort();
    ledger.let_through(2);
    for answer in sent {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(ledger.batches(), [vec![0], vec![1, 2, 3]], "and its command is decided");
}

#[tokio::test(start_paused = true)]
async fn a_failing_batch_is_bisected_to_its_culprit() {
    let ledger = ScriptedLedger::gated(|batch| refuse(batch, 6));
    let (executor, stats) = start(&ledger, 100, 100);
    let sent = queue_up(&executor, &ledger, 1..9).await;
    ledger.let_through(100);
    for (n, answer) in sent.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(receipt) => assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, n as u128)))),
            Err(ExecuteError::Internal(_)) => assert_eq!(n, 6),
            Err(error) => panic!("{n}: {error}"),
        }
    }
    assert_eq!(stats.bisections.get(), 3, "8, 4, 2");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_ledger_costs_the_culprit_alone() {
    let ledger = ScriptedLedger::gated(|batch| {
        assert!(!batch.requests.iter().any(|request| number(request) == 2), "the test's panic");
        Ok(committed(batch))
    });
    let (executor, _) = start(&ledger, 100, 100);
    let sent = queue_up(&executor, &ledger, 1..4).await;
    ledger.let_through(100);
    for (n, answer) in sent.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().is_err(), n == 2);
    }
    executor.execute(charge(1, 9), soon()).await.expect("the lane lives on");
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_run_again_three_times() {
    for (failures, answered) in [(3, true), (4, false)] {
        let left = AtomicU32::new(failures);
        let ledger = ScriptedLedger::new(move |batch| {
            let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if fails { Err(LedgerError::Retryable("serialisation".into())) } else { Ok(committed(batch)) }
        });
        let (executor, stats) = start(&ledger, 100, 100);
        let result = executor.execute(charge(1, 1), soon()).await;
        assert_eq!(result.is_ok(), answered, "{failures} failures: {result:?}");
        assert!(answered || matches!(result, Err(ExecuteError::Unavailable(_))));
        assert_eq!((ledger.batches().len(), stats.retries.get()), (4, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_waited_for_until_the_deadline() {
    let ledger = ScriptedLedger::new(|_| Err(LedgerError::Unavailable("gone".into())));
    let (executor, _) = start(&ledger, 100, 100);
    let before = Instant::now();
    assert!(matches!(executor.execute(charge(1, 1), soon()).await, Err(ExecuteError::Unavailable(_))));
    assert!(before.elapsed() <= WAIT && before.elapsed() > WAIT / 2, "{:?}", before.elapsed());
    assert!(ledger.batches().len() > 4);
}

#[tokio::test(start_paused = true)]
async fn equal_keys_share_a_lane() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let settings = CombiningSettings { lanes: 4, batch_max: 100, queue_max: 100 };
    let executor = Combining::start(ledger.clone(), policy(), settings, Arc::default(), &*Supervisor::new());
    let sent = queue_up(&executor, &ledger, 1..20).await;
    ledger.let_through(100);
    for answer in sent {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(ledger.batches(), [vec![0], (1..20).collect()], "one wallet is never split over two connections");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_panics_answers_what_it_had_in_hand_and_decides_what_has_queued() {
    let (ledger, tasks) = (ScriptedLedger::gated(|batch| Ok(committed(batch))), Supervisor::new());
    let settings = CombiningSettings { lanes: 1, batch_max: 100, queue_max: 100 };
    let executor = Combining::start(ledger.clone(), policy(), settings, Arc::default(), &*tasks);
    let mut sent = queue_up(&executor, &ledger, 1..11).await.into_iter();
    assert_eq!(tasks.strike("lane.0"), 1);
    let in_hand = sent.next().unwrap().await.unwrap();
    assert!(matches!(in_hand, Err(ExecuteError::Unavailable(_))), "{in_hand:?}");
    ledger.let_through(2);
    for (n, answer) in (1..).zip(sent) {
        assert_eq!(answer.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, n))));
    }
    assert_eq!(tasks.figures().into_iter().map(|task| (task.up, task.restarts)).collect::<Vec<_>>(), [(true, 1)]);
    drop(executor);
    until(|| tasks.figures().is_empty()).await;
}
