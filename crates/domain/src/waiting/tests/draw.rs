//! Entries from before the sale: a closed list, and an order that every client can recompute.

use super::*;
use crate::draw::{commitment, draw_key, entries_hash, rank, salt};

const START: i64 = 10_000;

fn pre_sale(people: u128) -> RoomCase {
    RoomCase::with(drawn(admission(1, None), START), people)
}

/// The place of every draw key, from what is published and nothing else.
fn recomputed(view: &DrawView) -> HashMap<Hash32, u64> {
    let (seed, keys) = (view.seed.unwrap(), view.keys.clone().unwrap());
    assert_eq!(commitment(&seed), view.commitment);
    assert!(keys.is_sorted());
    let salt = salt(&seed, view.beacon.as_deref());
    let mut order: Vec<_> = keys.iter().map(|key| (rank(&salt, key), *key)).collect();
    order.sort_unstable();
    (view.base + 1..).zip(order).map(|(place, (_, key))| (key, place)).collect()
}

fn place_of(case: &RoomCase, n: u128) -> u64 {
    case.place(n, START).arrival
}

#[test]
fn those_before_the_sale_have_no_place_until_they_are_drawn() {
    let mut case = pre_sale(5);
    let place = case.place(3, START - 1);
    assert_eq!((place.status, place.arrival, place.ahead), (QueueStatus::PreSale, 0, None));
    assert_eq!(place.draw, Some((commitment(&SEED), None)), "the commitment is there before the seed");
    assert_eq!(case.room.draw().unwrap(), DrawView { commitment: commitment(&SEED), base: 0, keys: None, beacon: None, seed: None });
    assert!(!case.room.awaits_reveal());
    case.reveal(None, START - 1);
    assert_eq!(case.room.draw().unwrap().seed, None, "not before the list is closed");
    let counts = case.room.counts(at(START - 1));
    assert_eq!((counts.waiting, case.room.summary(at(START)).waiting), (5, 5));

    assert_eq!(case.tick(START, PLENTY), [], "closed, not drawn");
    assert!(case.room.awaits_reveal() && !case.room.summary(at(START)).open);
    assert_eq!(case.status(3, START), (QueueStatus::PreSale, None));
    let keys = case.room.draw().unwrap().keys.unwrap();
    let mut expected: Vec<_> = (1..=5).map(|n| draw_key(user(n), concert())).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);

    case.apply(START, RoomInput::Reveal { seed: [8; 32], beacon: None });
    assert!(case.room.awaits_reveal(), "another seed than the one committed to changes nothing");
    case.reveal(None, START);
    let order = recomputed(&case.room.draw().unwrap());
    assert!((1..=5).all(|n| place_of(&case, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(case.place(3, START).draw, Some((commitment(&SEED), Some(SEED))));
    case.reveal(Some("another"), START);
    assert_eq!(case.room.draw().unwrap().beacon, None, "once");
    let mut by_place: Vec<_> = (1..=5).collect();
    by_place.sort_unstable_by_key(|n| place_of(&case, *n));
    assert_ne!(by_place, [1, 2, 3, 4, 5], "by the draw, not by coming");
    case.admit(admission(5, None), START);
    assert_eq!(case.tick(START, PLENTY), by_place.into_iter().map(entry).collect::<Vec<_>>());
}

#[test]
fn nothing_opens_at_the_start_before_the_list_is_drawn_even_unasked() {
    let case = pre_sale(2);
    assert!(!case.room.summary(at(START)).open, "no input has come since the sale started");
    assert!(case.room.is_due(at(START), PLENTY));
}

#[test]
fn an_entry_that_joins_later_stands_behind_all_that_are_drawn() {
    for revealed_first in [true, false] {
        let mut case = pre_sale(4);
        case.ticked(START, PLENTY);
        if revealed_first {
            case.reveal(None, START);
        }
        assert_eq!(case.join(9, 9, START).place.arrival, 5);
        case.reveal(None, START);
        assert_eq!(case.status(9, START), (QueueStatus::Waiting, Some(4)));
        assert_eq!(case.room.draw().unwrap().keys.unwrap().len(), 4);
    }
    let mut case = pre_sale(4);
    assert_eq!(case.join(9, 9, START).place.arrival, 5, "joining is the first input after the start");
}

#[test]
fn leaving_before_the_close_takes_one_off_the_list_and_after_it_does_not() {
    let mut case = pre_sale(4);
    case.leave(1, 0);
    case.leave(2, 0);
    case.join(2, 20, 0);
    assert_eq!(case.room.counts(at(0)).waiting, 3);
    case.ticked(START, PLENTY);
    let view = case.room.draw().unwrap();
    assert_eq!(view.keys.as_ref().map(Vec::len), Some(3), "one, who came back, is there once");
    case.leave(3, START);
    assert_eq!(case.room.counts(at(START)).waiting, 2);
    assert_eq!(case.room.draw().unwrap(), view, "the list stays as it was closed");
    case.reveal(None, START);
    let order = recomputed(&case.room.draw().unwrap());
    for (of, stay) in [(2, 20), (3, 3), (4, 4)] {
        assert_eq!(place_of(&case, stay), order[&draw_key(user(of), concert())]);
    }
    assert_eq!(case.status(3, START).0, QueueStatus::Left);
    assert_eq!(case.room.counts(at(START)).waiting, 2);
    assert_eq!(case.tick(START, PLENTY).len(), 1);
    assert_eq!(case.join(3, 30, START).place.arrival, 4, "who left comes back behind");
}

#[test]
fn the_list_cannot_be_changed_after_it_was_closed() {
    let mut case = pre_sale(6);
    case.ticked(START, PLENTY);
    let view = case.room.draw().unwrap();
    let hash = entries_hash(view.keys.as_ref().unwrap());
    let mut next = 100;
    let later = RoomTerms { sale_starts_at: Some(at(2 * START)), commitment: Some([1; 32]), ..case.room.terms().clone() };
    case.apply(START, RoomInput::Open(later));
    for step in [
        Step::Join(9, 0),
        Step::Leave(1),
        Step::Restore { of: 8, lane: 0, ahead_of_last: 0, turn_s: None },
        Step::Restore { of: 2, lane: 0, ahead_of_last: -3, turn_s: Some(9) },
        Step::Tick(PLENTY),
        Step::Reveal { right: false, beacon: false },
        Step::Pass(0),
    ] {
        if let Some(input) = input(&step, &case.room, START, &mut next) {
            case.apply(START, input);
        }
        assert_eq!(case.room.draw().unwrap(), view, "{step:?}");
    }
    case.restore(PlaceClaim { entry: entry(77), user: user(77), lane: Lane(0), place: 0, active_until: None }, START);
    assert_eq!(case.room.draw().unwrap(), view);
    let keys = view.keys.unwrap();
    for (at, _) in keys.iter().enumerate() {
        let without: Vec<_> = keys.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, key)| *key).collect();
        assert_ne!(entries_hash(&without), hash);
    }
    let mut with: Vec<_> = keys.iter().copied().chain([draw_key(user(99), concert())]).collect();
    with.sort_unstable();
    assert_ne!(entries_hash(&with), hash);
}

#[test]
fn a_published_commitment_stays_while_an_entry_is_to_be_drawn_by_it() {
    let mut case = RoomCase::new(drawn(admission(1, None), START));
    let other = RoomTerms { commitment: Some(commitment(&[8; 32])), ..case.room.terms().clone() };
    case.apply(0, RoomInput::Open(other.clone()));
    assert_eq!(case.room.draw().unwrap().commitment, commitment(&[8; 32]), "no entry has come yet");
    case.apply(0, RoomInput::Open(drawn(admission(1, None), START)));
    case.join(1, 1, 0);
    for commitment in [other.commitment, None] {
        case.apply(0, RoomInput::Open(RoomTerms { commitment, ..other.clone() }));
        assert_eq!(case.room.draw().unwrap().commitment, crate::draw::commitment(&SEED));
    }
}

#[test]
fn a_start_that_is_moved_moves_the_close_and_leaves_no_entry_behind() {
    let moved = |case: &mut RoomCase, start: Option<i64>, ms| {
        let terms = RoomTerms { sale_starts_at: start.map(at), ..case.room.terms().clone() };
        case.apply(ms, RoomInput::Open(terms));
    };
    let mut case = pre_sale(3);
    moved(&mut case, Some(3 * START), 0);
    case.ticked(2 * START, PLENTY);
    assert_eq!(case.room.draw().unwrap().keys, None);
    assert_eq!(case.join(4, 4, 2 * START).place.arrival, 0);
    moved(&mut case, Some(START), 2 * START);
    assert!(case.room.awaits_reveal(), "earlier than now is now");
    assert_eq!(case.room.draw().unwrap().keys.unwrap().len(), 4);
    // Later again: what is closed stays closed, and no entry is promoted before the start.
    moved(&mut case, Some(5 * START), 2 * START);
    case.reveal(None, 2 * START);
    assert_eq!(case.join(5, 5, 2 * START).place.arrival, 5);
    assert_eq!(case.tick(5 * START - 1, PLENTY), []);
    assert_eq!(case.tick(5 * START, PLENTY).len(), 1);
    // No start at all: who came before it is drawn at once.
    let mut case = pre_sale(3);
    moved(&mut case, None, 1);
    case.reveal(None, 1);
    assert_eq!(case.tick(2, PLENTY).len(), 1);
    assert_eq!(case.room.counts(at(2)).waiting, 2);
}

#[test]
fn a_sale_without_entries_before_it_opens_at_once() {
    let mut case = pre_sale(0);
    assert_eq!(case.join(1, 1, START).place.arrival, 1);
    assert_eq!(case.tick(START, PLENTY), [entry(1)], "there is nothing to draw");
    assert_eq!(case.room.draw().unwrap().keys, Some(Vec::new()));
    case.reveal(None, START);
    assert_eq!(case.room.draw().unwrap().seed, Some(SEED));
}

#[test]
fn places_that_were_given_out_before_the_list_stay_in_front() {
    let mut case = RoomCase::with(terms(admission(1, None)), 2);
    case.apply(0, RoomInput::Open(drawn(admission(1, None), START)));
    (3..=5).for_each(|n| assert_eq!(case.join(n, n, 0).place.arrival, 0));
    case.ticked(START, PLENTY);
    case.reveal(Some("beacon"), START);
    let view = case.room.draw().unwrap();
    assert_eq!(view.base, 2);
    let order = recomputed(&view);
    assert!((3..=5).all(|n| place_of(&case, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(case.tick(START, PLENTY), [entry(1)]);
}

/// No entry on a closed list is forgotten before it is drawn, however long that takes.
#[test]
fn a_list_is_drawn_whole_even_days_later() {
    let mut case = pre_sale(4);
    case.ticked(START, PLENTY);
    case.leave(2, START);
    let late = START + 3 * ENDED_KEPT_S * 1_000;
    case.ticked(late, PLENTY);
    case.reveal(None, late);
    let order = recomputed(&case.room.draw().unwrap());
    assert!([1, 3, 4].into_iter().all(|n| place_of(&case, n) == order[&draw_key(user(n), concert())]));
    case.ticked(late, PLENTY);
    assert_eq!(case.room.place(entry(2), at(late)), None, "and then forgotten");
}

/// Two hundred thousand people in three lanes: every entry has the place that the published list gives.
#[test]
fn two_hundred_thousand_people_are_drawn() {
    const PEOPLE: u128 = 200_000;
    let lanes = vec![lane("fans", 300), lane("press", 50)];
    let mut case = RoomCase::new(RoomTerms { lanes, ..drawn(admission(10, None), START) });
    (1..=PEOPLE).for_each(|n| {
        case.join_lane(n, n, (n % 3) as u8, 0);
    });
    case.changes.clear();
    case.ticked(START, PLENTY);
    case.reveal(Some("a headline"), START);
    let order = recomputed(&case.room.draw().unwrap());
    assert!((1..=PEOPLE).all(|n| place_of(&case, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(case.room.counts(at(START)).waiting, PEOPLE as u64);
    let mut in_lane: Vec<_> = (1..=PEOPLE).filter(|n| n % 3 == 1).collect();
    in_lane.sort_unstable_by_key(|n| place_of(&case, *n));
    for (ahead, n) in in_lane.iter().enumerate().step_by(997) {
        assert_eq!(case.status(*n, START), (QueueStatus::Waiting, Some(ahead as u64)));
    }
    let fans = case.tick(START, PLENTY).into_iter().filter(|promoted| case.room.place(*promoted, at(START)).unwrap().lane == Lane(1));
    assert!(fans.zip(in_lane).all(|(promoted, n)| promoted == entry(n)));
}
