use super::super::attempt::TRIES;
use super::*;
use crate::testing::{ScriptedLedger, WAIT, charge, committed, policy, reply_to, soon};
use boxoffice_domain::{Decision, Fingerprint, Rejection};
use boxoffice_ports::{LedgerError, MockLease, MockLedger, MockLock, StoredAnswer};
use mockall::Sequence;
use std::sync::atomic::{AtomicU32, Ordering};

fn locked(lock: impl Lock + 'static, ledger: Arc<dyn Ledger>) -> Arc<Locked> {
    counted(lock, ledger).0
}

fn counted(lock: impl Lock + 'static, ledger: Arc<dyn Ledger>) -> (Arc<Locked>, Arc<Stats>) {
    let stats = Arc::<Stats>::default();
    (Locked::new(Arc::new(lock), ledger, policy(), Arc::new(Semaphore::new(8)), stats.clone()), stats)
}

#[tokio::test(start_paused = true)]
async fn acquire_transact_release_in_that_order_on_every_path() {
    type Call = fn() -> Result<(), LedgerError>;
    type Check = fn(Result<Receipt, ExecuteError>);
    let paths: [(&str, Call, Check); 4] = [
        (
            "an error",
            || Err(LedgerError::Unavailable("gone".into())),
            |result| assert!(matches!(result, Err(ExecuteError::Unavailable(_)))),
        ),
        ("success and refusal", || Ok(()), |result| assert_eq!(result.unwrap(), Receipt::Done(reply_to(&charge(1, 5))))),
        (
            "refused by the store",
            || Err(LedgerError::Refused("data".into())),
            |result| assert!(matches!(result, Err(ExecuteError::Internal(_)))),
        ),
        ("panic", || panic!("the test's panic"), |result| assert!(matches!(result, Err(ExecuteError::Internal(_))))),
    ];
    for (what, call, check) in paths {
        let mut order = Sequence::new();
        let (mut lock, mut ledger, mut lease) = (MockLock::new(), MockLedger::new(), MockLease::new());
        let slot = Arc::new(std::sync::Mutex::new(None));
        let releases = Arc::new(AtomicU32::new(0));
        let lent = slot.clone();
        lock.expect_acquire().once().in_sequence(&mut order).returning(move |keys, owner, deadline| {
            let request = charge(1, 5);
            assert_eq!((keys, owner, deadline.remaining()), (request.command.contention(), request.command_id, WAIT));
            let lease: MockLease = lent.lock().unwrap().take().expect("acquired once");
            Ok(Box::new(Kept(lease)))
        });
        ledger.expect_reply().returning(|_| Ok(None));
        // An unreachable store is asked again until the wait is over.
        ledger.expect_transact().times(1..).in_sequence(&mut order).returning(move |batch, guard, _| {
            assert_eq!(guard, Guard::Version);
            call().map(|()| committed(&batch))
        });
        let counted = releases.clone();
        lease.expect_release().once().in_sequence(&mut order).returning(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        *slot.lock().unwrap() = Some(lease);
        let result = locked(lock, Arc::new(ledger)).execute(charge(1, 5), soon()).await;
        assert_eq!(releases.load(Ordering::SeqCst), 1, "{what}");
        check(result);
    }
}

fn lock_with(lease: impl Fn() -> MockLease + Send + Sync + 'static) -> MockLock {
    let mut lock = MockLock::new();
    lock.expect_acquire().once().returning(move |_, _, _| Ok(Box::new(lease())));
    lock
}

fn held_lease() -> MockLease {
    let mut lease = MockLease::new();
    lease.expect_release().once().returning(|| ());
    lease
}

/// A lease that is not lost, and is released as its mock expects.
struct Kept(MockLease);

#[async_trait]
impl Lease for Kept {
    async fn lost(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {
        Box::new(self.0).release().await;
    }
}

/// A lease that lasts: `lost` of a mock returns at once, so this one is written out.
struct LastingLease(Arc<AtomicU32>);

#[async_trait]
impl Lease for LastingLease {
    async fn lost(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn lasting_lock(releases: &Arc<AtomicU32>) -> MockLock {
    let mut lock = MockLock::new();
    let releases = releases.clone();
    lock.expect_acquire().once().returning(move |_, _, _| Ok(Box::new(LastingLease(releases.clone()))));
    lock
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_run_again_until_it_passes() {
    let (left, releases) = (AtomicU32::new(20), Arc::new(AtomicU32::new(0)));
    let ledger = ScriptedLedger::new(move |batch| {
        let conflict = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if conflict { Err(LedgerError::Conflict) } else { Ok(committed(batch)) }
    });
    let receipt = locked(lasting_lock(&releases), ledger.clone()).execute(charge(1, 5), soon()).await.unwrap();
    assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, 5))));
    assert_eq!((ledger.batches().len(), releases.load(Ordering::SeqCst)), (21, 1));
}

#[tokio::test(start_paused = true)]
async fn conflicts_without_end_are_busy_when_wait_is_over() {
    let releases = Arc::new(AtomicU32::new(0));
    let ledger = ScriptedLedger::new(|_| Err(LedgerError::Conflict));
    let before = Instant::now();
    let result = locked(lasting_lock(&releases), ledger).execute(charge(1, 5), soon()).await;
    assert!(matches!(result, Err(ExecuteError::Busy)), "{result:?}");
    assert!(before.elapsed() <= WAIT);
    assert_eq!(releases.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_gives_up_looks_up_the_reply_stored_meanwhile() {
    let found = stored(Fingerprint([5; 32]));
    let losing = lock_with(|| {
        let mut lease = held_lease();
        lease.expect_lost().returning(|| ());
        lease
    });
    // One command gives up at its deadline, the other when its lease is lost.
    for lock in [lasting_lock(&Arc::default()), losing] {
        let ledger = ScriptedLedger::new(|_| Err(LedgerError::Conflict));
        ledger.stored.lock().unwrap().push_back(Some(found.clone()));
        assert_eq!(locked(lock, ledger).execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(found.reply.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_run_again_a_few_times() {
    let releases = Arc::new(AtomicU32::new(0));
    let ledger = ScriptedLedger::new(|_| Err(LedgerError::Retryable("lost connection".into())));
    let result = locked(lasting_lock(&releases), ledger.clone()).execute(charge(1, 5), soon()).await;
    assert!(matches!(result, Err(ExecuteError::Unavailable(_))), "{result:?}");
    assert_eq!((ledger.batches().len(), releases.load(Ordering::SeqCst)), (TRIES as usize, 1));
}

#[tokio::test]
async fn a_lost_lease_ends_the_retrying() {
    let lock = lock_with(|| {
        let mut lease = held_lease();
        lease.expect_lost().returning(|| ());
        lease
    });
    let ledger = ScriptedLedger::new(|_| Err(LedgerError::Conflict));
    let result = locked(lock, ledger.clone()).execute(charge(1, 5), soon()).await;
    assert!(matches!(result, Err(ExecuteError::Busy)), "{result:?}");
    assert_eq!(ledger.batches().len(), 1);
}

#[tokio::test]
async fn a_lost_lease_does_not_undo_what_was_committed() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let receipt = locked(lock_with(held_lease), ledger).execute(charge(1, 5), soon()).await.unwrap();
    assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, 5))));
}

fn busy(same_command: bool) -> MockLock {
    let mut lock = MockLock::new();
    lock.expect_acquire().once().returning(move |_, _, _| Err(LockError::Busy { same_command }));
    lock
}

fn stored(fingerprint: Fingerprint) -> StoredAnswer {
    StoredAnswer { fingerprint, reply: Reply { replayed: true, ..reply_to(&charge(1, 5)) } }
}

#[tokio::test]
async fn before_busy_the_stored_reply_is_looked_up_once() {
    let ledger = ScriptedLedger::new(|_| panic!("nothing is decided without the lock"));
    assert!(matches!(locked(busy(false), ledger.clone()).execute(charge(1, 5), soon()).await, Err(ExecuteError::Busy)));

    let found = stored(Fingerprint([5; 32]));
    ledger.stored.lock().unwrap().push_back(Some(found.clone()));
    assert_eq!(locked(busy(false), ledger.clone()).execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(found.reply));

    ledger.stored.lock().unwrap().push_back(Some(stored(Fingerprint([6; 32]))));
    let Receipt::Done(reply) = locked(busy(false), ledger).execute(charge(1, 5), soon()).await.unwrap() else { panic!("not done") };
    assert_eq!(reply.decision, Decision::Refused(Rejection::IdempotencyKeyReused));
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_waits_for_the_holder_of_its_own_command() {
    let ledger = ScriptedLedger::new(|_| panic!("nothing is decided without the lock"));
    ledger.stored.lock().unwrap().extend([None, None, Some(stored(Fingerprint([5; 32])))]);
    let receipt = locked(busy(true), ledger.clone()).execute(charge(1, 5), soon()).await.unwrap();
    assert!(matches!(receipt, Receipt::Done(Reply { replayed: true, .. })));
    let before = Instant::now();
    assert!(matches!(locked(busy(true), ledger).execute(charge(1, 5), soon()).await, Err(ExecuteError::InProgress)));
    assert!(before.elapsed() <= WAIT);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_command_and_no_lock() {
    let releases = Arc::new(AtomicU32::new(0));
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let executor = locked(lasting_lock(&releases), ledger.clone());
    let caller = tokio::spawn(async move { executor.execute(charge(1, 5), soon()).await });
    crate::testing::until(|| ledger.begun.load(Ordering::SeqCst) == 1).await;
    caller.abort();
    assert!(caller.await.is_err());
    ledger.let_through(1);
    crate::testing::until(|| releases.load(Ordering::SeqCst) == 1).await;
    assert_eq!(ledger.batches(), [vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_waited_for() {
    let releases = Arc::new(AtomicU32::new(0));
    let left = AtomicU32::new(8);
    let ledger = ScriptedLedger::new(move |batch| {
        let away = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if away { Err(LedgerError::Unavailable("restarting".into())) } else { Ok(committed(batch)) }
    });
    let receipt = locked(lasting_lock(&releases), ledger.clone()).execute(charge(1, 5), soon()).await.unwrap();
    assert_eq!(receipt, Receipt::Done(reply_to(&charge(1, 5))));
    assert_eq!((ledger.batches().len(), releases.load(Ordering::SeqCst)), (9, 1));
}

#[tokio::test]
async fn without_a_lock_service_nothing_is_decided() {
    let ledger = ScriptedLedger::new(|_| panic!("nothing is decided without the lock"));
    let mut lock = MockLock::new();
    lock.expect_acquire().once().returning(|_, _, _| Err(LockError::Unavailable("connection refused".into())));
    assert!(matches!(locked(lock, ledger).execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
}

/// Neither answers nor fails.
struct HungLock;

#[async_trait]
impl Lock for HungLock {
    async fn acquire(
        &self,
        _: Vec<boxoffice_domain::Key>,
        _: boxoffice_domain::CommandId,
        _: Deadline,
    ) -> Result<Box<dyn Lease>, LockError> {
        std::future::pending().await
    }
}

struct HungLease;

#[async_trait]
impl Lease for HungLease {
    async fn lost(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_service_that_hangs_is_given_up() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let before = Instant::now();
    assert!(matches!(locked(HungLock, ledger.clone()).execute(charge(1, 5), soon()).await, Err(ExecuteError::Unavailable(_))));
    assert!(before.elapsed() <= WAIT + Duration::from_millis(500));
    assert!(ledger.batches().is_empty());
    let mut lock = MockLock::new();
    lock.expect_acquire().once().returning(|_, _, _| Ok(Box::new(HungLease)));
    let before = Instant::now();
    assert_eq!(locked(lock, ledger).execute(charge(1, 5), soon()).await.unwrap(), Receipt::Done(reply_to(&charge(1, 5))));
    assert!(before.elapsed() <= Duration::from_millis(500), "its answer was there, and only the release hung");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_while_it_waits_for_a_permit_ends_the_waiting() {
    let ledger = ScriptedLedger::new(|batch| Ok(committed(batch)));
    let lock = lock_with(|| {
        let mut lease = held_lease();
        lease.expect_lost().returning(|| ());
        lease
    });
    let executor = Locked::new(Arc::new(lock), ledger.clone(), policy(), Arc::new(Semaphore::new(0)), Arc::default());
    let before = Instant::now();
    assert!(matches!(executor.execute(charge(1, 5), soon()).await, Err(ExecuteError::Busy)));
    assert!(before.elapsed() < WAIT && ledger.batches().is_empty());
}

/// Grants its lease after a while.
struct SlowLock(Duration);

#[async_trait]
impl Lock for SlowLock {
    async fn acquire(
        &self,
        _: Vec<boxoffice_domain::Key>,
        _: boxoffice_domain::CommandId,
        _: Deadline,
    ) -> Result<Box<dyn Lease>, LockError> {
        tokio::time::sleep(self.0).await;
        Ok(Box::new(LastingLease(Arc::default())))
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_waited_for_a_lock_and_the_time_held_are_recorded() {
    let spans = crate::testing::Spans::default();
    let _recording = tracing::subscriber::set_default(spans.clone());
    let (executor, stats) = counted(busy(false), ScriptedLedger::new(|_| panic!("nothing is decided without the lock")));
    assert!(executor.execute(charge(1, 5), soon()).await.is_err());
    assert_eq!((stats.busy.get(), stats.lock_waits.get(), stats.lock_held_us.get()), (1, 1, 0), "losers count as well");

    // The span exists by now. If another test's thread met it first, it was cached as disabled: that thread has no
    // subscriber.
    tracing::callsite::rebuild_interest_cache();
    let ledger = ScriptedLedger::gated(|batch| Ok(committed(batch)));
    let (executor, stats) = counted(SlowLock(Duration::from_millis(70)), ledger.clone());
    let caller = tokio::spawn(async move { executor.execute(charge(1, 5), soon()).await });
    while ledger.begun.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    ledger.let_through(1);
    caller.await.unwrap().unwrap();
    let (waited, held) = (stats.lock_wait_us.get(), stats.lock_held_us.get());
    assert_eq!(stats.lock_waits.get(), 1);
    assert!(waited >= 70_000 && held >= 30_000, "waited {waited} us, held {held} us");
    assert_eq!(spans.recorded("lock.waited_us").last(), Some(&waited));
    assert_eq!(spans.recorded("lock.held_us"), [held], "the loser held nothing");
}
