//! A clock that is set back: as much is left of everything as was, and no entry is admitted faster.

use super::*;

const HOUR: i64 = 3_600_000;
/// Long before it, all clocks agree.
const NOON: i64 = 12 * HOUR;

/// Three hours, ten seconds: what is found is that it was set back, not by how much.
const BACK: [i64; 3] = [10_000, HOUR, 3 * HOUR];

#[test]
fn a_rate_goes_on_after_the_rest_of_its_window() {
    for back in BACK {
        let mut case = RoomCase::with(terms(admission(9, Some((1, 1)))), 5);
        assert_eq!(case.tick(NOON - 1_000, PLENTY), [entry(1)]);
        assert_eq!(case.tick(NOON, PLENTY), [entry(2)]);
        let set = NOON - back + 300;
        assert!(case.room.is_due(at(set), PLENTY), "a room that nothing else is due for goes back, too");
        // The time in which the clock was set is unknown and counts as none.
        for (ms, promoted) in [(0, 0), (999, 0), (1_000, 1), (1_999, 0), (2_000, 1)] {
            assert_eq!(case.tick(set + ms, PLENTY).len(), promoted, "{ms} ms after it was set {back} ms back");
        }
    }
}

#[test]
fn a_room_that_comes_from_its_log_goes_back_in_the_same_way() {
    let mut case = RoomCase::with(terms(admission(9, Some((1, 1)))), 5);
    case.tick(NOON, PLENTY);
    let mut again = by_log(&case.room);
    let mut changes = Vec::new();
    for ms in [NOON - HOUR, NOON - HOUR + 1_000] {
        case.tick(ms, PLENTY);
        again.apply(at(ms), &RoomInput::Tick(PLENTY), &mut changes);
    }
    assert_eq!((again.state(), again.admitted(Lane(0))), (case.room.state(), 2));
}

#[test]
fn a_turn_is_as_long_as_it_was_and_its_end_is_told() {
    for back in BACK {
        let mut case = RoomCase::with(terms(admission(1, None)), 2);
        case.tick(NOON, PLENTY);
        case.changes.clear();
        let (set, left) = (NOON + 20_000 - back, i64::from(TTL_S) * 1_000 - 20_000);
        // Last seen when twenty seconds had passed.
        case.leave(99, NOON + 20_000);
        case.tick(set, PLENTY);
        let ends: Vec<_> = case.changes.iter().map(|change| (change.entry, change.was, change.active_until)).collect();
        assert_eq!(ends, [(entry(1), Some(QueueStatus::Active), Some(at(set + left)))]);
        assert_eq!(case.place(1, set).active_until, Some(at(set + left)));
        assert_eq!(case.tick(set + left - 1, PLENTY), []);
        assert_eq!(case.tick(set + left, PLENTY), [entry(2)], "{back} ms back");
        assert_eq!(case.status(1, set + left).0, QueueStatus::Expired);
    }
}

#[test]
fn a_payment_after_the_clock_was_set_back_ends_the_turn() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(NOON, PLENTY);
    case.finish(1, NOON - HOUR + 5_000, NOON - HOUR + 5_000);
    assert_eq!(case.status(1, NOON - HOUR + 5_000).0, QueueStatus::Done);
}

#[test]
fn what_is_over_stays_over() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(NOON, PLENTY);
    case.ticked(NOON + i64::from(TTL_S) * 1_000, PLENTY);
    case.ticked(NOON - HOUR, PLENTY);
    assert_eq!(case.status(1, NOON - HOUR).0, QueueStatus::Expired);
    assert_eq!(case.join(1, 9, NOON - HOUR).place.arrival, 3);
}

#[test]
fn who_is_gone_is_given_up_as_soon_as_ever() {
    for back in BACK {
        let mut case = RoomCase::with(terms(admission(1, None)), 2);
        case.appear(1, NOON);
        case.connect(1, &[1, 2], NOON);
        case.tick(NOON, PLENTY);
        case.disconnect(1, &[1], NOON);
        let grace = i64::from(GRACE_S) * 1_000;
        for passed in [5_000, 10_000, 15_000, grace - 1, grace] {
            let input = RoomInput::Report { instance: instance(1), health: None };
            case.apply(NOON - back + passed, input);
            // There was no input for five seconds: the next one finds that the clock was set back.
            let gone = case.ticked(NOON - back + passed, PLENTY).abandoned;
            assert!(gone.is_empty(), "{passed}");
        }
        assert_eq!(case.ticked(NOON - back + 5_000 + grace, PLENTY).abandoned, [user(1)], "{back} ms back");
    }
}

#[test]
fn an_instance_that_fell_silent_is_lost_as_soon_as_ever() {
    for back in BACK {
        let mut case = RoomCase::with(terms(admission(1, None)), 1);
        case.appear(1, NOON);
        case.appear(2, NOON);
        let lost = INSTANCE_LOST_S * 1_000 + 1;
        for passed in (0..lost).step_by(5_000).chain([lost]) {
            case.apply(NOON - back + passed, RoomInput::Report { instance: instance(2), health: None });
        }
        case.ticked(NOON - back + lost, PLENTY);
        assert_eq!(case.room.heard_at(instance(1)), None, "{back} ms back");
        assert!(case.room.heard_at(instance(2)).is_some());
    }
}

#[test]
fn reports_and_the_rate_that_adapts_go_on() {
    let mut case = RoomCase::with(terms(Admission { adaptive: true, ..admission(100, None) }), 50);
    let bad = Health { p99_ms: 900, errors_permille: 0, samples: 10 };
    case.apply(NOON, RoomInput::Report { instance: instance(1), health: Some(bad) });
    case.ticked(NOON, PLENTY);
    let before = case.room.counts(at(NOON)).active;
    case.ticked(NOON - HOUR, PLENTY);
    case.ticked(NOON - HOUR + 2_000, PLENTY);
    let after = case.room.counts(at(NOON - HOUR + 2_000)).active;
    assert!(after > before, "{before} to {after}: the budget fills again");
    assert_eq!(case.room.summary(at(NOON - HOUR + 2_000)).adaptive.p99_ms, Some(900));
    let later = NOON - HOUR + adaptive::REPORT_KEPT_S * 1_000 + 1;
    case.ticked(later, PLENTY);
    assert_eq!(case.room.summary(at(later)).adaptive.p99_ms, None, "and a report is forgotten");
}

#[test]
fn a_sale_starts_by_the_clock_as_it_is() {
    let mut case = RoomCase::with(RoomTerms { sale_starts_at: Some(at(NOON)), ..terms(admission(1, None)) }, 3);
    assert_eq!(case.tick(NOON, PLENTY), [entry(1)]);
    case.leave(1, NOON);
    case.ticked(NOON - HOUR, PLENTY);
    assert_eq!(case.status(2, NOON - HOUR).0, QueueStatus::PreSale);
    assert_eq!(case.tick(NOON - 1, PLENTY), []);
    assert_eq!(case.tick(NOON, PLENTY), [entry(2)]);
}

#[test]
fn a_room_that_was_lost_meanwhile_begins_its_window_anew() {
    let mut case = RoomCase::with(terms(admission(9, Some((2, 1)))), 5);
    case.tick(NOON, PLENTY);
    let now = at(NOON - HOUR);
    let (mark, turns) = (case.room.mark(at(NOON)), case.room.turns());
    let room = Room::rebuilt(concert(), terms(admission(9, Some((2, 1)))), None, mark, turns, None, now);
    let mut again = RoomCase { room, changes: Vec::new() };
    let ends: Vec<_> = again.room.turns().iter().map(|turn| turn.active_until).collect();
    assert_eq!(ends, [now + TimeDelta::seconds(i64::from(TTL_S)); 2], "no turn is longer than a turn");
    again.join(8, 8, NOON - HOUR);
    assert_eq!(again.tick(NOON - HOUR + 999, PLENTY), []);
    assert_eq!(again.tick(NOON - HOUR + 1_000, PLENTY), [entry(8)]);
    let mut own = case.room.clone();
    own.begin_again(now);
    assert!(!own.is_ahead_of(now));
}

/// Two servers that stand in for each other differ by less than a second.
#[test]
fn a_clock_that_is_a_little_behind_stands_still() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.tick(NOON, PLENTY);
    let ends = case.place(1, NOON).active_until;
    assert!(!case.room.is_due(at(NOON - SET_BACK_S * 1_000), PLENTY));
    case.leave(2, NOON - SET_BACK_S * 1_000);
    assert_eq!((case.place(1, NOON).active_until, case.room.latest_at), (ends, at(NOON)));
}
