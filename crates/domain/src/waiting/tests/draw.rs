//! Those who come before the sale: a closed list, and an order that anybody can compute again.

use super::*;
use crate::draw::{commitment, draw_key, entries_hash, rank, salt};

const START: i64 = 10_000;

fn pre_sale(people: u128) -> Told {
    Told::with(drawn(admission(1, None), START), people)
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

fn place_of(told: &Told, n: u128) -> u64 {
    told.place(n, START).arrival
}

#[test]
fn those_before_the_sale_have_no_place_until_they_are_drawn() {
    let mut told = pre_sale(5);
    let place = told.place(3, START - 1);
    assert_eq!((place.status, place.arrival, place.ahead), (QueueStatus::PreSale, 0, None));
    assert_eq!(place.draw, Some((commitment(&SEED), None)), "the commitment is there before anybody could know the seed");
    assert_eq!(told.room.draw().unwrap(), DrawView { commitment: commitment(&SEED), base: 0, keys: None, beacon: None, seed: None });
    assert!(!told.room.awaits_reveal());
    told.reveal(None, START - 1);
    assert_eq!(told.room.draw().unwrap().seed, None, "not before the list is closed");
    let counts = told.room.counts(at(START - 1));
    assert_eq!((counts.waiting, told.room.summary(at(START)).waiting), (5, 5));

    assert_eq!(told.tick(START, PLENTY), [], "closed, not drawn");
    assert!(told.room.awaits_reveal() && !told.room.summary(at(START)).open);
    assert_eq!(told.status(3, START), (QueueStatus::PreSale, None));
    let keys = told.room.draw().unwrap().keys.unwrap();
    let mut expected: Vec<_> = (1..=5).map(|n| draw_key(user(n), concert())).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);

    told.tell(START, RoomInput::Reveal { seed: [8; 32], beacon: None });
    assert!(told.room.awaits_reveal(), "another seed than the one committed to changes nothing");
    told.reveal(None, START);
    let order = recomputed(&told.room.draw().unwrap());
    assert!((1..=5).all(|n| place_of(&told, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(told.place(3, START).draw, Some((commitment(&SEED), Some(SEED))));
    told.reveal(Some("another"), START);
    assert_eq!(told.room.draw().unwrap().beacon, None, "once");
    let mut by_place: Vec<_> = (1..=5).collect();
    by_place.sort_unstable_by_key(|n| place_of(&told, *n));
    assert_ne!(by_place, [1, 2, 3, 4, 5], "by the draw, not by coming");
    told.admit(admission(5, None), START);
    assert_eq!(told.tick(START, PLENTY), by_place.into_iter().map(entry).collect::<Vec<_>>());
}

#[test]
fn nothing_opens_at_the_start_before_the_list_is_drawn_even_unasked() {
    let told = pre_sale(2);
    assert!(!told.room.summary(at(START)).open, "nobody has told the room yet that the sale has started");
    assert!(told.room.is_due(at(START), PLENTY));
}

#[test]
fn whoever_comes_later_stands_behind_all_that_are_drawn() {
    for revealed_first in [true, false] {
        let mut told = pre_sale(4);
        told.ticked(START, PLENTY);
        if revealed_first {
            told.reveal(None, START);
        }
        assert_eq!(told.join(9, 9, START).place.arrival, 5);
        told.reveal(None, START);
        assert_eq!(told.status(9, START), (QueueStatus::Waiting, Some(4)));
        assert_eq!(told.room.draw().unwrap().keys.unwrap().len(), 4);
    }
    let mut told = pre_sale(4);
    assert_eq!(told.join(9, 9, START).place.arrival, 5, "joining is what told the room of the start");
}

#[test]
fn leaving_before_the_close_takes_one_off_the_list_and_after_it_does_not() {
    let mut told = pre_sale(4);
    told.leave(1, 0);
    told.leave(2, 0);
    told.join(2, 20, 0);
    assert_eq!(told.room.counts(at(0)).waiting, 3);
    told.ticked(START, PLENTY);
    let view = told.room.draw().unwrap();
    assert_eq!(view.keys.as_ref().map(Vec::len), Some(3), "one, who came back, is there once");
    told.leave(3, START);
    assert_eq!(told.room.counts(at(START)).waiting, 2);
    assert_eq!(told.room.draw().unwrap(), view, "the list stays as it was closed");
    told.reveal(None, START);
    let order = recomputed(&told.room.draw().unwrap());
    for (of, stay) in [(2, 20), (3, 3), (4, 4)] {
        assert_eq!(place_of(&told, stay), order[&draw_key(user(of), concert())]);
    }
    assert_eq!(told.status(3, START).0, QueueStatus::Left);
    assert_eq!(told.room.counts(at(START)).waiting, 2);
    assert_eq!(told.tick(START, PLENTY).len(), 1);
    assert_eq!(told.join(3, 30, START).place.arrival, 4, "who left comes back behind");
}

#[test]
fn the_list_cannot_be_changed_after_it_was_closed() {
    let mut told = pre_sale(6);
    told.ticked(START, PLENTY);
    let view = told.room.draw().unwrap();
    let hash = entries_hash(view.keys.as_ref().unwrap());
    let mut next = 100;
    let later = RoomTerms { sale_starts_at: Some(at(2 * START)), commitment: Some([1; 32]), ..told.room.terms().clone() };
    told.tell(START, RoomInput::Open(later));
    for step in [
        Step::Join(9, 0),
        Step::Leave(1),
        Step::Restore { of: 8, lane: 0, ahead_of_last: 0, turn_s: None },
        Step::Restore { of: 2, lane: 0, ahead_of_last: -3, turn_s: Some(9) },
        Step::Tick(PLENTY),
        Step::Reveal { right: false, beacon: false },
        Step::Pass(0),
    ] {
        if let Some(input) = input(&step, &told.room, START, &mut next) {
            told.tell(START, input);
        }
        assert_eq!(told.room.draw().unwrap(), view, "{step:?}");
    }
    told.restore(PlaceClaim { entry: entry(77), user: user(77), lane: Lane(0), place: 0, active_until: None }, START);
    assert_eq!(told.room.draw().unwrap(), view);
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
fn what_was_published_stays_while_anybody_is_to_be_drawn_by_it() {
    let mut told = Told::new(drawn(admission(1, None), START));
    let other = RoomTerms { commitment: Some(commitment(&[8; 32])), ..told.room.terms().clone() };
    told.tell(0, RoomInput::Open(other.clone()));
    assert_eq!(told.room.draw().unwrap().commitment, commitment(&[8; 32]), "nobody has come yet");
    told.tell(0, RoomInput::Open(drawn(admission(1, None), START)));
    told.join(1, 1, 0);
    for commitment in [other.commitment, None] {
        told.tell(0, RoomInput::Open(RoomTerms { commitment, ..other.clone() }));
        assert_eq!(told.room.draw().unwrap().commitment, crate::draw::commitment(&SEED));
    }
}

#[test]
fn a_start_that_is_moved_moves_the_close_and_leaves_nobody_behind() {
    let moved = |told: &mut Told, start: Option<i64>, ms| {
        let terms = RoomTerms { sale_starts_at: start.map(at), ..told.room.terms().clone() };
        told.tell(ms, RoomInput::Open(terms));
    };
    let mut told = pre_sale(3);
    moved(&mut told, Some(3 * START), 0);
    told.ticked(2 * START, PLENTY);
    assert_eq!(told.room.draw().unwrap().keys, None);
    assert_eq!(told.join(4, 4, 2 * START).place.arrival, 0);
    moved(&mut told, Some(START), 2 * START);
    assert!(told.room.awaits_reveal(), "earlier than now is now");
    assert_eq!(told.room.draw().unwrap().keys.unwrap().len(), 4);
    // Later again: what is closed stays closed, and nobody goes before the start.
    moved(&mut told, Some(5 * START), 2 * START);
    told.reveal(None, 2 * START);
    assert_eq!(told.join(5, 5, 2 * START).place.arrival, 5);
    assert_eq!(told.tick(5 * START - 1, PLENTY), []);
    assert_eq!(told.tick(5 * START, PLENTY).len(), 1);
    // No start at all: who came before it is drawn at once.
    let mut told = pre_sale(3);
    moved(&mut told, None, 1);
    told.reveal(None, 1);
    assert_eq!(told.tick(2, PLENTY).len(), 1);
    assert_eq!(told.room.counts(at(2)).waiting, 2);
}

#[test]
fn a_sale_without_anybody_before_it_opens_at_once() {
    let mut told = pre_sale(0);
    assert_eq!(told.join(1, 1, START).place.arrival, 1);
    assert_eq!(told.tick(START, PLENTY), [entry(1)], "there is nothing to draw");
    assert_eq!(told.room.draw().unwrap().keys, Some(Vec::new()));
    told.reveal(None, START);
    assert_eq!(told.room.draw().unwrap().seed, Some(SEED));
}

#[test]
fn places_that_were_given_out_before_the_list_stay_in_front() {
    let mut told = Told::with(terms(admission(1, None)), 2);
    told.tell(0, RoomInput::Open(drawn(admission(1, None), START)));
    (3..=5).for_each(|n| assert_eq!(told.join(n, n, 0).place.arrival, 0));
    told.ticked(START, PLENTY);
    told.reveal(Some("beacon"), START);
    let view = told.room.draw().unwrap();
    assert_eq!(view.base, 2);
    let order = recomputed(&view);
    assert!((3..=5).all(|n| place_of(&told, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(told.tick(START, PLENTY), [entry(1)]);
}

/// Nobody on a closed list is forgotten before it is drawn, however long that takes.
#[test]
fn a_list_is_drawn_whole_even_days_later() {
    let mut told = pre_sale(4);
    told.ticked(START, PLENTY);
    told.leave(2, START);
    let late = START + 3 * ENDED_KEPT_S * 1_000;
    told.ticked(late, PLENTY);
    told.reveal(None, late);
    let order = recomputed(&told.room.draw().unwrap());
    assert!([1, 3, 4].into_iter().all(|n| place_of(&told, n) == order[&draw_key(user(n), concert())]));
    told.ticked(late, PLENTY);
    assert_eq!(told.room.place(entry(2), at(late)), None, "and then forgotten");
}

/// Two hundred thousand people in three lanes: everybody has the place that the published list gives.
#[test]
fn two_hundred_thousand_people_are_drawn() {
    const PEOPLE: u128 = 200_000;
    let lanes = vec![lane("fans", 300), lane("press", 50)];
    let mut told = Told::new(RoomTerms { lanes, ..drawn(admission(10, None), START) });
    (1..=PEOPLE).for_each(|n| {
        told.join_lane(n, n, (n % 3) as u8, 0);
    });
    told.changes.clear();
    told.ticked(START, PLENTY);
    told.reveal(Some("a headline"), START);
    let order = recomputed(&told.room.draw().unwrap());
    assert!((1..=PEOPLE).all(|n| place_of(&told, n) == order[&draw_key(user(n), concert())]));
    assert_eq!(told.room.counts(at(START)).waiting, PEOPLE as u64);
    let mut in_lane: Vec<_> = (1..=PEOPLE).filter(|n| n % 3 == 1).collect();
    in_lane.sort_unstable_by_key(|n| place_of(&told, *n));
    for (ahead, n) in in_lane.iter().enumerate().step_by(997) {
        assert_eq!(told.status(*n, START), (QueueStatus::Waiting, Some(ahead as u64)));
    }
    let fans = told.tick(START, PLENTY).into_iter().filter(|promoted| told.room.place(*promoted, at(START)).unwrap().lane == Lane(1));
    assert!(fans.zip(in_lane).all(|(promoted, n)| promoted == entry(n)));
}
