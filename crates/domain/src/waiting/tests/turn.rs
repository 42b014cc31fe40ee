//! A turn: its end, its lengthening, what is remembered of it, when to ask.

use super::*;

const OVER: i64 = TTL_S as i64 * 1_000;

#[test]
fn expiry_takes_effect_at_its_instant_before_any_tick() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(0, PLENTY);
    assert_eq!(case.status(1, OVER - 1), (QueueStatus::Active, Some(0)));
    assert_eq!(case.place(1, 0).active_until, Some(at(OVER)));
    assert_eq!(case.status(1, OVER), (QueueStatus::Expired, None));
    let counts = case.room.counts(at(OVER));
    assert_eq!((counts.active, counts.expired, counts.waiting), (0, 1, 1));
    case.finish(1, OVER, OVER);
    assert_eq!(case.status(1, OVER), (QueueStatus::Expired, None), "a turn that is over is not finished");
    assert_eq!(case.extend(1, OVER), Extended::NotActive);
    case.leave(1, OVER);
    assert_eq!(case.status(1, OVER), (QueueStatus::Expired, None), "nor left");
    assert_eq!(case.tick(OVER, PLENTY), [entry(2)]);
    assert_eq!((case.room.counts(at(OVER)).expired, case.room.counts(at(OVER)).left), (1, 0));
}

#[test]
fn a_tick_writes_the_turns_that_are_over_and_gives_their_slots_away() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(0, PLENTY);
    case.changes.clear();
    case.ticked(OVER - 1, PLENTY);
    assert!(case.changes.is_empty(), "{:?}", case.changes);
    assert_eq!(case.ticked(OVER, PLENTY), Ticked { promoted: 1, expired: 1, abandoned: Vec::new() });
    let written: Vec<_> = case.changes.iter().map(|change| (change.entry, change.was, change.status, change.active_until)).collect();
    assert_eq!(
        written,
        [
            (entry(1), Some(QueueStatus::Active), QueueStatus::Expired, None),
            (entry(2), Some(QueueStatus::Waiting), QueueStatus::Active, Some(at(2 * OVER))),
        ]
    );
}

#[test]
fn a_payment_ends_the_turn_it_was_made_in_and_no_later_one() {
    for (paid_at, expected) in [(999, QueueStatus::Active), (1_000, QueueStatus::Done), (1_001, QueueStatus::Done)] {
        let mut case = RoomCase::with(terms(admission(1, None)), 1);
        case.tick(1_000, PLENTY);
        case.finish(1, paid_at, 1_002);
        assert_eq!(case.status(1, 1_002).0, expected, "paid at {paid_at}");
    }
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.finish(2, 0, 0);
    assert_eq!(case.status(2, 0).0, QueueStatus::Waiting, "a waiting entry keeps its place");
}

#[test]
fn a_turn_is_lengthened_from_now_on_as_often_as_may_be_and_keeps_its_slot() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    assert_eq!(case.extend(1, 0), Extended::NotActive, "a waiting entry has no turn");
    case.tick(0, PLENTY);
    let until = |extended| match extended {
        Extended::To(place) => place.active_until.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(until(case.extend(1, 10_000)), at(10_000 + OVER));
    assert_eq!(case.tick(OVER, PLENTY), [], "the slot is still taken");
    assert_eq!(until(case.extend(1, OVER)), at(2 * OVER));
    assert_eq!(until(case.extend_from(1, at(10_000 + OVER), OVER + 1)), at(2 * OVER), "the same request again lengthens nothing");
    assert_eq!(case.extend(1, OVER + 1), Extended::LimitReached);
    assert_eq!(case.changes.last().map(|change| (change.was, change.active_until)), Some((Some(QueueStatus::Active), Some(at(2 * OVER)))));
    assert_eq!(case.tick(2 * OVER - 1, PLENTY), []);
    assert_eq!(case.tick(2 * OVER, PLENTY), [entry(2)]);
    assert_eq!(case.extend(9, 2 * OVER), Extended::NotActive);
    let shorter = RoomTerms { active_ttl_s: 1, ..case.room.terms().clone() };
    case.apply(2 * OVER, RoomInput::Open(shorter));
    assert_eq!(until(case.extend(2, 2 * OVER + 5)), at(3 * OVER), "a turn is never shortened");
}

#[test]
fn ended_entries_are_forgotten_after_a_day() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.leave(1, 0);
    case.tick(ENDED_KEPT_S * 1_000, NOTHING);
    assert_eq!(case.status(1, 0).0, QueueStatus::Left);
    case.tick(ENDED_KEPT_S * 1_000 + 1, NOTHING);
    assert_eq!(case.room.place(entry(1), at(0)), None);
    assert_eq!(case.room.entry_of(user(1)), None);
    assert_eq!(case.room.counts(at(0)).left, 1, "and still counted");
    assert_eq!(case.room.size(), 1);
}

#[test]
fn a_user_who_came_back_is_not_forgotten_with_the_earlier_entry() {
    let mut case = RoomCase::with(terms(admission(1, None)), 1);
    case.leave(1, 0);
    case.join(1, 2, 0);
    for mut room in [by_log(&case.room), case.room] {
        room.apply(at(ENDED_KEPT_S * 1_000 + 1), &RoomInput::Tick(NOTHING), &mut Vec::new());
        assert_eq!(room.place(entry(1), at(0)), None);
        assert_eq!(room.entry_of(user(1)), Some(entry(2)));
    }
}

#[test]
fn a_room_from_a_log_forgets_by_when_entries_ended_not_by_place() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.leave(2, 0);
    case.leave(1, 5_000);
    let mut room = by_log(&case.room);
    room.apply(at(ENDED_KEPT_S * 1_000 + 1), &RoomInput::Tick(PLENTY), &mut Vec::new());
    assert_eq!((room.entry_of(user(1)), room.entry_of(user(2))), (Some(entry(1)), None));
}

#[test]
fn a_room_from_a_log_keeps_places_over_gaps() {
    let mut case = RoomCase::with(terms(admission(2, None)), 5);
    case.leave(1, 0);
    case.leave(4, 0);
    // Both are kept no more.
    case.tick(ENDED_KEPT_S * 1_000 + 1, NOTHING);
    let mut case = RoomCase { room: by_log(&case.room), changes: Vec::new() };
    let now = ENDED_KEPT_S * 1_000 + 1;
    assert_eq!(case.status(5, now), (QueueStatus::SoldOut, Some(2)));
    assert_eq!(case.tick(now, PLENTY), [entry(2), entry(3)]);
    assert_eq!(case.status(5, now), (QueueStatus::Waiting, Some(0)));
    case.leave(5, now);
    assert_eq!(case.room.counts(at(now)).waiting, 0);
    assert_eq!(case.join(9, 9, now).place.arrival, 6);
}

#[test]
fn an_ended_entry_reads_without_a_forecast() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(0, PLENTY);
    case.leave(2, 1);
    let (active, left) = (case.place(1, 1), case.place(2, 1));
    assert_eq!((active.eta, active.chance, active.ahead), (None, None, Some(0)));
    assert_eq!((left.eta, left.chance, left.ahead, left.active_until), (None, None, None, None));
}

#[test]
fn polling_is_soon_for_who_is_next_and_seldom_far_behind() {
    let mut case = RoomCase::with(RoomTerms { sale_starts_at: Some(at(60_000)), ..terms(admission(1, None)) }, 1);
    let base = case.place(1, 0);
    for (status, ahead, now, expected) in [
        (QueueStatus::Waiting, Some(0), 0, Some(1_000)),
        (QueueStatus::Waiting, Some(500), 0, Some(1_500)),
        (QueueStatus::Waiting, Some(u64::MAX - 1_000), 0, Some(10_000)),
        (QueueStatus::SoldOut, Some(0), 0, Some(10_000)),
        (QueueStatus::PreSale, None, 0, Some(10_000)),
        (QueueStatus::PreSale, None, 56_000, Some(2_000)),
        (QueueStatus::PreSale, None, 59_999, Some(1_000)),
        (QueueStatus::PreSale, None, 70_000, Some(1_000)),
        (QueueStatus::Active, Some(0), 0, Some(10_000)),
        (QueueStatus::Done, None, 0, None),
        (QueueStatus::Expired, None, 0, None),
        (QueueStatus::Left, None, 0, None),
    ] {
        let place = Place { status, ahead, ..base.clone() };
        assert_eq!(poll_after_ms(&place, at(now)), expected, "{status:?} {ahead:?} at {now}");
    }
    case.leave(1, 0);
}
