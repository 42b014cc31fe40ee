mod fakes;

use self::fakes::{Fails, FakeOutbox, FakeSink};
use super::*;
use crate::Supervisor;
use crate::testing::room::FakeRoom;
use crate::testing::{empty_catalogue, eventually, id};
use boxoffice_ports::MockWaitingRoom;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use tokio::task::JoinHandle;

fn instance(n: u128) -> InstanceId {
    InstanceId(id(n))
}

fn no_payments() -> Arc<TurnEnds> {
    TurnEnds::new(Arc::new(MockWaitingRoom::new()), empty_catalogue(), Duration::ZERO)
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
async fn a_shard_that_fails_delays_no_other() {
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
async fn a_sink_that_is_away_is_tried_with_growing_pauses() {
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

    // While the rows were read.
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
async fn two_relays_share_the_shards_and_publish_each_row_once() {
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
async fn a_sink_that_hangs_delays_a_stop_by_one_publication() {
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

/// A relay whose outbox has a charge and a payment in shard 3, on this room.
fn with_payment(room: &Arc<FakeRoom>) -> (Arc<FakeOutbox>, Arc<FakeSink>, Arc<Relay>) {
    let outbox = FakeOutbox::new();
    let sink = Arc::new(FakeSink { steps: outbox.steps.clone(), ..FakeSink::default() });
    outbox.put(3, [1]);
    outbox.put_paid(3, [2]);
    outbox.give_all(instance(1));
    let turns = TurnEnds::new(room.clone(), empty_catalogue(), Duration::ZERO);
    let relay = Relay::new(outbox.clone(), turns, Some(sink.clone()), instance(1), Arc::default());
    (outbox, sink, relay)
}

#[tokio::test(start_paused = true)]
async fn rows_are_deleted_once_room_and_sink_have_them() {
    let room = FakeRoom::open();
    let (outbox, _, relay) = with_payment(&room);
    relay.renew().await.unwrap();
    relay.step(3).await.unwrap();
    assert_eq!(*outbox.steps.lock().unwrap(), ["publish [1, 2]", "delete [1, 2]"]);
    assert_eq!((room.ended(), outbox.left_set_aside()), (vec![id(2)], 0));
}

#[tokio::test(start_paused = true)]
async fn events_do_not_wait_for_a_room_that_is_away_or_hangs() {
    for hangs in [false, true] {
        let room = if hangs { FakeRoom::hung() } else { FakeRoom::open() };
        room.is_away.store(!hangs, Ordering::SeqCst);
        let (outbox, sink, relay) = with_payment(&room);
        relay.renew().await.unwrap();
        relay.step(3).await.unwrap();
        assert_eq!(*outbox.steps.lock().unwrap(), ["publish [1, 2]", "set aside [2]", "delete [1]"]);
        // The next ones do not even wait, and what was published is not published again.
        outbox.put_paid(3, [3, 4]);
        let before = Instant::now();
        relay.step(3).await.unwrap();
        assert!(before.elapsed() < ROOM_WAIT);
        assert_eq!((outbox.left(), outbox.left_set_aside()), (0, 3));
        assert_eq!(sink.firsts(3), [1, 2, 3, 4]);
        assert!(relay.end_all_set_aside().await.is_err());
        assert_eq!(outbox.left_set_aside(), 3);

        room.is_away.store(false, Ordering::SeqCst);
        if hangs {
            room.gate.add_permits(100);
        }
        relay.end_all_set_aside().await.unwrap();
        assert_eq!((outbox.left_set_aside(), room.ended().len()), (0, 3));
        outbox.put_paid(3, [5]);
        relay.step(3).await.unwrap();
        assert_eq!((outbox.left(), outbox.left_set_aside(), sink.published.lock().unwrap().len()), (0, 0, 5), "as before");
    }
}

#[tokio::test(start_paused = true)]
async fn many_payments_delay_no_event_while_rooms_are_away() {
    let room = FakeRoom::hung();
    let (outbox, sink, relay) = with_payment(&room);
    let last = 3 * i64::from(STEP_PUBLISHED);
    outbox.put_paid(3, 3..last);
    outbox.put(3, [last]);
    let running = run(&relay);
    eventually(|| outbox.left() == 0).await;
    assert_eq!(sink.firsts(3), (1..=last).collect::<Vec<_>>());
    assert_eq!(outbox.left_set_aside() as i64, last - 2);
    room.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    eventually(|| outbox.left_set_aside() == 0).await;
    assert_eq!((room.ended().len() as i64, sink.published.lock().unwrap().len() as i64), (last - 2, last), "each once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_relay_set_aside_are_ended_by_the_next_and_not_published_again() {
    let room = FakeRoom::hung();
    let (outbox, sink, relay) = with_payment(&room);
    let crashing = run(&relay);
    eventually(|| outbox.left_set_aside() == 1).await;
    crashing.task.abort();
    assert!(crashing.task.await.is_err_and(|end| end.is_cancelled()));
    outbox.owners.lock().unwrap().clear();
    let room = FakeRoom::open();
    let next = Relay::new(
        outbox.clone(),
        TurnEnds::new(room.clone(), empty_catalogue(), Duration::ZERO),
        Some(sink.clone()),
        instance(2),
        Arc::default(),
    );
    let running = run(&next);
    eventually(|| outbox.left_set_aside() == 0).await;
    assert_eq!((room.ended(), sink.published.lock().unwrap().len()), (vec![id(2)], 2));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_does_not_wait_for_a_sink_that_fails_and_is_ended_once() {
    let room = FakeRoom::open();
    let (outbox, sink, relay) = with_payment(&room);
    sink.failures.lock().unwrap().extend([Fails::Before; 3]);
    relay.renew().await.unwrap();
    for _ in 0..3 {
        assert!(relay.step(3).await.is_err());
        eventually(|| room.ended() == [id(2)]).await;
    }
    relay.step(3).await.unwrap();
    assert_eq!(*outbox.steps.lock().unwrap(), ["publish [1, 2]", "delete [1, 2]"]);
    assert_eq!((outbox.left(), room.asked()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_sink_rows_go_once_the_room_has_them() {
    let room = FakeRoom::open();
    let (outbox, _, _) = with_payment(&room);
    let relay =
        Relay::new(outbox.clone(), TurnEnds::new(room.clone(), empty_catalogue(), Duration::ZERO), None, instance(1), Arc::default());
    relay.renew().await.unwrap();
    relay.step(3).await.unwrap();
    assert_eq!((outbox.left(), room.ended()), (0, vec![id(2)]));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted() {
    let (outbox, sink) = (FakeOutbox::new(), Arc::<FakeSink>::default());
    outbox.put(3, 0..5);
    let relay = relay(&outbox, &sink, 1);
    relay.gauge().await.unwrap();
    assert_eq!((relay.stats.unsent_events.get(), relay.stats.unsent_age_ms.get()), (5, 1_234));
}
