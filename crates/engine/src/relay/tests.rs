mod fakes;

use self::fakes::{Fails, FakeOutbox, FakeSink};
use super::*;
use crate::Supervisor;
use crate::testing::{CONCERT, eventually, id};
use boxoffice_domain::Event;
use boxoffice_ports::{MockWaitingRoom, RoomError};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;

fn instance(n: u128) -> InstanceId {
    InstanceId(id(n))
}

fn no_payments() -> Arc<TurnEnds> {
    TurnEnds::new(Arc::new(MockWaitingRoom::new()), Duration::ZERO)
}

fn relay(outbox: &Arc<FakeOutbox>, sink: &Arc<FakeSink>, n: u128) -> Arc<Relay> {
    Relay::new(outbox.clone(), no_payments(), Some(sink.clone()), instance(n), Arc::default())
}

struct Run {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn run(relay: &Arc<Relay>) -> Run {
    let (stop, stopped) = watch::channel(false);
    Run { stop, task: tokio::spawn(relay.clone().run(Supervisor::new(), stopped)) }
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
    let relay = Relay::new(outbox.clone(), no_payments(), None, instance(1), Arc::default());
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
            assert!(relay.step(3).await.is_err());
            assert_eq!(outbox.left(), 2, "{fails:?}");
        }
        outbox.put(3, [2]);
        relay.renew().await.unwrap();
        relay.step(3).await.unwrap();
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
    assert!(!relay.step(3).await.unwrap(), "never claimed");
    relay.renew().await.unwrap();
    tokio::time::advance(LEASE).await;
    assert!(!relay.step(3).await.unwrap(), "claimed too long ago");
    assert_eq!(sink.calls.load(Ordering::SeqCst), 0);

    // While the rows were told.
    relay.renew().await.unwrap();
    let permits = relay.steps.acquire_many(STEPS_AT_ONCE as u32).await.unwrap();
    let step = tokio::spawn({
        let relay = relay.clone();
        async move { relay.step(3).await.unwrap() }
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
    assert!(relay.step(3).await.is_err());
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

#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_holds_a_stop_up_for_one_publication() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    (0..OUTBOX_SHARDS).for_each(|shard| outbox.put(shard, 0..5));
    sink.failures.lock().unwrap().extend([Fails::Hangs; 100]);
    let running = run(&relay(&outbox, &sink, 1));
    eventually(|| sink.calls.load(Ordering::SeqCst) == STEPS_AT_ONCE as u32).await;
    tokio::time::sleep(EVERY).await;
    let before = Instant::now();
    running.stop().await;
    assert!(before.elapsed() <= PUBLISH_MAX);
    assert_eq!(sink.calls.load(Ordering::SeqCst), STEPS_AT_ONCE as u32);
    assert!(outbox.owners.lock().unwrap().is_empty());
}

/// A relay whose outbox has a charge and a payment, and whose room answers so.
fn with_payment(room_says: Vec<Result<(), RoomError>>) -> (Arc<FakeOutbox>, Arc<FakeSink>, Arc<Relay>) {
    let outbox = FakeOutbox::new();
    let steps = outbox.steps.clone();
    let sink = Arc::new(FakeSink { steps: steps.clone(), ..FakeSink::default() });
    outbox.put(3, [1, 2]);
    let (user, concert) = (id(5), id(CONCERT));
    let paid = Event::PaymentPaid {
        payment: id(1),
        reservation: id(2),
        user,
        concert,
        amount: 5,
        points_spent: 0,
        points_granted: 0,
        last_hold: true,
    };
    outbox.rows.lock().unwrap().get_mut(&(3, 2)).unwrap().event = paid;
    outbox.give_all(instance(1));
    let mut room = MockWaitingRoom::new();
    let (says, noting) = (Mutex::new(VecDeque::from(room_says)), steps);
    room.expect_finish().returning(move |of, who, _| {
        assert_eq!((of, who), (concert, user));
        noting.lock().unwrap().push("tell".to_owned());
        says.lock().unwrap().pop_front().expect("it is told too often")
    });
    let turns = TurnEnds::new(Arc::new(room), Duration::ZERO);
    let relay = Relay::new(outbox.clone(), turns, Some(sink.clone()), instance(1), Arc::default());
    (outbox, sink, relay)
}

#[tokio::test(start_paused = true)]
async fn the_room_is_told_then_others_then_rows_are_deleted() {
    let (outbox, _, relay) = with_payment(vec![Ok(())]);
    relay.renew().await.unwrap();
    relay.step(3).await.unwrap();
    assert_eq!(*outbox.steps.lock().unwrap(), ["tell", "publish [1, 2]", "delete [1, 2]"]);
}

#[tokio::test(start_paused = true)]
async fn rows_stay_while_the_room_cannot_be_told() {
    let (outbox, sink, relay) = with_payment(vec![Err(RoomError::Unavailable("gone".into())), Ok(())]);
    relay.renew().await.unwrap();
    assert!(relay.step(3).await.is_err());
    assert_eq!((outbox.left(), sink.calls.load(Ordering::SeqCst)), (2, 0));
    relay.step(3).await.unwrap();
    assert_eq!(outbox.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_has_the_room_told_once() {
    let (outbox, sink, relay) = with_payment(vec![Ok(())]);
    sink.failures.lock().unwrap().extend([Fails::Before; 3]);
    relay.renew().await.unwrap();
    for _ in 0..3 {
        assert!(relay.step(3).await.is_err());
    }
    relay.step(3).await.unwrap();
    assert_eq!(*outbox.steps.lock().unwrap(), ["tell", "publish [1, 2]", "delete [1, 2]"]);
    assert_eq!(outbox.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    let relay = relay(&outbox, &sink, 1);
    relay.gauge().await.unwrap();
    assert_eq!((relay.stats.unsent_events.get(), relay.stats.unsent_age_ms.get()), (5, 1_234));
}
