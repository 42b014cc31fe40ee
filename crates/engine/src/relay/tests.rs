use super::*;
use crate::testing::{CONCERT, at, eventually, id};
use async_trait::async_trait;
use boxoffice_ports::{MockQueries, MockWaitingRoom, RoomError, StoreError, Unsent};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::task::JoinHandle;

/// The tables of one outbox, claims included.
#[derive(Default)]
struct FakeOutbox {
    rows: Mutex<BTreeMap<(u32, i64), OutboxRow>>,
    owners: Mutex<BTreeMap<u32, (InstanceId, Instant)>>,
    /// Whether it answers claims, and deletions.
    claims: AtomicBool,
    deletes: AtomicBool,
    /// Shards that cannot be read.
    unread: Mutex<Vec<u32>>,
    /// What was done, in order.
    steps: Arc<Mutex<Vec<String>>>,
}

impl FakeOutbox {
    fn new() -> Arc<Self> {
        Arc::new(Self { claims: AtomicBool::new(true), deletes: AtomicBool::new(true), ..Self::default() })
    }

    fn put(&self, shard: u32, ids: impl IntoIterator<Item = i64>) {
        let row = |id| OutboxRow { shard, id, event: charged(), occurred_at: at(0) };
        self.rows.lock().unwrap().extend(ids.into_iter().map(|id| ((shard, id), row(id))));
    }

    fn left(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    fn owned(&self, by: InstanceId) -> usize {
        self.owners.lock().unwrap().values().filter(|(owner, until)| *owner == by && *until > Instant::now()).count()
    }

    fn give_all(&self, to: InstanceId) {
        let until = Instant::now() + LEASE;
        self.owners.lock().unwrap().extend((0..OUTBOX_SHARDS).map(|shard| (shard, (to, until))));
    }
}

fn charged() -> Event {
    Event::WalletCharged { user: id(5), entry: id(1), amount: 5, balance: 5 }
}

fn gone() -> StoreError {
    StoreError::Unavailable("gone".into())
}

#[async_trait]
impl Outbox for FakeOutbox {
    /// Half of the shards at most, once another relay lives.
    async fn claim(&self, relay: InstanceId, lease: Duration) -> Result<Vec<u32>, StoreError> {
        if !self.claims.load(Ordering::SeqCst) {
            return Err(gone());
        }
        let (now, mut owners) = (Instant::now(), self.owners.lock().unwrap());
        owners.retain(|_, (_, until)| *until > now);
        let alone = owners.values().all(|(owner, _)| *owner == relay);
        let share = if alone && owners.len() < OUTBOX_SHARDS as usize { OUTBOX_SHARDS } else { OUTBOX_SHARDS / 2 };
        let mut mine = Vec::new();
        for shard in 0..OUTBOX_SHARDS {
            let owner = owners.get(&shard).map(|(owner, _)| *owner);
            if owner.is_none_or(|owner| owner == relay) {
                if mine.len() < share as usize {
                    owners.insert(shard, (relay, now + lease));
                    mine.push(shard);
                } else {
                    owners.remove(&shard);
                }
            }
        }
        Ok(mine)
    }

    async fn release(&self, relay: InstanceId) -> Result<(), StoreError> {
        self.owners.lock().unwrap().retain(|_, (owner, _)| *owner != relay);
        Ok(())
    }

    async fn unsent(&self, shard: u32, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        if self.unread.lock().unwrap().contains(&shard) {
            return Err(gone());
        }
        let rows = self.rows.lock().unwrap();
        Ok(rows.range((shard, i64::MIN)..=(shard, i64::MAX)).take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn sent(&self, shard: u32, ids: Vec<i64>) -> Result<(), StoreError> {
        if !self.deletes.load(Ordering::SeqCst) {
            return Err(gone());
        }
        self.steps.lock().unwrap().push(format!("delete {ids:?}"));
        let mut rows = self.rows.lock().unwrap();
        ids.into_iter().for_each(|id| drop(rows.remove(&(shard, id))));
        Ok(())
    }

    async fn backlog(&self) -> Result<Unsent, StoreError> {
        Ok(Unsent { count: self.left() as u64, oldest: Duration::from_millis(1_234) })
    }
}

/// Takes what it is given, after so long, unless it is to fail.
#[derive(Default)]
struct FakeSink {
    published: Mutex<Vec<(u32, i64)>>,
    calls: AtomicU32,
    /// What becomes of the next publications; then they work.
    failures: Mutex<VecDeque<Fails>>,
    takes: Mutex<Duration>,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
    steps: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, Debug)]
enum Fails {
    Before,
    /// All were published, and nobody learns of it.
    After,
    Hangs,
}

#[async_trait]
impl EventSink for FakeSink {
    async fn publish(&self, rows: Vec<OutboxRow>) -> Result<(), Source> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fails = self.failures.lock().unwrap().pop_front();
        match fails {
            Some(Fails::Before) => return Err("gone".into()),
            Some(Fails::Hangs) => std::future::pending().await,
            Some(Fails::After) | None => {}
        }
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        self.steps.lock().unwrap().push(format!("publish {:?}", rows.iter().map(|row| row.id).collect::<Vec<_>>()));
        self.published.lock().unwrap().extend(rows.iter().map(|row| (row.shard, row.id)));
        if fails.is_some() { Err("no confirmation".into()) } else { Ok(()) }
    }
}

impl FakeSink {
    /// The ids of a shard in the order of their first delivery.
    fn firsts(&self, shard: u32) -> Vec<i64> {
        let mut seen = HashSet::new();
        self.published.lock().unwrap().iter().filter(|row| row.0 == shard && seen.insert(row.1)).map(|row| row.1).collect()
    }
}

fn instance(n: u128) -> InstanceId {
    InstanceId(id(n))
}

fn nobody_to_tell() -> Arc<RoomTeller> {
    RoomTeller::new(Arc::new(MockWaitingRoom::new()), Arc::new(MockQueries::new()))
}

fn relay(outbox: &Arc<FakeOutbox>, sink: &Arc<FakeSink>, n: u128) -> Arc<Relay> {
    Relay::new(outbox.clone(), nobody_to_tell(), Some(sink.clone()), instance(n), Arc::default())
}

struct Run {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn run(relay: &Arc<Relay>) -> Run {
    let (stop, stopped) = watch::channel(false);
    Run { stop, task: tokio::spawn(relay.clone().run(stopped)) }
}

impl Run {
    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_shard_is_emptied_in_order() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    let rows = i64::from(STEP_PUBLISHED) + 7;
    (0..OUTBOX_SHARDS).for_each(|shard| outbox.put(shard, 0..rows));
    *sink.takes.lock().unwrap() = Duration::from_millis(20);
    let relay = relay(&outbox, &sink, 1);
    let running = run(&relay);
    eventually(|| outbox.left() == 0).await;
    running.stop().await;
    for shard in 0..OUTBOX_SHARDS {
        assert_eq!(sink.firsts(shard), (0..rows).collect::<Vec<_>>());
    }
    assert_eq!(sink.calls.load(Ordering::SeqCst), 2 * OUTBOX_SHARDS, "as many rows at once as a step has");
    assert_eq!(relay.stats.relayed_events.get(), rows as u64 * u64::from(OUTBOX_SHARDS));
    assert_eq!(sink.most_at_once.load(Ordering::SeqCst), STEPS_AT_ONCE as u32, "side by side, and bounded");
}

#[tokio::test(start_paused = true)]
async fn a_full_step_is_followed_by_the_next_at_once() {
    let outbox = FakeOutbox::new();
    outbox.put(3, 0..i64::from(STEP) * 3);
    let relay = Relay::new(outbox.clone(), nobody_to_tell(), None, instance(1), Arc::default());
    let running = run(&relay);
    eventually(|| outbox.left() < 3 * STEP as usize).await;
    let before = Instant::now();
    eventually(|| outbox.left() == 0).await;
    assert!(before.elapsed() < EVERY, "not one step a round");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_before_it_was_published() {
    for fails in [Fails::Before, Fails::After, Fails::Hangs] {
        let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
        outbox.put(3, 0..2);
        sink.failures.lock().unwrap().extend([fails; 3]);
        let relay = relay(&outbox, &sink, 1);
        relay.renew().await.unwrap();
        for _ in 0..3 {
            relay.renew().await.unwrap();
            assert!(relay.step(3, &mut ToldOf::new()).await.is_err());
            assert_eq!(outbox.left(), 2, "{fails:?}");
        }
        outbox.put(3, [2]);
        relay.renew().await.unwrap();
        relay.step(3, &mut ToldOf::new()).await.unwrap();
        assert_eq!((outbox.left(), sink.firsts(3)), (0, vec![0, 1, 2]), "in order, whatever failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_fails_keeps_no_other_back() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.unread.lock().unwrap().push(3);
    outbox.put(3, 0..5);
    outbox.put(4, 0..5);
    let relay = relay(&outbox, &sink, 1);
    let running = run(&relay);
    eventually(|| outbox.left() == 5).await;
    assert_eq!(sink.firsts(4), [0, 1, 2, 3, 4]);
    outbox.unread.lock().unwrap().clear();
    eventually(|| outbox.left() == 0).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_is_asked_with_growing_pauses() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    sink.failures.lock().unwrap().extend([Fails::Before; 1_000]);
    let running = run(&relay(&outbox, &sink, 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!((15..=20).contains(&sink.calls.load(Ordering::SeqCst)), "{}", sink.calls.load(Ordering::SeqCst));
    sink.failures.lock().unwrap().clear();
    eventually(|| outbox.left() == 0).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ends_in_the_middle_stops_the_step() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    let relay = relay(&outbox, &sink, 1);
    assert!(!relay.step(3, &mut ToldOf::new()).await.unwrap(), "never claimed");
    relay.renew().await.unwrap();
    tokio::time::advance(LEASE).await;
    assert!(!relay.step(3, &mut ToldOf::new()).await.unwrap(), "claimed too long ago");
    assert_eq!(sink.calls.load(Ordering::SeqCst), 0);

    // While the rows were told.
    relay.renew().await.unwrap();
    let permits = relay.steps.acquire_many(STEPS_AT_ONCE as u32).await.unwrap();
    let step = tokio::spawn({
        let relay = relay.clone();
        async move { relay.step(3, &mut ToldOf::new()).await.unwrap() }
    });
    tokio::task::yield_now().await;
    tokio::time::advance(LEASE).await;
    drop(permits);
    step.await.unwrap();
    assert_eq!((sink.calls.load(Ordering::SeqCst), outbox.left()), (0, 5));

    // While they are published: no longer than the claim.
    relay.renew().await.unwrap();
    tokio::time::advance(LEASE - Duration::from_secs(1)).await;
    *sink.takes.lock().unwrap() = Duration::from_secs(2);
    let before = Instant::now();
    assert!(relay.step(3, &mut ToldOf::new()).await.is_err());
    assert_eq!((before.elapsed(), outbox.left()), (Duration::from_secs(1), 5));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_claims_ends_the_sending_with_the_lease() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    let running = run(&relay(&outbox, &sink, 1));
    eventually(|| outbox.owned(instance(1)) > 0).await;
    outbox.claims.store(false, Ordering::SeqCst);
    tokio::time::sleep(LEASE).await;
    outbox.put(3, 0..5);
    tokio::time::sleep(LEASE).await;
    assert_eq!(outbox.left(), 5);
    outbox.claims.store(true, Ordering::SeqCst);
    eventually(|| outbox.left() == 0).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_relays_share_the_shards_and_do_no_work_twice() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    *sink.takes.lock().unwrap() = Duration::from_millis(300);
    let first = run(&relay(&outbox, &sink, 1));
    eventually(|| outbox.owned(instance(1)) == OUTBOX_SHARDS as usize).await;
    let second = run(&relay(&outbox, &sink, 2));
    // Rows come all the while, also while shards change hands.
    for id in 0..200 {
        (0..OUTBOX_SHARDS).for_each(|shard| outbox.put(shard, [id]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((outbox.owned(instance(1)), outbox.owned(instance(2))), (8, 8));
    eventually(|| outbox.left() == 0).await;
    let published = sink.published.lock().unwrap().clone();
    assert_eq!(published.iter().collect::<HashSet<_>>().len(), 200 * OUTBOX_SHARDS as usize);
    assert_eq!(published.len(), 200 * OUTBOX_SHARDS as usize, "each once");
    for shard in 0..OUTBOX_SHARDS {
        assert!(sink.firsts(shard).is_sorted());
    }
    first.stop().await;
    assert_eq!(outbox.owned(instance(1)), 0, "given back at once");
    outbox.put(3, [500]);
    outbox.put(4, [500]);
    eventually(|| outbox.left() == 0).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_loses_nothing() {
    for fails in [None, Some(Fails::Hangs), Some(Fails::After)] {
        for deletes in [true, false] {
            let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
            outbox.put(3, 0..5);
            sink.failures.lock().unwrap().extend(fails);
            outbox.deletes.store(deletes, Ordering::SeqCst);
            let crashing = run(&relay(&outbox, &sink, 1));
            eventually(|| sink.calls.load(Ordering::SeqCst) > 0).await;
            crashing.task.abort();
            assert!(crashing.task.await.is_err_and(|end| end.is_cancelled()));
            outbox.deletes.store(true, Ordering::SeqCst);
            outbox.put(3, 5..8);
            let next = run(&relay(&outbox, &sink, 2));
            eventually(|| outbox.left() == 0).await;
            assert_eq!(sink.firsts(3), (0..8).collect::<Vec<_>>(), "{fails:?}, {deletes}");
            next.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_step_and_no_longer() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    *sink.takes.lock().unwrap() = Duration::from_secs(1);
    let running = run(&relay(&outbox, &sink, 1));
    eventually(|| sink.calls.load(Ordering::SeqCst) == 1).await;
    outbox.put(3, 5..10);
    running.stop().await;
    assert_eq!((outbox.left(), sink.firsts(3)), (5, vec![0, 1, 2, 3, 4]));
    assert!(outbox.owners.lock().unwrap().is_empty());
}

/// A relay whose outbox has a charge and a payment, and whose room answers so.
fn with_payment(room_says: Vec<Result<(), RoomError>>) -> (Arc<FakeOutbox>, Arc<FakeSink>, Arc<Relay>, Arc<Mutex<Vec<String>>>) {
    let outbox = FakeOutbox::new();
    let steps = outbox.steps.clone();
    let sink = Arc::new(FakeSink { steps: steps.clone(), ..FakeSink::default() });
    outbox.put(3, [1, 2]);
    let (user, concert) = (id(5), id(CONCERT));
    let paid = Event::PaymentPaid { payment: id(1), reservation: id(2), user, concert, amount: 5, points_spent: 0, points_granted: 0 };
    outbox.rows.lock().unwrap().get_mut(&(3, 2)).unwrap().event = paid;
    outbox.give_all(instance(1));
    let (mut queries, mut room) = (MockQueries::new(), MockWaitingRoom::new());
    queries.expect_live_holds().returning(|_, _| Ok(Vec::new()));
    let (says, noting) = (Mutex::new(VecDeque::from(room_says)), steps.clone());
    room.expect_finish().returning(move |of, who, _| {
        assert_eq!((of, who), (concert, user));
        noting.lock().unwrap().push("tell".to_owned());
        says.lock().unwrap().pop_front().expect("it is told too often")
    });
    let teller = RoomTeller::new(Arc::new(room), Arc::new(queries));
    let relay = Relay::new(outbox.clone(), teller, Some(sink.clone()), instance(1), Arc::default());
    (outbox, sink, relay, steps)
}

#[tokio::test(start_paused = true)]
async fn the_room_is_told_then_others_then_rows_are_deleted() {
    let (_, _, relay, steps) = with_payment(vec![Ok(())]);
    relay.renew().await.unwrap();
    relay.step(3, &mut ToldOf::new()).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), ["tell", "publish [1, 2]", "delete [1, 2]"]);
}

#[tokio::test(start_paused = true)]
async fn rows_stay_while_the_room_cannot_be_told() {
    let (outbox, sink, relay, _) = with_payment(vec![Err(RoomError::Unavailable("gone".into())), Ok(())]);
    relay.renew().await.unwrap();
    let mut told = ToldOf::new();
    assert!(relay.step(3, &mut told).await.is_err());
    assert_eq!((outbox.left(), sink.calls.load(Ordering::SeqCst)), (2, 0));
    relay.step(3, &mut told).await.unwrap();
    assert_eq!(outbox.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_has_the_room_told_once() {
    let (outbox, sink, relay, steps) = with_payment(vec![Ok(())]);
    sink.failures.lock().unwrap().extend([Fails::Before; 3]);
    relay.renew().await.unwrap();
    let mut told = ToldOf::new();
    for _ in 0..3 {
        assert!(relay.step(3, &mut told).await.is_err());
    }
    relay.step(3, &mut told).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), ["tell", "publish [1, 2]", "delete [1, 2]"]);
    assert!(told.is_empty() && outbox.left() == 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    let relay = relay(&outbox, &sink, 1);
    relay.gauge().await.unwrap();
    assert_eq!((relay.stats.unsent_events.get(), relay.stats.unsent_age_ms.get()), (5, 1_234));
}
