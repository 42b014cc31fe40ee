//! Who counts as gone, since when, and what becomes of them.

use super::*;

const GRACE_MS: i64 = GRACE_S as i64 * 1_000;
const WAITING_GRACE_MS: i64 = WAITING_GRACE_S as i64 * 1_000;
const LOST_MS: i64 = INSTANCE_LOST_S * 1_000;

/// Entry 1 has its turn from 0 on, entry 2 waits; both are connected to the first instance.
fn connected() -> RoomCase {
    let mut case = RoomCase::with(RoomTerms { active_ttl_s: 3_600, ..terms(admission(1, None)) }, 2);
    case.appear(1, 0);
    case.connect(1, &[1, 2], 0);
    case.tick(0, PLENTY);
    case
}

/// Ticks every second from `from` to `to`, with these instances living; who was named as abandoned, and when.
fn run(case: &mut RoomCase, from: i64, to: i64, living: &[u128]) -> Vec<(i64, UserId)> {
    let mut named = Vec::new();
    for ms in (from..=to).step_by(1_000) {
        for of in living {
            case.apply(ms, RoomInput::Report { instance: instance(*of), health: None });
        }
        named.extend(case.ticked(ms, PLENTY).abandoned.into_iter().map(|user| (ms, user)));
    }
    named
}

#[test]
fn a_user_who_is_gone_in_their_turn_loses_it_after_the_grace_and_is_named_once() {
    let mut case = connected();
    case.disconnect(1, &[1], 1_000);
    assert_eq!(run(&mut case, 1_000, 1_000 + GRACE_MS - 1_000, &[1]), []);
    assert_eq!(case.status(1, GRACE_MS).0, QueueStatus::Active);
    let ticked = case.ticked(1_000 + GRACE_MS, PLENTY);
    assert_eq!(ticked, Ticked { promoted: 1, expired: 1, abandoned: vec![user(1)] }, "the slot comes back in the same step");
    assert_eq!((case.status(1, 50_000).0, case.status(2, 50_000).0), (QueueStatus::Expired, QueueStatus::Active));
    assert_eq!(run(&mut case, 22_000, 60_000, &[1]), [], "once");
    assert_eq!(case.room.counts(at(60_000)).expired, 1);
}

#[test]
fn an_entry_that_comes_back_in_time_keeps_its_turn() {
    let mut case = connected();
    case.disconnect(1, &[1], 0);
    case.appear(2, 0);
    case.connect(2, &[1], GRACE_MS - 1);
    assert_eq!(run(&mut case, GRACE_MS, 3 * GRACE_MS, &[1, 2]), []);
    case.disconnect(2, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut case, 3 * GRACE_MS, 4 * GRACE_MS, &[1, 2]), [(4 * GRACE_MS, user(1))], "and the whole grace once more");
}

#[test]
fn an_entry_that_never_had_a_connection_is_not_missed() {
    let mut case = RoomCase::with(RoomTerms { active_ttl_s: 36_000, ..terms(admission(1, None)) }, 2);
    case.appear(1, 0);
    case.tick(0, PLENTY);
    case.disconnect(1, &[1, 2], 1);
    case.apply(2, RoomInput::Seen { entries: vec![entry(1), entry(2)] });
    assert!(case.ticked(2 * WAITING_GRACE_MS, PLENTY).abandoned.is_empty());
    assert_eq!(
        (case.status(1, 2 * WAITING_GRACE_MS).0, case.status(2, 2 * WAITING_GRACE_MS).0),
        (QueueStatus::Active, QueueStatus::Waiting)
    );
}

#[test]
fn what_was_paid_is_done_however_long_one_is_gone() {
    let mut case = connected();
    case.disconnect(1, &[1], 0);
    case.finish(1, 5, 5);
    assert_eq!(run(&mut case, 1_000, 3 * GRACE_MS, &[1]), []);
    assert_eq!(case.status(1, 3 * GRACE_MS).0, QueueStatus::Done);
    let counts = case.room.counts(at(3 * GRACE_MS));
    assert_eq!((counts.served, counts.expired), (1, 0));
    // Nor does a connection that is reported late wake it.
    case.connect(1, &[1], 3 * GRACE_MS);
    case.disconnect(1, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut case, 3 * GRACE_MS, 5 * GRACE_MS, &[1]), []);
    assert!(!case.room.wants_to_see(entry(1)));
}

#[test]
fn ten_minutes_with_a_closed_laptop_keep_a_place_and_half_an_hour_does_not() {
    let mut case = connected();
    case.join(3, 3, 0);
    case.disconnect(1, &[2], 0);
    assert_eq!(run(&mut case, 0, 600_000, &[1]), []);
    assert_eq!(case.status(2, 600_000), (QueueStatus::Waiting, Some(0)));
    assert_eq!(run(&mut case, 601_000, WAITING_GRACE_MS - 1_000, &[1]), []);
    assert_eq!(case.status(2, WAITING_GRACE_MS).0, QueueStatus::Waiting);
    let ticked = case.ticked(WAITING_GRACE_MS, PLENTY);
    assert_eq!((ticked.abandoned, case.status(2, WAITING_GRACE_MS).0), (Vec::new(), QueueStatus::Expired), "no hold, nothing to name");
    assert_eq!(case.status(3, WAITING_GRACE_MS), (QueueStatus::Waiting, Some(0)));
}

#[test]
fn an_entry_that_is_away_when_its_turn_begins_has_the_whole_grace_from_there() {
    let mut case = connected();
    case.disconnect(1, &[2], 0);
    run(&mut case, 0, 600_000, &[1]);
    case.leave(1, 600_500);
    assert_eq!(case.tick(600_500, PLENTY), [entry(2)]);
    let gone_at = 600_500 + GRACE_MS;
    assert_eq!(run(&mut case, 601_000, gone_at - 1, &[1]), []);
    assert_eq!(case.ticked(gone_at, PLENTY).abandoned, [user(2)]);
}

#[test]
fn polls_count_for_an_entry_that_had_a_connection() {
    let mut case = connected();
    case.disconnect(1, &[1], 0);
    assert!(case.room.wants_to_see(entry(1)));
    case.apply(GRACE_MS - 1, RoomInput::Seen { entries: vec![entry(1)] });
    assert_eq!(run(&mut case, GRACE_MS, 2 * GRACE_MS - 2, &[1]), []);
    assert_eq!(case.ticked(2 * GRACE_MS - 1, PLENTY).abandoned, [user(1)]);
    // So does asking for a longer turn.
    let mut case = connected();
    case.disconnect(1, &[1], 0);
    case.extend(1, 10_000);
    assert_eq!(run(&mut case, 11_000, 9_999 + GRACE_MS, &[1]), []);
    assert_eq!(case.ticked(10_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn gone_is_who_is_gone_from_every_instance() {
    let mut case = connected();
    case.appear(2, 0);
    case.connect(2, &[1], 0);
    case.connect(2, &[1], 1);
    case.disconnect(1, &[1], 1_000);
    case.disconnect(1, &[1], 1_000);
    assert_eq!(run(&mut case, 1_000, 3 * GRACE_MS, &[1, 2]), []);
    case.disconnect(2, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut case, 3 * GRACE_MS, 5 * GRACE_MS, &[1, 2]), [(4 * GRACE_MS, user(1))]);
}

#[test]
fn a_silent_instance_takes_its_connections_along_since_it_was_heard_of() {
    let mut case = connected();
    case.apply(5_000, RoomInput::Report { instance: instance(1), health: None });
    assert_eq!(run(&mut case, 6_000, 5_000 + LOST_MS, &[]), []);
    assert_eq!(case.room.heard_at(instance(1)), Some(at(5_000)), "fifteen seconds are not too long yet");
    assert_eq!(run(&mut case, 5_001 + LOST_MS, 5_001 + LOST_MS, &[]), []);
    assert_eq!(case.room.heard_at(instance(1)), None);
    assert_eq!(run(&mut case, 6_000 + LOST_MS, 4_000 + GRACE_MS, &[]), []);
    assert_eq!(case.ticked(5_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn of_several_instances_the_last_to_be_heard_of_counts() {
    // The first reports the end of its connection before the second counts as dead.
    let mut case = connected();
    case.appear(2, 0);
    case.connect(2, &[1], 0);
    assert_eq!(run(&mut case, 1_000, 14_000, &[1]), []);
    case.disconnect(1, &[1], 14_500);
    assert_eq!(run(&mut case, 15_000, 14_000 + GRACE_MS, &[1]), []);
    assert_eq!(case.ticked(14_500 + GRACE_MS, PLENTY).abandoned, [user(1)]);
    // Both die; whichever is looked at first.
    for (early, late) in [(1, 2), (2, 1)] {
        let mut case = connected();
        case.appear(2, 0);
        case.connect(2, &[1], 0);
        case.apply(2_000, RoomInput::Report { instance: instance(early), health: None });
        case.apply(6_000, RoomInput::Report { instance: instance(late), health: None });
        assert_eq!(run(&mut case, 7_000, 5_000 + GRACE_MS, &[]), []);
        assert!(case.ticked(5_999 + GRACE_MS, PLENTY).abandoned.is_empty());
        assert_eq!(case.ticked(6_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
    }
}

#[test]
fn a_turn_that_began_on_an_instance_that_had_died_has_the_whole_grace() {
    let mut case = connected();
    case.apply(10_000, RoomInput::Leave { entry: entry(1) });
    assert_eq!(case.tick(10_000, PLENTY), [entry(2)], "the instance reported at 0");
    assert_eq!(run(&mut case, 11_000, 9_000 + GRACE_MS, &[]), []);
    assert_eq!(case.ticked(10_000 + GRACE_MS, PLENTY).abandoned, [user(2)]);
}

#[test]
fn an_instance_that_was_given_up_is_not_heard_until_it_appears_anew() {
    let mut case = connected();
    assert_eq!(run(&mut case, 1_000, LOST_MS, &[]), []);
    case.ticked(LOST_MS + 1, PLENTY);
    // Its reports before it knows would be taken for all its connections.
    case.apply(LOST_MS + 2, RoomInput::Report { instance: instance(1), health: None });
    case.connect(1, &[2], LOST_MS + 2);
    assert_eq!(case.room.heard_at(instance(1)), None);
    assert!(case.room.wants_to_see(entry(2)), "still gone");
    case.appear(1, LOST_MS + 3);
    case.connect(1, &[1, 2], LOST_MS + 3);
    assert_eq!(case.room.heard_at(instance(1)), Some(at(LOST_MS + 3)));
    assert_eq!(run(&mut case, LOST_MS + 4, 3 * GRACE_MS, &[1]), []);
    assert_eq!((case.status(1, 3 * GRACE_MS).0, case.status(2, 3 * GRACE_MS).0), (QueueStatus::Active, QueueStatus::Waiting));
}

/// The store's clock goes forward by a minute, or its log was away for one: no instance could report.
#[test]
fn a_silence_of_all_makes_no_instance_lost() {
    let mut case = connected();
    assert_eq!(run(&mut case, 1_000, 4_000, &[1]), []);
    let step = LOST_MS + GRACE_MS + 5_000;
    assert!(case.ticked(4_000 + step, PLENTY).abandoned.is_empty());
    assert_eq!(case.room.heard_at(instance(1)), Some(at(4_000 + step)));
    // An instance that died meanwhile is missed all the same.
    assert_eq!(run(&mut case, 5_000 + step, 3_000 + step + GRACE_MS, &[]), []);
    assert_eq!(case.room.heard_at(instance(1)), None);
    assert_eq!(case.ticked(4_000 + step + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

/// The store's clock goes back by a minute: no entry is gone for longer because of it, and none for ever.
#[test]
fn a_clock_that_is_set_back_ends_no_entry_early() {
    let mut case = connected();
    case.disconnect(1, &[1], 60_000);
    assert!(case.ticked(0, PLENTY).abandoned.is_empty());
    assert_eq!(run(&mut case, 1_000, GRACE_MS - 1_000, &[1]), []);
    assert_eq!(case.ticked(GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn a_turn_is_seen_by_whatever_its_owner_does() {
    let unseen = |do_it: &dyn Fn(&mut RoomCase)| {
        let mut case = RoomCase::with(terms(admission(1, None)), 1);
        case.appear(1, 0);
        case.tick(0, PLENTY);
        assert!(case.room.wants_to_see(entry(1)), "its buyer has not come yet");
        do_it(&mut case);
        case.ticked(i64::from(3 * TTL_S) * 1_000, PLENTY);
        case.room.counts(at(0)).no_shows
    };
    assert_eq!(unseen(&|_| {}), 1.0);
    assert_eq!(
        unseen(&|case| {
            case.apply(1, RoomInput::Seen { entries: vec![entry(1)] });
        }),
        0.0
    );
    assert_eq!(unseen(&|case| case.connect(1, &[1], 1)), 0.0);
    assert_eq!(
        unseen(&|case| {
            case.extend(1, 1);
        }),
        0.0
    );
    assert_eq!(unseen(&|case| case.finish(1, 1, 1)), 0.0);
    let late = |case: &mut RoomCase| {
        case.apply(i64::from(TTL_S) * 1_000, RoomInput::Seen { entries: vec![entry(1)] });
    };
    assert_eq!(unseen(&late), 1.0, "too late");
}
