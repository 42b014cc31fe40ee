//! Replicas that apply the same inputs have the same room, whether it was there from the beginning or began with a
//! state that was written and read.

use super::*;

fn assert_same(one: &Room, other: &Room, entries: u128, now: i64) {
    assert_eq!(one.state(), other.state());
    let now = at(now);
    for n in 1..=entries {
        assert_eq!(one.place(entry(n), now), other.place(entry(n), now), "entry {n}");
        assert_eq!(one.wants_to_see(entry(n)), other.wants_to_see(entry(n)));
    }
    (0..USERS).for_each(|n| assert_eq!(one.entry_of(user(n)), other.entry_of(user(n)), "user {n}"));
    (1..4).for_each(|n| assert_eq!(one.heard_at(instance(n)), other.heard_at(instance(n))));
    assert_eq!(one.counts(now), other.counts(now));
    assert_eq!(one.summary(now), other.summary(now));
    assert_eq!((one.mark(now), one.turns(), one.claims_beyond(0)), (other.mark(now), other.turns(), other.claims_beyond(0)));
    assert_eq!((one.draw(), one.awaits_reveal()), (other.draw(), other.awaits_reveal()));
    for stock in [PLENTY, NOTHING] {
        assert_eq!(one.is_due(now, stock), other.is_due(now, stock));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_replicas_come_to_the_same_room(
        terms in day_terms(),
        steps in prop::collection::vec((step(), prop::bool::weighted(0.1)), 1..150),
    ) {
        let mut one = Room::new(concert(), terms.clone());
        let mut other = Room::new(concert(), terms);
        let (mut now, mut next) = (0, 0);
        for (step, begins_anew) in steps {
            if let Step::Pass(ms) = step {
                now += ms;
            }
            if let Step::SetBack(ms) = step {
                now -= ms;
            }
            if begins_anew {
                other = by_log(&other);
            }
            if let Some(input) = input(&step, &one, now, &mut next) {
                let (mut changes, mut others) = (Vec::new(), Vec::new());
                // Now and then the log begins anew on a machine whose clock is behind.
                let told_at = at(if begins_anew { now - 3_000 } else { now });
                prop_assert_eq!(one.apply(told_at, &input, &mut changes), other.apply(told_at, &input, &mut others));
                prop_assert_eq!(changes, others);
            }
            assert_same(&one, &other, next, now);
        }
        // A day later everything that has ended is forgotten, by both.
        now += ENDED_KEPT_S * 1_000 + 1;
        for room in [&mut one, &mut other] {
            room.apply(at(now), &RoomInput::Tick(PLENTY), &mut Vec::new());
        }
        assert_same(&one, &other, next, now);
    }
}

/// Stays that begin and end within one record have nothing that orders them but the order in which they came.
#[test]
fn of_stays_that_ended_at_one_instant_the_last_is_the_users_latest() {
    for start in [0, 1_000] {
        let mut case = RoomCase::new(drawn(admission(1, None), start));
        for fresh in [5, 9, 2, 7] {
            case.join(1, fresh, 0);
            case.leave(fresh, 0);
        }
        assert_eq!(case.room.entry_of(user(1)), Some(entry(7)));
        assert_eq!(by_log(&case.room).entry_of(user(1)), Some(entry(7)));
    }
}

/// A state is whole without being written first.
#[test]
fn a_room_from_a_state_that_was_never_written_counts_no_entry_twice() {
    let case = RoomCase::with(terms(admission(1, None)), 5);
    let again = Room::from(case.room.state());
    assert_eq!((again.counts(at(0)).waiting, again.place(entry(5), at(0)).unwrap().ahead), (5, Some(4)));
}

#[test]
fn a_clock_that_is_a_little_behind_stands_still_in_every_replica() {
    let mut case = RoomCase::with(terms(admission(2, Some((1, 1)))), 3);
    assert_eq!(case.tick(10_000, PLENTY), [entry(1)]);
    assert_eq!(case.tick(9_100, PLENTY), [], "earlier by the clock, no time has passed");
    case.leave(3, 9_200);
    case.leave(2, 9_100);
    let mut again = by_log(&case.room);
    assert_eq!(case.place(1, 10_000).active_until, Some(at(10_000 + i64::from(TTL_S) * 1_000)));
    case.join(4, 4, 9_300);
    assert_eq!(case.tick(10_999, PLENTY), []);
    assert_eq!(case.tick(11_000, PLENTY), [entry(4)]);
    // An entry that left is forgotten a day after the time that the room had.
    again.apply(at(ENDED_KEPT_S * 1_000 + 10_000), &RoomInput::Tick(NOTHING), &mut Vec::new());
    assert!(again.place(entry(2), at(0)).is_some() && again.place(entry(3), at(0)).is_some());
}
