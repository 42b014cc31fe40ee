//! Rows that another transaction keeps locked, while a lane goes on.

use super::*;
use crate::testing::LOCK_TIMEOUT;

fn send_for(executor: &Arc<Combining>, user: u128, n: u128) -> JoinHandle<Result<Receipt, ExecuteError>> {
    let executor = executor.clone();
    tokio::spawn(async move { executor.execute(charge(user, n), soon()).await })
}

/// Calls of users 1 to `users`, ten each, queued behind one call that waits at the gate. Number `100 * user + n`.
async fn crowd(executor: &Arc<Combining>, ledger: &ScriptedLedger, users: u128) -> Vec<(u128, JoinHandle<Result<Receipt, ExecuteError>>)> {
    let mut sent = vec![(99, send_for(executor, 99, 99))];
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    for n in 0..10 {
        for user in 1..=users {
            let waiting = executor.waiting();
            sent.push((user, send_for(executor, user, 100 * user + n)));
            until(|| executor.waiting() == waiting + 1).await;
        }
    }
    sent
}

fn of(user: u128, batches: Vec<Vec<u128>>) -> Vec<u128> {
    batches.concat().into_iter().filter(|n| n / 100 == user).collect()
}

#[tokio::test(start_paused = true)]
async fn a_held_row_delays_only_its_own_callers() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 100, 1_000);
    let sent = crowd(&executor, &ledger, 5).await;
    ledger.lock_wallet(3);
    let before = Instant::now();
    ledger.let_through(1_000_000);
    let (kept, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(user, _)| *user == 3);
    for (_, caller) in others {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(before.elapsed(), LOCK_TIMEOUT, "the lane stood still for one time-out");
    assert_eq!(stats.held_commands.get(), 10);
    // A command that comes now meets no time-out if it needs another row.
    for n in 10..20 {
        let before = Instant::now();
        send_for(&executor, 4, 400 + n).await.unwrap().unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    let behind = send_for(&executor, 3, 310);
    until(|| stats.held_commands.get() == 11).await;
    ledger.unlock_all();
    for (_, caller) in kept {
        caller.await.unwrap().unwrap();
    }
    behind.await.unwrap().unwrap();
    assert_eq!(of(3, ledger.batches()), (300..311).collect::<Vec<_>>(), "each once, in the order in which they came");
    // The row is not remembered.
    until(|| executor.waiting() == 0).await;
    send_for(&executor, 3, 311).await.unwrap().unwrap();
    assert_eq!(stats.held_commands.get(), 11);
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_row_that_stays_held_are_refused_at_their_deadline() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 100, 1_000);
    ledger.lock_wallet(1);
    let before = Instant::now();
    let early = send_for(&executor, 1, 100);
    tokio::time::sleep(WAIT / 2).await;
    let late = send_for(&executor, 1, 101);
    assert!(matches!(early.await.unwrap(), Err(ExecuteError::Unavailable(_))));
    assert_eq!(before.elapsed(), WAIT);
    assert!(matches!(late.await.unwrap(), Err(ExecuteError::Unavailable(_))));
    assert_eq!(before.elapsed(), WAIT + WAIT / 2);
    assert_eq!((ledger.batches().len(), stats.overloaded.get()), (0, 0));
    // What was refused has left nothing behind.
    tokio::time::sleep(2 * LOCK_TIMEOUT).await;
    ledger.unlock_all();
    send_for(&executor, 1, 102).await.unwrap().unwrap();
    assert_eq!(ledger.batches(), [[102]]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_seen_is_found_by_halves() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = start(&ledger, 100, 1_000);
    let sent = crowd(&executor, &ledger, 5).await;
    ledger.lock_wallet(3);
    ledger.sees_locks.store(false, Ordering::SeqCst);
    ledger.let_through(1_000_000);
    let (kept, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(user, _)| *user == 3);
    for (_, caller) in others {
        caller.await.unwrap().unwrap();
    }
    assert!(stats.bisections.get() > 0);
    ledger.unlock_all();
    for (_, caller) in kept {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(of(3, ledger.batches()), (300..310).collect::<Vec<_>>(), "each once, in the order in which they came");
}

#[tokio::test(start_paused = true)]
async fn commands_of_one_held_row_do_not_wait_for_another() {
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, _) = start(&ledger, 100, 1_000);
    let sent = crowd(&executor, &ledger, 3).await;
    ledger.lock_wallet(1);
    ledger.lock_wallet(2);
    ledger.let_through(1_000_000);
    tokio::time::sleep(2 * LOCK_TIMEOUT).await;
    ledger.locked.lock().unwrap().remove(&boxoffice_domain::Key::Account(crate::testing::id(2)));
    for (user, caller) in sent {
        let answer = caller.await.unwrap();
        assert_eq!(answer.is_ok(), user != 1, "{answer:?}");
    }
    assert_eq!(of(2, ledger.batches()), (200..210).collect::<Vec<_>>());
}
