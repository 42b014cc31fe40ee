use super::*;
use crate::testing::room::FakeRoom;
use crate::testing::{CONCERT, at, catalog, concert_row, empty_catalogue, id, paid, reply_to, until};
use boxoffice_domain::Rejection;
use boxoffice_ports::MockWaitingRoom;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

const WAIT: Duration = Duration::from_millis(250);

fn end(n: u128) -> TurnEnd {
    TurnEnd { payment: id(n), user: id(n), concert: id(CONCERT), paid_at: at(3) }
}

fn ends(room: &Arc<FakeRoom>) -> Arc<TurnEnds> {
    TurnEnds::new(room.clone(), empty_catalogue(), WAIT)
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_until_the_room_has_the_end() {
    let room = FakeRoom::hung();
    let ends = ends(&room);
    let waiting = tokio::spawn({
        let ends = ends.clone();
        async move { ends.ended_in_time(end(1)).await }
    });
    until(|| room.asked() == 1).await;
    assert!(!waiting.is_finished());
    room.gate.add_permits(1);
    assert!(waiting.await.unwrap());
    assert_eq!(*room.asked.lock().unwrap(), [(id(CONCERT), id(1), at(3))]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_hangs_costs_each_answer_the_bound_and_no_more() {
    let room = FakeRoom::hung();
    let ends = ends(&room);
    let before = Instant::now();
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let ends = ends.clone();
            tokio::spawn(async move { ends.ended_in_time(end(n)).await })
        })
        .collect();
    for answer in waiting {
        assert!(!answer.await.unwrap());
    }
    assert_eq!(before.elapsed(), WAIT);
    assert_eq!(room.asked(), 100, "side by side");
    // The ends go on without a caller.
    room.gate.add_permits(100);
    until(|| room.ended().len() == 100).await;
    assert!(ends.ended_in_time(end(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_away_is_asked_again() {
    let room = FakeRoom::open();
    let ends = ends(&room);
    room.is_away.store(true, Ordering::SeqCst);
    assert!(!ends.ended_in_time(end(1)).await);
    room.is_away.store(false, Ordering::SeqCst);
    assert!(ends.ended_in_time(end(1)).await);
    assert_eq!((room.asked(), room.ended().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_a_turn_is_ended_once() {
    let room = FakeRoom::hung();
    let ends = ends(&room);
    ends.begin(end(1));
    ends.begin(end(1));
    let waiting = tokio::spawn({
        let ends = ends.clone();
        async move { ends.ended_within(end(1), APPEND_MAX).await.is_ok() }
    });
    until(|| room.asked() == 1).await;
    room.gate.add_permits(1);
    assert!(waiting.await.unwrap());
    ends.begin(end(1));
    assert!(ends.ended_in_time(end(1)).await);
    assert_eq!(room.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn ends_under_way_are_bounded_and_so_are_those_remembered() {
    let room = FakeRoom::hung();
    let ends = ends(&room);
    (0..UNDER_WAY_MAX as u128).for_each(|n| ends.begin(end(n)));
    assert!(matches!(ends.ended_within(end(u128::MAX), WAIT).await, Err(TurnEndError::TooMany)));
    room.gate.add_permits(10 * ENDED_MAX);
    until(|| lock(&ends.known).under_way.is_empty()).await;
    for n in 0..3 * ENDED_MAX as u128 {
        assert!(ends.ended_in_time(end(n)).await);
        let halves = lock(&ends.known).ended.iter().map(HashSet::len).max();
        assert!(halves.is_some_and(|most| most <= ENDED_MAX));
    }
    let asked = room.asked();
    assert!(ends.ended_in_time(end(3 * ENDED_MAX as u128 - 1)).await);
    assert_eq!(room.asked(), asked, "the last ones are remembered");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_the_end_to_the_next_caller() {
    let room = FakeRoom::open();
    let ends = ends(&room);
    room.panics.store(true, Ordering::SeqCst);
    assert!(!ends.ended_in_time(end(1)).await);
    room.panics.store(false, Ordering::SeqCst);
    assert!(ends.ended_in_time(end(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_concert_without_a_room_has_no_turn_to_end() {
    let mut room = MockWaitingRoom::new();
    room.expect_finish().once().returning(|_, _, _| Err(RoomError::NoRoom));
    assert!(TurnEnds::new(Arc::new(room), empty_catalogue(), WAIT).ended_in_time(end(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_concert_that_was_just_imported_elsewhere_ends() {
    let (mut room, is_open) = (MockWaitingRoom::new(), Arc::new(AtomicBool::new(false)));
    let opened = is_open.clone();
    room.expect_open().once().returning(move |opening| {
        assert_eq!(opening.concert, id(CONCERT));
        opened.store(true, Ordering::SeqCst);
        Ok(())
    });
    room.expect_finish().times(2).returning(move |_, _, _| if is_open.load(Ordering::SeqCst) { Ok(()) } else { Err(RoomError::NoRoom) });
    let catalogue = Catalogue::new(Arc::new(catalog(|| vec![concert_row(1)])));
    assert!(TurnEnds::new(Arc::new(room), catalogue, WAIT).ended_in_time(end(1)).await);
}

#[test]
fn only_a_payment_of_the_last_hold_ends_a_turn() {
    let reply = |decision, replayed| Reply { decision, replayed, ..reply_to(&crate::testing::charge(1, 1)) };
    let the_end = TurnEnd { payment: id(1), user: id(5), concert: id(CONCERT), paid_at: at(0) };
    for replayed in [false, true] {
        assert_eq!(TurnEnd::of_reply(&reply(Decision::Done(paid(5)), replayed)), Some(the_end));
    }
    let Outcome::Paid { payment, reservation, .. } = paid(5) else { unreachable!() };
    let other_lives = Outcome::Paid { payment: payment.clone(), reservation: reservation.clone(), last_hold: false };
    for decision in [
        Decision::Done(other_lives),
        Decision::Done(Outcome::Refunded { payment, reservation }),
        Decision::Refused(Rejection::InsufficientBalance),
        Decision::Retry,
    ] {
        assert_eq!(TurnEnd::of_reply(&reply(decision, false)), None);
    }
}
