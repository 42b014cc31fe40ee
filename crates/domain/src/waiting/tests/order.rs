//! Joining, order, sale, stock, pause: what each input does to who waits.

use super::*;

#[test]
fn join_is_idempotent_and_keeps_the_place() {
    let mut case = RoomCase::with(terms(admission(1, None)), 3);
    case.changes.clear();
    for _ in 0..2 {
        let again = case.join(2, 99, 500);
        assert_eq!((again.new, again.place.entry, again.place.arrival, again.place.ahead), (false, entry(2), 2, Some(1)));
    }
    assert!(case.join(2, 2, 500).new, "applied again after a lost answer, it is still new");
    assert!(case.changes.is_empty());
    case.tick(1_000, PLENTY);
    let active = case.join(1, 99, 1_000);
    assert_eq!((active.new, active.place.entry, active.place.status), (false, entry(1), QueueStatus::Active));
    assert_eq!(case.room.counts(at(1_000)).waiting, 2);
}

/// An answer was lost, and with it went the time in which the stay ended.
#[test]
fn an_entry_that_ended_does_not_begin_again() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.leave(1, 0);
    case.changes.clear();
    let late = case.join(1, 1, 1);
    assert_eq!((late.new, late.place.status, late.place.arrival), (true, QueueStatus::Left, 1));
    let foreign = case.apply(1, RoomInput::Join { user: user(9), entry: entry(2), lane: Lane(0) });
    assert_eq!((foreign, case.room.entry_of(user(9))), (RoomOutput::Nothing, None), "an entry has one user");
    assert!(case.changes.is_empty());
    assert_eq!((case.room.last_place(), case.room.counts(at(1)).waiting), (2, 1));
}

#[test]
fn admits_first_come_first_served_up_to_max_active() {
    let mut case = RoomCase::with(terms(admission(2, None)), 5);
    assert_eq!(case.status(5, 0), (QueueStatus::Waiting, Some(4)));
    assert_eq!(case.tick(0, PLENTY), [entry(1), entry(2)]);
    assert_eq!(case.status(1, 0), (QueueStatus::Active, Some(0)));
    assert_eq!(case.status(3, 0), (QueueStatus::Waiting, Some(0)));
    assert_eq!(case.tick(10, PLENTY), []);
    case.changes.clear();
    case.leave(3, 20);
    case.finish(2, 20, 20);
    let changes: Vec<_> = case.changes.iter().map(|change| (change.entry, change.was, change.status)).collect();
    assert_eq!(
        changes,
        [(entry(3), Some(QueueStatus::Waiting), QueueStatus::Left), (entry(2), Some(QueueStatus::Active), QueueStatus::Done)]
    );
    assert_eq!(case.tick(30, PLENTY), [entry(4)], "a slot comes back at once, and an entry that left is passed over");
    assert_eq!(case.place(5, 30).arrival, 5, "places are fixed");
}

#[test]
fn joining_after_the_end_is_a_new_entry_at_the_end() {
    let over = i64::from(TTL_S) * 1_000;
    for ended in [QueueStatus::Left, QueueStatus::Done, QueueStatus::Expired] {
        let mut case = RoomCase::with(terms(admission(1, None)), 3);
        case.tick(0, PLENTY);
        match ended {
            QueueStatus::Left => case.leave(1, 1),
            QueueStatus::Done => case.finish(1, 1, 1),
            _ => {}
        }
        let again = case.join(1, 9, over);
        assert_eq!((again.new, again.place.entry, again.place.arrival), (true, entry(9), 4), "{ended:?}");
        assert_eq!(case.status(1, over).0, ended);
        assert!(case.changes.iter().any(|change| change.entry == entry(1) && change.status == ended), "{ended:?} was not written");
        assert_eq!(case.room.entry_of(user(1)), Some(entry(9)));
        case.leave(1, over);
        assert_eq!(case.status(1, over).0, ended, "what ended stays as it ended");
    }
}

#[test]
fn no_entry_is_promoted_before_the_sale_starts_and_without_a_commitment_order_is_arrival() {
    let mut case = RoomCase::with(RoomTerms { sale_starts_at: Some(at(1_000)), ..terms(admission(5, None)) }, 2);
    assert_eq!(case.tick(999, PLENTY), []);
    assert_eq!(case.status(2, 999), (QueueStatus::PreSale, None));
    assert_eq!(case.place(2, 999).sale_starts_at, Some(at(1_000)));
    assert_eq!((case.place(2, 999).arrival, case.place(2, 999).draw), (2, None));
    assert_eq!(case.status(2, 1_000), (QueueStatus::Waiting, Some(1)));
    assert_eq!(case.tick(1_000, PLENTY), [entry(1), entry(2)]);
    assert_eq!((case.room.draw(), case.room.awaits_reveal()), (None, false));
}

#[test]
fn rate_and_max_active_hold_together() {
    let mut case = RoomCase::with(terms(admission(5, Some((2, 1)))), 9);
    for (ms, promoted) in [(900, 2), (1_000, 0), (1_899, 0), (1_900, 2), (2_900, 1), (3_900, 0)] {
        assert_eq!(case.tick(ms, PLENTY).len(), promoted, "at {ms} ms");
    }
    let counts = case.room.counts(at(3_900));
    assert_eq!(counts.active, 5);
    assert!((counts.admitted_per_s - 5.0 / RATE_WINDOW_S as f64).abs() < 1e-9, "{}", counts.admitted_per_s);
}

#[test]
fn the_longest_interval_is_remembered_whole() {
    let hour = i64::from(INTERVAL_S_MAX) * 1_000;
    let mut case = RoomCase::with(terms(admission(5, Some((1, INTERVAL_S_MAX)))), 3);
    for (ms, promoted) in [(0, 1), (RATE_WINDOW_S * 1_000 + 1, 0), (hour / 2, 0), (hour - 1, 0), (hour, 1)] {
        assert_eq!(case.tick(ms, PLENTY).len(), promoted, "at {ms} ms");
    }
}

#[test]
fn stock_links_active_places_to_seats_that_can_be_had() {
    let mut case = RoomCase::with(terms(admission(100, None)), 9);
    for (ms, obtainable, promoted) in [(0, 3, 3), (1, 3, 0), (2, 2, 0), (3, 4, 1)] {
        assert_eq!(case.tick(ms, Stock { obtainable, linked: true }).len(), promoted, "{obtainable} seats");
    }
    assert_eq!(case.tick(4, Stock { obtainable: 1, linked: false }).len(), 5, "not linked: only none at all stops it");
}

#[test]
fn sold_out_stops_promotion_keeps_places_and_is_undone() {
    let mut case = RoomCase::with(terms(admission(1, None)), 3);
    case.tick(0, PLENTY);
    for linked in [true, false] {
        assert_eq!(case.tick(1, Stock { obtainable: 0, linked }), []);
        assert_eq!(case.status(1, 1), (QueueStatus::Active, Some(0)), "an active entry stays so");
        assert_eq!(case.status(3, 1), (QueueStatus::SoldOut, Some(1)));
        assert!(case.room.summary(at(1)).sold_out);
    }
    case.finish(1, 2, 2);
    for linked in [true, false] {
        assert_eq!(case.tick(2, Stock { obtainable: 0, linked }), []);
    }
    assert_eq!(case.tick(3, PLENTY), [entry(2)], "a returned seat undoes it");
    assert_eq!(case.status(3, 3), (QueueStatus::Waiting, Some(0)));
}

#[test]
fn pausing_stops_promotion_and_draining_stops_joining() {
    let mode = |mode| Admission { mode, ..admission(100, None) };
    let mut case = RoomCase::with(terms(mode(AdmissionMode::Paused)), 2);
    assert_eq!(case.tick(0, PLENTY), []);
    assert!(case.join(3, 3, 0).new, "joining goes on");
    case.admit(mode(AdmissionMode::Draining), 0);
    let closed = case.apply(0, RoomInput::Join { user: user(4), entry: entry(4), lane: Lane(0) });
    assert_eq!((closed, case.room.entry_of(user(4))), (RoomOutput::Closed, None));
    assert!(!case.join(3, 9, 0).new, "an entry keeps its place");
    assert_eq!(case.tick(1, PLENTY), [entry(1), entry(2), entry(3)], "waiting entries are still admitted");
    case.admit(mode(AdmissionMode::Running), 2);
    assert!(case.join(4, 4, 2).new);
    assert_eq!(case.tick(2, PLENTY), [entry(4)]);
}

#[test]
fn of_what_operators_set_the_latest_counts_over_what_the_room_was_opened_with() {
    let mut case = RoomCase::new(terms(admission(1, None)));
    for (version, max_active, expected) in [(5, 7, 7), (4, 2, 7), (5, 3, 7), (6, 4, 4)] {
        case.apply(0, RoomInput::Admit { admission: admission(max_active, None), version });
        assert_eq!(case.room.admission().max_active, expected, "version {version}");
    }
    case.apply(0, RoomInput::Open(terms(admission(9, None))));
    assert_eq!((case.room.admission().max_active, case.room.admission_version()), (4, Some(6)));
}

#[test]
fn one_tick_is_a_capped_step() {
    let people = u128::from(PROMOTIONS_PER_TICK_MAX) + 1;
    let mut case = RoomCase::with(terms(admission(crate::admission::MAX_ACTIVE_MAX, None)), people);
    let stock = Stock { obtainable: u64::MAX, linked: true };
    assert_eq!(case.tick(0, stock).len() as u32, PROMOTIONS_PER_TICK_MAX);
    assert!(case.room.is_due(at(1), stock));
    assert_eq!(case.tick(1, stock).len(), 1);
}

#[test]
fn places_are_given_out_as_far_as_they_are_reserved() {
    for waits_for_draw in [false, true] {
        let start = if waits_for_draw { 1_000 } else { 0 };
        let mut case = RoomCase::new(drawn(admission(1, None), start));
        case.apply(0, RoomInput::Reserve { to: 2 });
        case.apply(0, RoomInput::Reserve { to: 1 });
        case.join(1, 1, 0);
        case.join(2, 2, 0);
        let join = |of| RoomInput::Join { user: user(of), entry: entry(of), lane: Lane(0) };
        assert_eq!(case.apply(0, join(3)), RoomOutput::Unreserved(2));
        assert!(!case.join(2, 9, 0).new, "an entry needs no second one");
        case.apply(0, RoomInput::Reserve { to: 3 });
        case.join(3, 3, 0);
        assert_eq!(case.room.mark(at(0)).last_place, 3);
        // A closed list has its places: they are not counted once more.
        assert_eq!(case.apply(1_000, join(4)), RoomOutput::Unreserved(3));
        case.apply(1_000, RoomInput::Reserve { to: 4 });
        assert_eq!(case.join(4, 4, 1_000).place.arrival, 4);
    }
}
