//! Ten times more commands than can be decided, on paused time: those let in are answered in time, and no fewer are
//! decided.

use super::*;
use async_trait::async_trait;
use boxoffice_domain::{Batch, IdempotencyKey};
use boxoffice_ports::{Committed, Guard};
use std::sync::atomic::AtomicU64;

/// A commit takes so long, and so long more for each command: full batches of 100 make 500 a second.
const COMMIT: Duration = Duration::from_millis(100);
const EACH: Duration = Duration::from_millis(1);
const CAPACITY: u64 = 500;
const FOR: Duration = Duration::from_secs(20);

struct Slow;

#[async_trait]
impl Ledger for Slow {
    async fn transact(&self, batch: Batch, _: Guard, _: Deadline) -> Result<Committed, LedgerError> {
        tokio::time::sleep(COMMIT + EACH * batch.requests.len() as u32).await;
        Ok(committed(&batch))
    }

    async fn reply(&self, _: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        Ok(None)
    }
}

#[derive(Default)]
struct Seen {
    done: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
}

async fn run_one(executor: &Queued, n: u128, seen: &Seen) {
    let before = Instant::now();
    let counted = match executor.execute(charge(1, n), soon()).await {
        Ok(Receipt::Done(_)) if before.elapsed() <= WAIT => &seen.done,
        Ok(_) => &seen.late,
        Err(ExecuteError::Overloaded) => &seen.refused,
        Err(error) => panic!("{error}"),
    };
    counted.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn at_ten_times_capacity_commands_let_in_are_answered_in_time() {
    let log = MemoryLog::new(1);
    let (executor, stats) = start_with(&log, Arc::new(Slow), 1, QueuedSettings { backlog_max: 2_000, ..SETTINGS }).await;
    let seen = Arc::<Seen>::default();
    let mut callers = JoinSet::new();
    let tick = Duration::from_millis(20);
    let each = 10 * CAPACITY * tick.as_millis() as u64 / 1_000;
    let (mut n, began) = (0, Instant::now());
    while began.elapsed() < FOR {
        for _ in 0..each {
            n += 1;
            let (executor, seen) = (executor.clone(), seen.clone());
            callers.spawn(async move { run_one(&executor, n, &seen).await });
        }
        tokio::time::sleep(tick).await;
    }
    let done_in_time = seen.done.load(Ordering::SeqCst);
    while callers.join_next().await.is_some() {}
    let (late, refused) = (seen.late.load(Ordering::SeqCst), seen.refused.load(Ordering::SeqCst));
    assert_eq!(late, 0, "of {n}, refused {refused}");
    let peak = CAPACITY * FOR.as_secs();
    assert!(done_in_time * 10 >= peak * 9, "{done_in_time} of {peak}");
    assert!(refused >= peak * 8, "{refused}");
    assert_eq!((executor.outstanding.count(), stats.logged_commands.get()), (0, 0));
    let in_time = (CAPACITY * WAIT.as_secs() / 3) as usize;
    assert!((in_time / 2..in_time * 3 / 2).contains(&executor.outstanding.bound()), "{}", executor.outstanding.bound());
}
