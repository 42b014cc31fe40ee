//! Lanes: their shares, what idle ones leave, and terms that change.

use super::*;

fn lanes(shares: &[(&str, u16)], max_active: u32) -> RoomTerms {
    RoomTerms { lanes: shares.iter().map(|(name, share)| lane(name, *share)).collect(), ..terms(admission(max_active, None)) }
}

const LOTS: Stock = Stock { obtainable: 1_000_000, linked: false };

/// `people` in each of these lanes.
fn full(case: &mut RoomCase, lanes: &[u8], people: u128) {
    for of in lanes {
        for n in 0..people {
            let fresh = (u128::from(*of) + 1) * 1_000_000 + case.room.size() as u128 + n;
            case.join_lane(fresh, fresh, *of, 0);
        }
    }
}

/// Promotes `count`, one at a time, and returns how many of each lane went.
fn promote(case: &mut RoomCase, count: usize, lanes: usize) -> Vec<usize> {
    let mut of = vec![0; lanes];
    for _ in 0..count {
        let promoted = case.tick(0, LOTS);
        assert_eq!(promoted.len(), 1, "no entry waits any more");
        of[usize::from(case.room.place(promoted[0], at(0)).unwrap().lane.0)] += 1;
        case.apply(0, RoomInput::Leave { entry: promoted[0] });
    }
    of
}

#[test]
fn each_lane_gets_its_share_while_entries_wait_in_it() {
    for shares in [[300, 50, 150], [1, 500, 10], [333, 333, 333], [10, 970, 10]] {
        let [one, two, three] = shares;
        let mut case = RoomCase::new(lanes(&[("fans", one), ("press", two), ("access", three)], 1));
        full(&mut case, &[0, 1, 2, 3], 3_000);
        let promoted = promote(&mut case, 3_000, 4);
        for (at, share) in [1_000 - one - two - three, one, two, three].into_iter().enumerate() {
            let expected = 3_000.0 * f64::from(share) / 1_000.0;
            let off = (promoted[at] as f64 - expected).abs();
            assert!(off <= 30.0, "lane {at} of {shares:?}: {} instead of {expected}", promoted[at]);
        }
    }
}

#[test]
fn what_a_lane_does_not_need_goes_to_the_others_by_their_shares() {
    let mut case = RoomCase::new(lanes(&[("fans", 600), ("press", 100)], 1));
    full(&mut case, &[0, 2], 2_000);
    let promoted = promote(&mut case, 2_000, 3);
    assert!((promoted[0] as i64 - 1_500).abs() <= 20, "300 of 400: {promoted:?}");
    full(&mut case, &[1], 10);
    assert_eq!(promote(&mut case, 20, 3)[1], 10, "an entry of an idle lane has its share at once");
}

#[test]
fn an_idle_lane_saves_nothing_up() {
    let mut case = RoomCase::new(lanes(&[("fans", 500)], 1));
    full(&mut case, &[0], 2_000);
    promote(&mut case, 1_000, 2);
    full(&mut case, &[1], 500);
    let promoted = promote(&mut case, 100, 2);
    assert!((49..=51).contains(&promoted[1]), "half of the next hundred and no more: {promoted:?}");
    // Nor does a lane that comes late owe anything.
    let mut case = RoomCase::new(lanes(&[("fans", 500)], 1));
    full(&mut case, &[1], 1_000);
    promote(&mut case, 500, 2);
    full(&mut case, &[0], 500);
    let promoted = promote(&mut case, 100, 2);
    assert!((49..=51).contains(&promoted[0]), "{promoted:?}");
}

#[test]
fn within_a_lane_order_is_arrival_and_ahead_counts_the_lane_alone() {
    let mut case = RoomCase::new(lanes(&[("fans", 500)], 100));
    for (n, of) in [(1, 0), (2, 1), (3, 0), (4, 1), (5, 0)] {
        case.join_lane(n, n, of, 0);
    }
    assert_eq!(case.status(5, 0).1, Some(2));
    assert_eq!(case.status(4, 0).1, Some(1));
    assert_eq!(case.place(4, 0).arrival, 4, "places are over all lanes");
    assert_eq!(case.tick(0, PLENTY), [entry(1), entry(2), entry(3), entry(4), entry(5)]);
    let summary = case.room.summary(at(0));
    assert_eq!(summary.lanes.iter().map(|(admitted, _)| *admitted).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_lane_that_there_is_not_is_the_general_one() {
    let mut case = RoomCase::new(lanes(&[("fans", 500)], 1));
    assert_eq!((case.room.lane("fans"), case.room.lane("press"), case.room.lane("")), (Lane(1), Lane(0), Lane(0)));
    assert_eq!(case.join_lane(1, 1, 7, 0).place.lane, Lane(0));
    assert_eq!(case.join_lane(2, 2, 1, 0).place.lane, Lane(1));
}

#[test]
fn a_lane_keeps_its_number_whatever_becomes_of_the_terms() {
    let mut case = RoomCase::new(lanes(&[("fans", 300), ("press", 300)], 1));
    let open = |case: &mut RoomCase, shares: &[(&str, u16)]| {
        case.apply(0, RoomInput::Open(lanes(shares, 1)));
    };
    full(&mut case, &[0, 1, 2], 200);
    open(&mut case, &[("press", 900)]);
    assert_eq!((case.room.lane("press"), case.room.lane("fans")), (Lane(2), Lane(0)));
    let promoted = promote(&mut case, 100, 3);
    assert!((89..=91).contains(&promoted[2]) && promoted[1] <= 1, "press by its name, fans with the smallest share: {promoted:?}");
    open(&mut case, &[("access", 400), ("fans", 400), ("press", 100)]);
    assert_eq!(["fans", "press", "access"].map(|name| case.room.lane(name)), [Lane(1), Lane(2), Lane(3)]);
    let promoted = promote(&mut case, 100, 4);
    assert!((65..=68).contains(&promoted[1]), "400 of 600, and access is empty: {promoted:?}");
    open(&mut case, &[]);
    let left = case.room.counts(at(0)).waiting as usize;
    assert_eq!(left, 400);
    assert_eq!(promote(&mut case, left, 4).iter().sum::<usize>(), 400, "no entry is lost");
}

#[test]
fn lanes_are_bounded_and_an_empty_one_makes_room() {
    let names: Vec<_> = (0..2 * LANES_MAX).map(|n| format!("lane {n}")).collect();
    let open = |some: &[String]| RoomInput::Open(RoomTerms { lanes: some.iter().map(|name| lane(name, 10)).collect(), ..lanes(&[], 9) });
    let mut case = RoomCase::new(lanes(&[], 9));
    case.apply(0, open(&names[..LANES_MAX]));
    let last = case.room.lane(&names[LANES_MAX - 1]);
    assert_eq!(usize::from(last.0), LANES_MAX);
    case.join_lane(1, 1, last.0, 0);
    case.apply(0, open(&names[LANES_MAX..]));
    assert_eq!(case.room.summary(at(0)).lanes.len(), LANES_MAX + 1);
    assert_eq!(case.place(1, 0).ahead, Some(0));
    let opened = names[LANES_MAX..].iter().filter(|name| case.room.lane(name) != Lane(0)).count();
    assert_eq!(opened, LANES_MAX - 1, "all but the one with a waiting entry");
    assert_eq!(case.tick(0, PLENTY), [entry(1)]);
}
