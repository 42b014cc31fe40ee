//! Equal commands at the same moment: the first one runs, the others wait for its answer and get the same.
//!
//! The map holds a command only while it runs, so it is as small as the number of callers. A follower with another
//! fingerprint is refused at once, as the ledger would. If the first command gets no answer, because of an error or
//! because its caller went away, the followers run it themselves. The ledger's stored reply keeps it to one effect.
//!
//! *Bounds.* A follower waits until its deadline, then [`ExecuteError::InProgress`]. Whether there is room for a
//! request is asked of the inner executor, without a look at what runs.
//!
//! A submitted command waits for no outcome and so follows no other: the ledger's stored reply alone keeps it to one
//! effect.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boxoffice_domain::{Decision, Fingerprint, IdempotencyKey, Rejection, Reply, Request};
use boxoffice_ports::{Clock, Deadline, ExecuteError, Executor, Receipt};
use tokio::sync::oneshot;

use crate::sync::lock;

/// The map is cut into this many parts, each under its own mutex.
const SHARDS: usize = 64;

struct Flight {
    fingerprint: Fingerprint,
    followers: Vec<oneshot::Sender<Receipt>>,
}

type Shard = Mutex<HashMap<IdempotencyKey, Flight>>;

/// See the module's opening.
pub struct SingleFlight {
    inner: Arc<dyn Executor>,
    shards: Vec<Shard>,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
}

impl SingleFlight {
    pub fn new(inner: Arc<dyn Executor>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Arc::new(Self { inner, shards, hasher: RandomState::new(), clock })
    }

    fn shard(&self, key: &IdempotencyKey) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

#[async_trait]
impl Executor for SingleFlight {
    async fn execute(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        let Some((key, fingerprint)) = request.idempotency() else { return self.inner.execute(request, deadline).await };
        let shard = self.shard(&key);
        loop {
            let follow = {
                let mut flights = lock(shard);
                match flights.get_mut(&key) {
                    None => {
                        flights.insert(key, Flight { fingerprint, followers: Vec::new() });
                        None
                    }
                    Some(flight) if flight.fingerprint != fingerprint => {
                        let decision = Decision::Refused(Rejection::IdempotencyKeyReused);
                        return Ok(Receipt::Done(Reply { decision, decided_at: self.clock.now(), replayed: false }));
                    }
                    Some(flight) => {
                        let (sender, receiver) = oneshot::channel();
                        flight.followers.push(sender);
                        Some(receiver)
                    }
                }
            };
            match follow {
                None => {
                    let guard = FlightGuard { shard, key, ended: false };
                    let result = self.inner.execute(request, deadline).await;
                    let followers = guard.end();
                    if let Ok(receipt) = &result {
                        share(receipt, followers);
                    }
                    return result;
                }
                Some(receiver) => match deadline.bound(receiver).await {
                    Ok(Ok(receipt)) => return Ok(receipt),
                    // The first command got no answer: one of the followers becomes the first.
                    Ok(Err(_)) => {}
                    Err(_) => return Err(ExecuteError::InProgress),
                },
            }
        }
    }

    async fn submit(&self, request: Request, deadline: Deadline) -> Result<Receipt, ExecuteError> {
        self.inner.submit(request, deadline).await
    }

    fn would_reject(&self, request: &Request) -> bool {
        self.inner.would_reject(request)
    }
}

fn share(receipt: &Receipt, followers: Vec<oneshot::Sender<Receipt>>) {
    for follower in followers {
        let receipt = match receipt {
            // Each caller chooses again by itself, with its own choices, under the same command.
            Receipt::Done(Reply { decision: Decision::Retry, .. }) => continue,
            Receipt::Done(reply) => Receipt::Done(Reply { replayed: true, ..reply.clone() }),
            Receipt::Accepted(command) => Receipt::Accepted(*command),
        };
        // A follower that went away needs no answer.
        let _ = follower.send(receipt);
    }
}

/// Takes the flight out of the map once, also when the first caller goes away. By the time this is dropped the key may
/// be in flight again, for another caller: that flight stays.
struct FlightGuard<'a> {
    shard: &'a Shard,
    key: IdempotencyKey,
    ended: bool,
}

impl FlightGuard<'_> {
    fn end(mut self) -> Vec<oneshot::Sender<Receipt>> {
        self.take()
    }

    fn take(&mut self) -> Vec<oneshot::Sender<Receipt>> {
        if std::mem::replace(&mut self.ended, true) {
            return Vec::new();
        }
        lock(self.shard).remove(&self.key).map(|flight| flight.followers).unwrap_or_default()
    }
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        // Dropping the senders wakes the followers.
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ScriptedLedger, TestClock, WAIT, charge, committed, number, policy, reply_to, soon, until};
    use crate::{Combining, CombiningSettings, Supervisor};
    use boxoffice_domain::Batch;
    use boxoffice_ports::{LedgerError, MockExecutor};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::task::JoinHandle;

    fn over(ledger: &Arc<ScriptedLedger>) -> Arc<SingleFlight> {
        let settings = CombiningSettings { lanes: 1, batch_max: 1, queue_max: 100 };
        let inner = Combining::start(ledger.clone(), policy(), settings, Arc::default(), &*Supervisor::new());
        SingleFlight::new(inner, Arc::new(TestClock::default()))
    }

    fn send(executor: &Arc<SingleFlight>, request: Request) -> JoinHandle<Result<Receipt, ExecuteError>> {
        let executor = executor.clone();
        tokio::spawn(async move { executor.execute(request, soon()).await })
    }

    async fn followed(executor: &SingleFlight, request: &Request, followers: usize) {
        let (key, _) = request.idempotency().unwrap();
        until(|| lock(executor.shard(&key)).get(&key).map_or(0, |flight| flight.followers.len()) == followers).await;
    }

    #[tokio::test(start_paused = true)]
    async fn equal_requests_at_once_run_once_and_get_equal_answers() {
        for equal in [2, 3, 10, 100] {
            let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
            let executor = over(&ledger);
            let sent: Vec<_> = (0..equal).map(|_| send(&executor, charge(1, 5))).collect();
            followed(&executor, &charge(1, 5), equal - 1).await;
            ledger.let_through(1);
            let mut first = 0;
            for answer in sent {
                let Receipt::Done(reply) = answer.await.unwrap().unwrap() else { panic!("not done") };
                first += u32::from(!reply.replayed);
                assert_eq!(Reply { replayed: false, ..reply }, reply_to(&charge(1, 5)));
            }
            assert_eq!((first, ledger.batches().len()), (1, 1), "{equal} equal requests");
            followed(&executor, &charge(1, 5), 0).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_request_under_a_key_in_flight_is_refused() {
        let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
        let executor = over(&ledger);
        let first = send(&executor, charge(1, 5));
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        let other = Request { fingerprint: Some(Fingerprint([9; 32])), ..charge(1, 5) };
        let Receipt::Done(reply) = executor.execute(other, soon()).await.unwrap() else { panic!("not done") };
        assert_eq!(reply.decision, Decision::Refused(Rejection::IdempotencyKeyReused));
        ledger.let_through(1);
        first.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_first_caller_goes_away_a_follower_runs_the_command() {
        let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
        let executor = over(&ledger);
        let first = send(&executor, charge(1, 5));
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        let followers: Vec<_> = (0..3).map(|_| send(&executor, charge(1, 5))).collect();
        followed(&executor, &charge(1, 5), 3).await;
        first.abort();
        followed(&executor, &charge(1, 5), 2).await;
        ledger.let_through(2);
        for follower in followers {
            follower.await.unwrap().unwrap();
        }
        assert_eq!(ledger.batches(), [vec![5], vec![5]], "the ledger's reply makes the second a replay");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_not_shared() {
        let left = AtomicU32::new(1);
        let ledger = ScriptedLedger::gated(move |batch: &Batch| {
            let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if fails { Err(LedgerError::Refused("data".into())) } else { Ok(committed(batch)) }
        });
        let executor = over(&ledger);
        let first = send(&executor, charge(1, 5));
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        let second = send(&executor, charge(1, 5));
        followed(&executor, &charge(1, 5), 1).await;
        ledger.let_through(2);
        assert!(first.await.unwrap().is_err());
        assert!(second.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn choosing_again_is_each_callers_own() {
        let left = AtomicU32::new(1);
        let ledger = ScriptedLedger::gated(move |batch: &Batch| {
            let mut committed = committed(batch);
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                committed.replies[0].decision = Decision::Retry;
            }
            Ok(committed)
        });
        let executor = over(&ledger);
        let first = send(&executor, charge(1, 5));
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        let follower = send(&executor, charge(1, 5));
        followed(&executor, &charge(1, 5), 1).await;
        ledger.let_through(2);
        let Receipt::Done(reply) = first.await.unwrap().unwrap() else { panic!("not done") };
        assert_eq!(reply.decision, Decision::Retry);
        assert_eq!(follower.await.unwrap().unwrap(), Receipt::Done(reply_to(&charge(1, 5))), "the follower ran it by itself");
        assert_eq!(ledger.batches(), [vec![5], vec![5]]);
    }

    #[test]
    fn ending_a_flight_leaves_a_later_one_of_the_same_key() {
        let shard = Shard::default();
        let (key, fingerprint) = charge(1, 5).idempotency().unwrap();
        let begin = || drop(lock(&shard).insert(key, Flight { fingerprint, followers: Vec::new() }));
        begin();
        let mut guard = FlightGuard { shard: &shard, key, ended: false };
        guard.take();
        begin();
        drop(guard);
        assert!(lock(&shard).contains_key(&key), "the later flight is another caller's");
        drop(FlightGuard { shard: &shard, key, ended: false });
        assert!(lock(&shard).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_waits_until_its_deadline_and_no_longer() {
        let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
        let executor = over(&ledger);
        let _first = send(&executor, charge(1, 5));
        until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
        let before = tokio::time::Instant::now();
        assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::InProgress)));
        assert_eq!(before.elapsed(), WAIT);
    }

    #[tokio::test]
    async fn requests_without_a_key_pass() {
        let mut inner = MockExecutor::new();
        inner.expect_execute().times(2).returning(|request, _| {
            assert_eq!(number(&request), 5);
            Ok(Receipt::Done(reply_to(&request)))
        });
        let executor = SingleFlight::new(Arc::new(inner), Arc::new(TestClock::default()));
        let request = Request { fingerprint: None, ..charge(1, 5) };
        for _ in 0..2 {
            executor.execute(request.clone(), soon()).await.unwrap();
        }
    }

    #[test]
    fn the_inner_executor_is_asked_whether_there_is_room() {
        for full in [true, false] {
            let mut inner = MockExecutor::new();
            inner.expect_would_reject().once().return_const(full);
            let executor = SingleFlight::new(Arc::new(inner), Arc::new(TestClock::default()));
            assert_eq!(executor.would_reject(&charge(1, 5)), full);
        }
    }

    #[tokio::test]
    async fn a_submitted_command_follows_no_other() {
        let mut inner = MockExecutor::new();
        inner.expect_execute().once().returning(|request, _| Ok(Receipt::Accepted(request.command_id)));
        inner.expect_submit().times(2).returning(|request, _| Ok(Receipt::Accepted(request.command_id)));
        let executor = SingleFlight::new(Arc::new(inner), Arc::new(TestClock::default()));
        for _ in 0..2 {
            let accepted = Receipt::Accepted(charge(1, 5).command_id);
            assert_eq!(executor.submit(charge(1, 5), soon()).await.unwrap(), accepted);
        }
        executor.execute(charge(1, 5), soon()).await.unwrap();
    }

    #[tokio::test]
    async fn followers_are_accepted_with_a_command_that_stands_in_a_log() {
        let mut inner = MockExecutor::new();
        inner.expect_execute().once().returning(|request, _| Ok(Receipt::Accepted(request.command_id)));
        let executor = SingleFlight::new(Arc::new(inner), Arc::new(TestClock::default()));
        let (key, fingerprint) = charge(1, 5).idempotency().unwrap();
        lock(executor.shard(&key)).insert(key, Flight { fingerprint, followers: Vec::new() });
        let follower = send(&executor, charge(1, 5));
        followed(&executor, &charge(1, 5), 1).await;
        // The first command ends with its receipt.
        let followers = FlightGuard { shard: executor.shard(&key), key, ended: false }.end();
        share(&executor.inner.execute(charge(1, 5), soon()).await.unwrap(), followers);
        assert_eq!(follower.await.unwrap().unwrap(), Receipt::Accepted(charge(1, 5).command_id));
    }
}
