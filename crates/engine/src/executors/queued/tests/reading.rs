//! What becomes of commands once they stand in the log.

use super::*;
use crate::testing::at;
use boxoffice_domain::Batch;
use boxoffice_ports::Committed;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_one_batch_in_order() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    let mut sent = send_all(&executor, &log, [charge(1, 0)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    sent.extend(send_all(&executor, &log, (1..151).map(|n| charge(1, n))).await);
    ledger.let_through(3);
    for (n, caller) in sent.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, n as u128))), "each gets its own answer");
    }
    assert_eq!(ledger.batches(), [vec![0], (1..101).collect(), (101..151).collect()]);
    assert_eq!((stats.batches.get(), stats.commands.get()), (3, 151));
}

#[tokio::test(start_paused = true)]
async fn tasks_that_fail_are_started_again_and_what_the_readers_had_comes_again() {
    let (log, ledger, tasks) = (MemoryLog::new(1), gated(), Supervisor::new());
    let (executor, _) = start_kept(&log, ledger.clone(), 1, SETTINGS, &tasks).await;
    let sent = send_all(&executor, &log, [charge(1, 0), charge(1, 1)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    let names = ["log.answers", "log.look", "log.others", "log.own", "log.readers"];
    names.iter().for_each(|name| assert_eq!(tasks.strike(name), 1, "{name}"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    ledger.let_through(10);
    for (n, caller) in sent.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, n as u128))));
    }
    let all: Vec<_> = tasks.figures().into_iter().map(|task| (task.name, task.up, task.restarts)).collect();
    assert_eq!(all, names.map(|name| (name.to_owned(), true, 1)));
    until(|| log.left() == 0).await;
    assert_eq!(executor.execute(charge(1, 7), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 7))));
}

#[tokio::test(start_paused = true)]
async fn each_shard_keeps_its_order() {
    let (log, ledger) = (MemoryLog::new(3), gated());
    let (executor, _) = start(&log, &ledger).await;
    let sent = send_all(&executor, &log, (0..60).map(|n| charge(n % 6, n))).await;
    ledger.let_through(100);
    for caller in sent {
        caller.await.unwrap().unwrap();
    }
    let decided = ledger.batches().concat();
    for user in 0..6 {
        let of: Vec<_> = decided.iter().filter(|n| *n % 6 == user).copied().collect();
        assert!(of.is_sorted(), "{of:?}");
        assert_eq!(of.len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_it_is_committed_and_answered() {
    let log = MemoryLog::new(1);
    let noting = log.clone();
    let ledger = ScriptedLedger::new(move |batch| {
        noting.note(format!("commit {}", batch.requests.len()));
        Ok(committed(batch))
    });
    let (executor, _) = start(&log, &ledger).await;
    log.acknowledging_hangs.store(true, Ordering::SeqCst);
    executor.execute(charge(1, 5), soon()).await.unwrap();
    assert_eq!(*log.steps.lock().unwrap(), ["take 1", "commit 1"]);
    assert_eq!(log.left(), 1, "answered, and not yet acknowledged");
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_taken_while_one_is_decided_and_acknowledged_after_its_own() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, _) = start(&log, &ledger).await;
    let mut sent = send_all(&executor, &log, [charge(1, 0)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    sent.extend(send_all(&executor, &log, (1..251).map(|n| charge(1, n))).await);
    until(|| log.taken() == 101).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((log.taken(), ledger.begun.load(Ordering::SeqCst)), (101, 1), "a batch ahead, and no more; decided one by one");
    ledger.let_through(1);
    until(|| log.taken() == 200 && ledger.begun.load(Ordering::SeqCst) == 2).await;
    assert_eq!(log.left(), 250, "the first alone is acknowledged");
    ledger.let_through(3);
    for caller in sent {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    assert_eq!(ledger.batches(), [vec![0], (1..101).collect(), (101..201).collect(), (201..251).collect()]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_with_a_batch_ahead_loses_nothing_and_applies_nothing_twice() {
    let log = MemoryLog::new(1);
    let (answers, applied) = applying();
    let ledger = ScriptedLedger::gated(answers);
    let (crashing, _) = start(&log, &ledger).await;
    // From then on it owns the shard.
    ledger.let_through(1);
    crashing.execute(charge(1, 0), soon()).await.unwrap();
    let (asking, stats) = start_with(&log, ledger.clone(), 2, SETTINGS).await;
    let mut sent = send_all(&asking, &log, [charge(1, 1)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 2).await;
    sent.extend(send_all(&asking, &log, [charge(1, 2), charge(1, 3)]).await);
    until(|| log.taken() == 3).await;
    drop(crashing);
    ledger.let_through(10);
    for caller in sent {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    until(|| log.left() == 0).await;
    assert_eq!(*applied.lock().unwrap(), [0, 1, 2, 3], "each once, and in order");
    assert_eq!(ledger.batches(), [vec![0], vec![1], vec![1, 2, 3]], "what was being decided comes again");
    assert_eq!(stats.logged_commands.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_fails_ends_nothing() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let (executor, _) = start(&log, &ledger).await;
    log.acknowledging_fails.store(true, Ordering::SeqCst);
    for n in 0..3 {
        executor.execute(charge(1, n), soon()).await.unwrap();
    }
    assert_eq!(ledger.batches(), [[0], [1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn other_instances_get_one_message_a_batch() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (reading, _) = start_with(&log, ledger.clone(), 1, SETTINGS).await;
    let mut sent = send_all(&reading, &log, [charge(1, 0)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    let mut asking = Vec::new();
    for n in 2..4 {
        let (executor, stats) = start_with(&log, deciding(), n, SETTINGS).await;
        sent.extend(send_all(&executor, &log, (0..5).map(|at| charge(1, 10 * n + at))).await);
        asking.push((executor, stats));
    }
    ledger.let_through(2);
    for caller in sent {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    let sent: Vec<_> = log.sent.lock().unwrap().iter().map(|(to, answers)| (*to, answers.len())).collect();
    assert_eq!(sent, [(instance(2), 5), (instance(3), 5)]);
    assert!(asking.iter().all(|(_, stats)| stats.logged_commands.get() == 0));
    assert_eq!(ledger.batches().len(), 2, "all by the instance that reads");
}

/// The commands that were applied, in order.
type Applied = Arc<Mutex<Vec<u128>>>;

/// A ledger's answers: each command is applied once, as is noted.
fn applying() -> (impl Fn(&Batch) -> Result<Committed, LedgerError>, Applied) {
    let applied = Applied::default();
    let replies = Mutex::new(HashSet::new());
    let effects = applied.clone();
    let answers = move |batch: &Batch| {
        let mut committed = committed(batch);
        for (reply, request) in committed.replies.iter_mut().zip(batch.requests.iter()) {
            reply.replayed = !replies.lock().unwrap().insert(number(request));
            if !reply.replayed {
                effects.lock().unwrap().push(number(request));
            }
        }
        Ok(committed)
    };
    (answers, applied)
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_commit_and_acknowledgement_has_one_effect() {
    let log = MemoryLog::new(1);
    let (answers, applied) = applying();
    let ledger = ScriptedLedger::new(answers);
    let (crashing, _) = start(&log, &ledger).await;
    // From then on it owns the shard.
    crashing.execute(charge(1, 4), soon()).await.unwrap();
    until(|| log.left() == 0).await;
    log.acknowledging_hangs.store(true, Ordering::SeqCst);
    let (asking, stats) = start_with(&log, ledger.clone(), 2, SETTINGS).await;
    let sent = send_all(&asking, &log, [charge(1, 5)]).await;
    until(|| applied.lock().unwrap().len() == 2).await;
    log.acknowledging_hangs.store(false, Ordering::SeqCst);
    drop(crashing);
    until(|| log.left() == 0).await;
    for caller in sent {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    assert_eq!((ledger.batches(), applied.lock().unwrap().as_slice()), (vec![vec![4], vec![5], vec![5]], [4, 5].as_slice()));
    assert_eq!(stats.logged_commands.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_command_twice_in_a_batch_is_answered_twice_and_applied_once() {
    let log = MemoryLog::new(1);
    let (answers, applied) = applying();
    let ledger = ScriptedLedger::new(answers);
    for _ in 0..2 {
        log.put(LoggedCommand { request: charge(1, 5), reply_to: instance(9), accepted_at: at(0) });
    }
    let (_executor, _) = start(&log, &ledger).await;
    until(|| log.left() == 0 && !log.sent.lock().unwrap().is_empty()).await;
    assert_eq!((ledger.batches(), applied.lock().unwrap().as_slice()), (vec![vec![5, 5]], [5].as_slice()));
    assert_eq!(log.sent.lock().unwrap()[0].1.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_ledger_refuses_alone_is_a_dead_letter() {
    for panics in [false, true] {
        let log = MemoryLog::new(1);
        let ledger = ScriptedLedger::gated(move |batch| match batch.requests.iter().any(|request| number(request) == 3) {
            true if panics => panic!("on purpose"),
            true => Err(LedgerError::Refused("data".into())),
            false => Ok(committed(batch)),
        });
        let (executor, stats) = start(&log, &ledger).await;
        log.dead_letter_fails.store(3, Ordering::SeqCst);
        let mut sent = send_all(&executor, &log, [charge(1, 0)]).await;
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        sent.extend(send_all(&executor, &log, (1..6).map(|n| charge(1, n))).await);
        ledger.let_through(100);
        for (n, caller) in sent.into_iter().enumerate() {
            let answer = caller.await.unwrap();
            match n {
                3 => assert!(matches!(answer, Err(ExecuteError::Internal(_))), "{answer:?}"),
                _ => assert_eq!(answer.unwrap(), Receipt::Done(reply_to(&charge(1, n as u128)))),
            }
        }
        until(|| log.left() == 0).await;
        let dead: Vec<_> = log.dead.lock().unwrap().iter().map(|(n, _)| *n).collect();
        assert_eq!((dead, stats.dead_commands.get(), stats.logged_commands.get()), (vec![3], 1, 0));
        assert_eq!(log.steps.lock().unwrap().iter().rev().take(2).collect::<Vec<_>>(), ["acknowledge 5", "dead letter"]);
        assert!(executor.execute(charge(1, 9), soon()).await.is_ok(), "the reader goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_decided_before_is_a_dead_letter() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let retention = RETENTION.as_secs() as i64;
    let logged = |request, accepted_at| LoggedCommand { request, reply_to: instance(9), accepted_at: at(accepted_at) };
    log.put(logged(charge(1, 1), -retention - 1));
    log.put(logged(charge(1, 2), -retention));
    log.put(logged(Request { fingerprint: None, ..charge(1, 3) }, 0));
    log.put(logged(charge(1, 4), retention * 2));
    let (_executor, stats) = start(&log, &ledger).await;
    until(|| log.left() == 0 && log.sent.lock().unwrap().len() == 3).await;
    assert_eq!(ledger.batches(), [[2, 4]], "a clock that is ahead harms no command");
    let dead: Vec<_> = log.dead.lock().unwrap().iter().map(|(n, _)| *n).collect();
    assert_eq!((dead, stats.dead_commands.get()), (vec![1, 3], 2));
    let refused = log.sent.lock().unwrap().iter().flat_map(|(_, answers)| answers.clone()).filter(|answer| answer.reply.is_err()).count();
    assert_eq!(refused, 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let log = MemoryLog::new(1);
    let calls = AtomicU32::new(0);
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let gone = away.clone();
    let ledger = ScriptedLedger::new(move |batch| {
        calls.fetch_add(1, Ordering::SeqCst);
        if gone.load(Ordering::SeqCst) { Err(LedgerError::Unavailable("gone".into())) } else { Ok(committed(batch)) }
    });
    let (executor, stats) = start(&log, &ledger).await;
    let caller = send(&executor, charge(1, 5));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(caller.await.unwrap().unwrap(), Receipt::Accepted(id(5)));
    assert_eq!((log.left(), log.dead.lock().unwrap().len()), (1, 0));
    assert!(log.steps.lock().unwrap().iter().all(|step| !step.starts_with("acknowledge")));
    assert!((60..600).contains(&ledger.batches().len()), "tried again, with pauses: {}", ledger.batches().len());
    away.store(false, Ordering::SeqCst);
    eventually(|| log.left() == 0).await;
    assert_eq!(stats.logged_commands.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_answered_while_others_wait_for_the_store() {
    let log = MemoryLog::new(1);
    let ledger = ScriptedLedger::gated(|batch| {
        let of = |n| batch.requests.iter().any(|request| number(request) == n);
        match (of(3), batch.requests.len()) {
            (true, 1) => Err(LedgerError::LockTimeout),
            (true, _) => Err(LedgerError::Refused("data".into())),
            _ => Ok(committed(batch)),
        }
    });
    let (executor, _) = start(&log, &ledger).await;
    let mut sent = send_all(&executor, &log, [charge(1, 0)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    sent.extend(send_all(&executor, &log, (1..6).map(|n| charge(n + 1, n))).await);
    ledger.let_through(1_000);
    for (n, caller) in sent.into_iter().enumerate() {
        let receipt = caller.await.unwrap().unwrap();
        let expected = if n == 3 { Receipt::Accepted(id(3)) } else { Receipt::Done(reply_to(&charge(n as u128 + 1, n as u128))) };
        assert_eq!(receipt, expected);
    }
    assert!(log.dead.lock().unwrap().is_empty(), "another transaction's lock is no fault of the command");
}
