//! An operator who knows the seed before the first user joins tries to place accounts of their own. Nothing is left to chance
//! here: accounts, seed and beacons are fixed, so that the statistics come out the same every time.

use super::*;
use crate::draw::{draw_key, rank, salt};

const START: i64 = 10_000;
const CANDIDATES: u128 = 10_000;
const OWN: usize = 10;
const OTHERS: u128 = 990;
const BEACONS: u64 = 200;

/// Of all accounts that could be made the ones that come first under the seed alone.
fn chosen() -> Vec<u128> {
    let salt = salt(&SEED, None);
    let mut candidates: Vec<_> = (0..CANDIDATES).map(|n| 1_000_000 + n).collect();
    candidates.sort_unstable_by_key(|n| rank(&salt, &draw_key(user(*n), concert())));
    candidates.truncate(OWN);
    candidates
}

/// A room with the others and the chosen ones, closed and not drawn.
fn closed(own: &[u128]) -> RoomCase {
    let mut case = RoomCase::new(drawn(admission(1, None), START));
    (1..=OTHERS).chain(own.iter().copied()).for_each(|n| {
        case.join(n, n, 0);
    });
    case.ticked(START, PLENTY);
    case
}

fn places(case: &mut RoomCase, own: &[u128], beacon: Option<&str>) -> Vec<u64> {
    case.reveal(beacon, START);
    own.iter().map(|n| case.place(*n, START).arrival).collect()
}

#[test]
fn an_operator_who_knows_the_seed_wins_the_front_if_there_is_no_beacon() {
    let own = chosen();
    let places = places(&mut closed(&own), &own, None);
    assert!(places.iter().all(|place| *place <= 15), "of a thousand places: {places:?}");
}

#[test]
fn a_beacon_that_was_unknown_takes_it_away_again() {
    let own = chosen();
    let before = closed(&own);
    let people = (OTHERS as usize + OWN) as f64;
    let mut all = Vec::new();
    for n in 0..BEACONS {
        let mut case = RoomCase { room: by_log(&before.room), changes: Vec::new() };
        all.extend(places(&mut case, &own, Some(&format!("headline of day {n}"))));
    }
    let share = |from: f64, to: f64| {
        all.iter().filter(|place| (from * people..to * people).contains(&(**place as f64 - 1.0))).count() as f64 / all.len() as f64
    };
    // Two thousand places of the operator's: each tenth of the line should hold two hundred of them. Chi-square with
    // nine degrees of freedom is beyond 27.9 once in a thousand times.
    let expected = all.len() as f64 / 10.0;
    let chi_square: f64 = (0..10)
        .map(|tenth| share(f64::from(tenth) / 10.0, f64::from(tenth + 1) / 10.0) * all.len() as f64)
        .map(|found| (found - expected).powi(2) / expected)
        .sum();
    assert!(chi_square < 27.9, "{chi_square}");
    assert!(share(0.0, 0.01) < 0.025, "{} of them in the first hundredth", share(0.0, 0.01));
    let mean = all.iter().sum::<u64>() as f64 / all.len() as f64;
    assert!((mean - (people + 1.0) / 2.0).abs() < 3.3 * people / (12.0 * all.len() as f64).sqrt(), "the mean place is {mean}");
}

/// Nor does it help to wait for the list, and then to choose which entries stay on it: leaving moves no other entry.
#[test]
fn leaving_a_closed_list_changes_no_other_place() {
    let own = chosen();
    let mut stay = closed(&own);
    let mut leave = closed(&own);
    own[1..].iter().for_each(|n| leave.leave(*n, START));
    assert_eq!(places(&mut stay, &own[..1], Some("b")), places(&mut leave, &own[..1], Some("b")));
}
