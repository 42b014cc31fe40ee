//! Rows that another transaction keeps locked, while the shard goes on.

use super::*;
use crate::testing::LOCK_TIMEOUT;

/// Commands of user 1 lie between those of others, `count` of each; number `100 * user + n`.
async fn mixed(executor: &Arc<Queued>, log: &MemoryLog, ledger: &ScriptedLedger, count: u128) -> Vec<(u128, Sent)> {
    let mut sent = send_all(executor, log, [charge(9, 900)]).await;
    until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    let all: Vec<_> = (0..count).flat_map(|n| [charge(1, 100 + n), charge(2, 200 + n), charge(3, 300 + n)]).collect();
    let users = std::iter::once(9).chain(all.iter().map(|request| number(request) / 100)).collect::<Vec<_>>();
    sent.extend(send_all(executor, log, all).await);
    users.into_iter().zip(sent).collect()
}

fn of(user: u128, batches: Vec<Vec<u128>>) -> Vec<u128> {
    batches.concat().into_iter().filter(|n| n / 100 == user).collect()
}

#[tokio::test(start_paused = true)]
async fn a_held_row_delays_its_own_commands_and_the_shard_goes_on() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (executor, stats) = start(&log, &ledger).await;
    let sent = mixed(&executor, &log, &ledger, 10).await;
    ledger.lock_wallet(1);
    let before = Instant::now();
    ledger.let_through(1_000_000);
    let (kept, others): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(user, _)| *user == 1);
    for (_, caller) in others {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    assert_eq!(before.elapsed(), LOCK_TIMEOUT, "the shard stood still for one time-out");
    // Commands for other rows meet no further time-out.
    for n in 10..20 {
        let before = Instant::now();
        assert!(matches!(executor.execute(charge(2, 200 + n), soon()).await, Ok(Receipt::Done(_))));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    for (_, caller) in kept {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Accepted(_))), "it will be decided");
    }
    assert_eq!(log.left(), 40, "nothing from the first held one on is acknowledged");
    let beyond = |step: &String| step.strip_prefix("beyond ").and_then(|count| count.parse::<usize>().ok());
    assert_eq!(
        log.steps.lock().unwrap().iter().filter_map(beyond).sum::<usize>(),
        30,
        "and each of the others is acknowledged apart, once"
    );
    assert_eq!(of(1, ledger.batches()), Vec::<u128>::new());
    let behind = send_all(&executor, &log, [charge(1, 110)]).await;
    until(|| stats.held_commands.get() == 11).await;
    ledger.unlock_all();
    for caller in behind {
        assert!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))));
    }
    eventually(|| log.left() == 0).await;
    assert_eq!(of(1, ledger.batches()), (100..111).collect::<Vec<_>>(), "each once, in the order of the log");
    assert_eq!((stats.logged_commands.get(), log.dead.lock().unwrap().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn held_commands_of_a_reader_that_ends_come_again() {
    let (log, ledger) = (MemoryLog::new(1), gated());
    let (crashing, _) = start(&log, &ledger).await;
    let sent = mixed(&crashing, &log, &ledger, 3).await;
    ledger.lock_wallet(1);
    ledger.let_through(1_000_000);
    for (user, caller) in sent {
        assert_eq!(matches!(caller.await.unwrap(), Ok(Receipt::Done(_))), user != 1);
    }
    drop(crashing);
    // What it had begun ends by itself.
    tokio::time::sleep(10 * LOCK_TIMEOUT).await;
    let before = ledger.timed_out.lock().unwrap().len();
    let (_next, _) = start_with(&log, ledger.clone(), 2, SETTINGS).await;
    eventually(|| ledger.timed_out.lock().unwrap().len() > before).await;
    ledger.unlock_all();
    eventually(|| log.left() == 0).await;
    assert_eq!(of(1, ledger.batches()), [100, 101, 102]);
}

#[tokio::test(start_paused = true)]
async fn a_command_held_for_longer_than_its_reply_is_kept_is_a_dead_letter() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let clock = Arc::new(TestClock::default());
    let stats = Arc::<Stats>::default();
    let (log_of_all, clock_of_all) = (Arc::new(Log(log.clone())), clock.clone());
    let parts =
        QueuedParts { log: log_of_all, ledger: ledger.clone(), policy: policy(), clock: clock_of_all, instance: instance(1), stats };
    let tasks = Supervisor::new();
    let executor = Queued::start(parts, SETTINGS, &*tasks).await.unwrap();
    ledger.lock_wallet(1);
    assert!(matches!(executor.execute(charge(1, 100), soon()).await, Ok(Receipt::Accepted(_))));
    clock.set(RETENTION.as_secs() as i64 + 1);
    tokio::time::sleep(RETENTION).await;
    eventually(|| log.left() == 0).await;
    assert_eq!(log.dead.lock().unwrap().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [100]);
    assert_eq!(ledger.batches(), Vec::<Vec<u128>>::new());
}

#[tokio::test(start_paused = true)]
async fn a_shard_waits_when_too_many_of_its_commands_are_held() {
    let (log, ledger) = (MemoryLog::new(1), deciding());
    let (executor, stats) = start_with(&log, ledger.clone(), 1, QueuedSettings { batch_max: 2, ..SETTINGS }).await;
    ledger.lock_wallet(1);
    let kept = send_all(&executor, &log, [charge(1, 100)]).await;
    eventually(|| stats.held_commands.get() == 1).await;
    for n in 0..70 {
        let _ = executor.submit(charge(2, 200 + n), soon()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let decided = of(2, ledger.batches()).len();
    assert!((60..70).contains(&decided), "no more than the window: {decided}");
    ledger.unlock_all();
    for caller in kept {
        caller.await.unwrap().unwrap();
    }
    eventually(|| log.left() == 0).await;
    assert_eq!(of(2, ledger.batches()), (200..270).collect::<Vec<_>>());
}
