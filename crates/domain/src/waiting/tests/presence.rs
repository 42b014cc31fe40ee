//! Who counts as gone, since when, and what becomes of them.

use super::*;

const GRACE_MS: i64 = GRACE_S as i64 * 1_000;
const WAITING_GRACE_MS: i64 = WAITING_GRACE_S as i64 * 1_000;
const LOST_MS: i64 = INSTANCE_LOST_S * 1_000;

/// Entry 1 has its turn from 0 on, entry 2 waits; both are connected to the first instance.
fn connected() -> Told {
    let mut told = Told::with(RoomTerms { active_ttl_s: 3_600, ..terms(admission(1, None)) }, 2);
    told.appear(1, 0);
    told.connect(1, &[1, 2], 0);
    told.tick(0, PLENTY);
    told
}

/// Ticks every second from `from` to `to`, with these instances living; who was named as abandoned, and when.
fn run(told: &mut Told, from: i64, to: i64, living: &[u128]) -> Vec<(i64, UserId)> {
    let mut named = Vec::new();
    for ms in (from..=to).step_by(1_000) {
        for of in living {
            told.tell(ms, RoomInput::Report { instance: instance(*of), health: None });
        }
        named.extend(told.ticked(ms, PLENTY).abandoned.into_iter().map(|user| (ms, user)));
    }
    named
}

#[test]
fn whoever_is_gone_in_their_turn_loses_it_after_the_grace_and_is_named_once() {
    let mut told = connected();
    told.disconnect(1, &[1], 1_000);
    assert_eq!(run(&mut told, 1_000, 1_000 + GRACE_MS - 1_000, &[1]), []);
    assert_eq!(told.status(1, GRACE_MS).0, QueueStatus::Active);
    let ticked = told.ticked(1_000 + GRACE_MS, PLENTY);
    assert_eq!(ticked, Ticked { promoted: 1, expired: 1, abandoned: vec![user(1)] }, "the slot comes back in the same step");
    assert_eq!((told.status(1, 50_000).0, told.status(2, 50_000).0), (QueueStatus::Expired, QueueStatus::Active));
    assert_eq!(run(&mut told, 22_000, 60_000, &[1]), [], "once");
    assert_eq!(told.room.counts(at(60_000)).expired, 1);
}

#[test]
fn whoever_comes_back_in_time_keeps_the_turn() {
    let mut told = connected();
    told.disconnect(1, &[1], 0);
    told.appear(2, 0);
    told.connect(2, &[1], GRACE_MS - 1);
    assert_eq!(run(&mut told, GRACE_MS, 3 * GRACE_MS, &[1, 2]), []);
    told.disconnect(2, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut told, 3 * GRACE_MS, 4 * GRACE_MS, &[1, 2]), [(4 * GRACE_MS, user(1))], "and the whole grace once more");
}

#[test]
fn nobody_is_missed_who_never_had_a_connection() {
    let mut told = Told::with(RoomTerms { active_ttl_s: 36_000, ..terms(admission(1, None)) }, 2);
    told.appear(1, 0);
    told.tick(0, PLENTY);
    told.disconnect(1, &[1, 2], 1);
    told.tell(2, RoomInput::Seen { entries: vec![entry(1), entry(2)] });
    assert!(told.ticked(2 * WAITING_GRACE_MS, PLENTY).abandoned.is_empty());
    assert_eq!(
        (told.status(1, 2 * WAITING_GRACE_MS).0, told.status(2, 2 * WAITING_GRACE_MS).0),
        (QueueStatus::Active, QueueStatus::Waiting)
    );
}

#[test]
fn what_was_paid_is_done_however_long_one_is_gone() {
    let mut told = connected();
    told.disconnect(1, &[1], 0);
    told.finish(1, 5, 5);
    assert_eq!(run(&mut told, 1_000, 3 * GRACE_MS, &[1]), []);
    assert_eq!(told.status(1, 3 * GRACE_MS).0, QueueStatus::Done);
    let counts = told.room.counts(at(3 * GRACE_MS));
    assert_eq!((counts.served, counts.expired), (1, 0));
    // Nor does a connection that is told of late wake it.
    told.connect(1, &[1], 3 * GRACE_MS);
    told.disconnect(1, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut told, 3 * GRACE_MS, 5 * GRACE_MS, &[1]), []);
    assert!(!told.room.wants_to_see(entry(1)));
}

#[test]
fn ten_minutes_with_a_closed_laptop_keep_a_place_and_half_an_hour_does_not() {
    let mut told = connected();
    told.join(3, 3, 0);
    told.disconnect(1, &[2], 0);
    assert_eq!(run(&mut told, 0, 600_000, &[1]), []);
    assert_eq!(told.status(2, 600_000), (QueueStatus::Waiting, Some(0)));
    assert_eq!(run(&mut told, 601_000, WAITING_GRACE_MS - 1_000, &[1]), []);
    assert_eq!(told.status(2, WAITING_GRACE_MS).0, QueueStatus::Waiting);
    let ticked = told.ticked(WAITING_GRACE_MS, PLENTY);
    assert_eq!((ticked.abandoned, told.status(2, WAITING_GRACE_MS).0), (Vec::new(), QueueStatus::Expired), "no hold, nothing to name");
    assert_eq!(told.status(3, WAITING_GRACE_MS), (QueueStatus::Waiting, Some(0)));
}

#[test]
fn whoever_is_away_when_the_turn_begins_has_the_whole_grace_from_there() {
    let mut told = connected();
    told.disconnect(1, &[2], 0);
    run(&mut told, 0, 600_000, &[1]);
    told.leave(1, 600_500);
    assert_eq!(told.tick(600_500, PLENTY), [entry(2)]);
    let gone_at = 600_500 + GRACE_MS;
    assert_eq!(run(&mut told, 601_000, gone_at - 1, &[1]), []);
    assert_eq!(told.ticked(gone_at, PLENTY).abandoned, [user(2)]);
}

#[test]
fn polls_count_for_whoever_had_a_connection() {
    let mut told = connected();
    told.disconnect(1, &[1], 0);
    assert!(told.room.wants_to_see(entry(1)));
    told.tell(GRACE_MS - 1, RoomInput::Seen { entries: vec![entry(1)] });
    assert_eq!(run(&mut told, GRACE_MS, 2 * GRACE_MS - 2, &[1]), []);
    assert_eq!(told.ticked(2 * GRACE_MS - 1, PLENTY).abandoned, [user(1)]);
    // So does asking for a longer turn.
    let mut told = connected();
    told.disconnect(1, &[1], 0);
    told.extend(1, 10_000);
    assert_eq!(run(&mut told, 11_000, 9_999 + GRACE_MS, &[1]), []);
    assert_eq!(told.ticked(10_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn gone_is_who_is_gone_from_every_instance() {
    let mut told = connected();
    told.appear(2, 0);
    told.connect(2, &[1], 0);
    told.connect(2, &[1], 1);
    told.disconnect(1, &[1], 1_000);
    told.disconnect(1, &[1], 1_000);
    assert_eq!(run(&mut told, 1_000, 3 * GRACE_MS, &[1, 2]), []);
    told.disconnect(2, &[1], 3 * GRACE_MS);
    assert_eq!(run(&mut told, 3 * GRACE_MS, 5 * GRACE_MS, &[1, 2]), [(4 * GRACE_MS, user(1))]);
}

#[test]
fn a_silent_instance_takes_its_connections_along_since_it_was_heard_of() {
    let mut told = connected();
    told.tell(5_000, RoomInput::Report { instance: instance(1), health: None });
    assert_eq!(run(&mut told, 6_000, 5_000 + LOST_MS, &[]), []);
    assert_eq!(told.room.heard_at(instance(1)), Some(at(5_000)), "fifteen seconds are not too long yet");
    assert_eq!(run(&mut told, 5_001 + LOST_MS, 5_001 + LOST_MS, &[]), []);
    assert_eq!(told.room.heard_at(instance(1)), None);
    assert_eq!(run(&mut told, 6_000 + LOST_MS, 4_000 + GRACE_MS, &[]), []);
    assert_eq!(told.ticked(5_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn of_several_instances_the_last_to_be_heard_of_counts() {
    // The first says that they are gone from it while nobody knows yet that the second has died.
    let mut told = connected();
    told.appear(2, 0);
    told.connect(2, &[1], 0);
    assert_eq!(run(&mut told, 1_000, 14_000, &[1]), []);
    told.disconnect(1, &[1], 14_500);
    assert_eq!(run(&mut told, 15_000, 14_000 + GRACE_MS, &[1]), []);
    assert_eq!(told.ticked(14_500 + GRACE_MS, PLENTY).abandoned, [user(1)]);
    // Both die; whichever is looked at first.
    for (early, late) in [(1, 2), (2, 1)] {
        let mut told = connected();
        told.appear(2, 0);
        told.connect(2, &[1], 0);
        told.tell(2_000, RoomInput::Report { instance: instance(early), health: None });
        told.tell(6_000, RoomInput::Report { instance: instance(late), health: None });
        assert_eq!(run(&mut told, 7_000, 5_000 + GRACE_MS, &[]), []);
        assert!(told.ticked(5_999 + GRACE_MS, PLENTY).abandoned.is_empty());
        assert_eq!(told.ticked(6_000 + GRACE_MS, PLENTY).abandoned, [user(1)]);
    }
}

#[test]
fn a_turn_that_began_on_an_instance_that_had_died_has_the_whole_grace() {
    let mut told = connected();
    told.tell(10_000, RoomInput::Leave { entry: entry(1) });
    assert_eq!(told.tick(10_000, PLENTY), [entry(2)], "the instance was heard of at 0");
    assert_eq!(run(&mut told, 11_000, 9_000 + GRACE_MS, &[]), []);
    assert_eq!(told.ticked(10_000 + GRACE_MS, PLENTY).abandoned, [user(2)]);
}

#[test]
fn an_instance_that_was_given_up_is_not_heard_until_it_appears_anew() {
    let mut told = connected();
    assert_eq!(run(&mut told, 1_000, LOST_MS, &[]), []);
    told.ticked(LOST_MS + 1, PLENTY);
    // What it says before it knows would stand for all its connections.
    told.tell(LOST_MS + 2, RoomInput::Report { instance: instance(1), health: None });
    told.connect(1, &[2], LOST_MS + 2);
    assert_eq!(told.room.heard_at(instance(1)), None);
    assert!(told.room.wants_to_see(entry(2)), "still gone");
    told.appear(1, LOST_MS + 3);
    told.connect(1, &[1, 2], LOST_MS + 3);
    assert_eq!(told.room.heard_at(instance(1)), Some(at(LOST_MS + 3)));
    assert_eq!(run(&mut told, LOST_MS + 4, 3 * GRACE_MS, &[1]), []);
    assert_eq!((told.status(1, 3 * GRACE_MS).0, told.status(2, 3 * GRACE_MS).0), (QueueStatus::Active, QueueStatus::Waiting));
}

/// The store's clock goes forward by a minute, or its log was away for one: nobody could be heard of.
#[test]
fn a_silence_of_all_makes_nobody_lost() {
    let mut told = connected();
    assert_eq!(run(&mut told, 1_000, 4_000, &[1]), []);
    let step = LOST_MS + GRACE_MS + 5_000;
    assert!(told.ticked(4_000 + step, PLENTY).abandoned.is_empty());
    assert_eq!(told.room.heard_at(instance(1)), Some(at(4_000 + step)));
    // Whoever died meanwhile is missed all the same.
    assert_eq!(run(&mut told, 5_000 + step, 3_000 + step + GRACE_MS, &[]), []);
    assert_eq!(told.room.heard_at(instance(1)), None);
    assert_eq!(told.ticked(4_000 + step + GRACE_MS, PLENTY).abandoned, [user(1)]);
}

/// The store's clock goes back by a minute: nobody is gone for longer because of it, and nobody for ever.
#[test]
fn a_clock_that_is_set_back_ends_nobody_early() {
    let mut told = connected();
    told.disconnect(1, &[1], 60_000);
    assert!(told.ticked(0, PLENTY).abandoned.is_empty());
    assert_eq!(run(&mut told, 1_000, GRACE_MS - 1_000, &[1]), []);
    assert_eq!(told.ticked(GRACE_MS, PLENTY).abandoned, [user(1)]);
}

#[test]
fn a_turn_is_seen_by_whatever_its_owner_does() {
    let unseen = |do_it: &dyn Fn(&mut Told)| {
        let mut told = Told::with(terms(admission(1, None)), 1);
        told.appear(1, 0);
        told.tick(0, PLENTY);
        assert!(told.room.wants_to_see(entry(1)), "nobody came for it yet");
        do_it(&mut told);
        told.ticked(i64::from(3 * TTL_S) * 1_000, PLENTY);
        told.room.counts(at(0)).no_shows
    };
    assert_eq!(unseen(&|_| {}), 1.0);
    assert_eq!(
        unseen(&|told| {
            told.tell(1, RoomInput::Seen { entries: vec![entry(1)] });
        }),
        0.0
    );
    assert_eq!(unseen(&|told| told.connect(1, &[1], 1)), 0.0);
    assert_eq!(
        unseen(&|told| {
            told.extend(1, 1);
        }),
        0.0
    );
    assert_eq!(unseen(&|told| told.finish(1, 1, 1)), 0.0);
    let late = |told: &mut Told| {
        told.tell(i64::from(TTL_S) * 1_000, RoomInput::Seen { entries: vec![entry(1)] });
    };
    assert_eq!(unseen(&late), 1.0, "too late");
}
