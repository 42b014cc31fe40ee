//! The waiting room's tests: tables of what each step does, and random days that never admit too many.

use super::*;
use crate::admission::PerInterval;
use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

const TTL_S: u32 = 60;
const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };

fn at(ms: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn user(n: u128) -> UserId {
    Uuid::from_u128(0xA000 + n).into()
}

fn entry(n: u128) -> QueueEntryId {
    Uuid::from_u128(0xE000 + n).into()
}

fn admission(max_active: u32, per_interval: Option<(u32, u32)>) -> Admission {
    let per_interval = per_interval.map(|(count, seconds)| PerInterval { count, seconds });
    Admission { mode: AdmissionMode::Running, max_active, per_interval, auto: false, adaptive: false }
}

fn mode(mode: AdmissionMode) -> Admission {
    Admission { mode, ..admission(100, None) }
}

/// A room with entries 1 to `people` of users 1 to `people`, in that order.
fn room(admission: Admission, sale_starts_at: Option<Timestamp>, people: u128) -> Room {
    let mut room = Room::new(admission, sale_starts_at, TTL_S);
    for n in 1..=people {
        assert!(room.join(user(n), entry(n), at(0), &mut Vec::new()).unwrap().new);
    }
    room
}

/// Ticks and says who was promoted.
fn tick(room: &mut Room, ms: i64, stock: Stock) -> Vec<QueueEntryId> {
    let mut changes = Vec::new();
    room.tick(at(ms), stock, &mut changes);
    changes.into_iter().filter(|change| change.status == QueueStatus::Active).map(|change| change.entry).collect()
}

fn status(room: &Room, n: u128, ms: i64) -> (QueueStatus, Option<u64>) {
    let place = room.place(entry(n), at(ms)).unwrap();
    (place.status, place.ahead)
}

#[test]
fn join_is_idempotent_and_keeps_the_place() {
    let mut room = room(admission(1, None), None, 3);
    let mut changes = Vec::new();
    for _ in 0..2 {
        let again = room.join(user(2), entry(99), at(500), &mut changes).unwrap();
        assert_eq!((again.new, again.place.entry, again.place.arrival, again.place.ahead), (false, entry(2), 2, Some(1)));
    }
    assert!(changes.is_empty());
    tick(&mut room, 1_000, PLENTY);
    let active = room.join(user(1), entry(99), at(1_000), &mut changes).unwrap();
    assert_eq!((active.new, active.place.entry, active.place.status), (false, entry(1), QueueStatus::Active));
    assert_eq!(room.counts(at(1_000)).waiting, 2);
}

#[test]
fn admits_first_come_first_served_up_to_max_active() {
    let mut room = room(admission(2, None), None, 5);
    assert_eq!(status(&room, 5, 0), (QueueStatus::Waiting, Some(4)));
    assert_eq!(tick(&mut room, 0, PLENTY), [entry(1), entry(2)]);
    assert_eq!(status(&room, 1, 0), (QueueStatus::Active, Some(0)));
    assert_eq!(status(&room, 3, 0), (QueueStatus::Waiting, Some(0)));
    assert_eq!(tick(&mut room, 10, PLENTY), []);
    let mut changes = Vec::new();
    room.leave(entry(3), at(20), &mut changes);
    room.finish(user(2), at(20), at(20), &mut changes);
    assert_eq!(
        changes.iter().map(|c| (c.entry, c.status)).collect::<Vec<_>>(),
        [(entry(3), QueueStatus::Left), (entry(2), QueueStatus::Done)]
    );
    assert_eq!(tick(&mut room, 30, PLENTY), [entry(4)], "a slot comes back at once, and whoever left is passed over");
    assert_eq!(room.place(entry(5), at(30)).unwrap().arrival, 5, "places are fixed");
}

#[test]
fn expiry_takes_effect_at_its_instant_before_any_tick() {
    let mut room = room(admission(1, None), None, 2);
    tick(&mut room, 0, PLENTY);
    let over = i64::from(TTL_S) * 1_000;
    assert_eq!(status(&room, 1, over - 1), (QueueStatus::Active, Some(0)));
    assert_eq!(room.place(entry(1), at(0)).unwrap().active_until, Some(at(over)));
    assert_eq!(status(&room, 1, over), (QueueStatus::Expired, None));
    let counts = room.counts(at(over));
    assert_eq!((counts.active, counts.expired, counts.waiting), (0, 1, 1));
    room.finish(user(1), at(over), at(over), &mut Vec::new());
    assert_eq!(status(&room, 1, over), (QueueStatus::Expired, None), "a turn that is over is not finished");
    room.leave(entry(1), at(over), &mut Vec::new());
    assert_eq!(status(&room, 1, over), (QueueStatus::Expired, None), "nor left");
    assert_eq!(tick(&mut room, over, PLENTY), [entry(2)]);
    assert_eq!((room.counts(at(over)).expired, room.counts(at(over)).left), (1, 0));
}

#[test]
fn a_tick_writes_the_turns_that_are_over_and_gives_their_slots_away() {
    let mut room = room(admission(1, None), None, 2);
    tick(&mut room, 0, PLENTY);
    let over = i64::from(TTL_S) * 1_000;
    let mut changes = Vec::new();
    room.tick(at(over - 1), PLENTY, &mut changes);
    assert!(changes.is_empty(), "{changes:?}");
    room.tick(at(over), PLENTY, &mut changes);
    let written: Vec<_> = changes.iter().map(|change| (change.entry, change.status, change.ended_at)).collect();
    assert_eq!(written, [(entry(1), QueueStatus::Expired, Some(at(over))), (entry(2), QueueStatus::Active, None)]);
}

#[test]
fn a_payment_ends_the_turn_it_was_made_in_and_no_later_one() {
    for (paid_at, expected) in [(999, QueueStatus::Active), (1_000, QueueStatus::Done), (1_001, QueueStatus::Done)] {
        let mut room = room(admission(1, None), None, 1);
        tick(&mut room, 1_000, PLENTY);
        room.finish(user(1), at(paid_at), at(1_002), &mut Vec::new());
        assert_eq!(status(&room, 1, 1_002).0, expected, "paid at {paid_at}");
    }
}

#[test]
fn joining_after_the_end_is_a_new_entry_at_the_end() {
    let over = i64::from(TTL_S) * 1_000;
    for (ended, how) in [(QueueStatus::Left, 0), (QueueStatus::Done, 1), (QueueStatus::Expired, 2)] {
        let mut room = room(admission(1, None), None, 3);
        tick(&mut room, 0, PLENTY);
        let mut changes = Vec::new();
        match how {
            0 => room.leave(entry(1), at(1), &mut changes),
            1 => room.finish(user(1), at(1), at(1), &mut changes),
            _ => {}
        }
        let again = room.join(user(1), entry(9), at(over), &mut changes).unwrap();
        assert_eq!((again.new, again.place.entry, again.place.arrival), (true, entry(9), 4), "{ended:?}");
        assert_eq!(status(&room, 1, over).0, ended);
        assert!(changes.iter().any(|change| change.entry == entry(1) && change.status == ended), "{ended:?} was not written");
        assert_eq!(room.entry_of(user(1)), Some(entry(9)));
        room.leave(entry(1), at(over), &mut changes);
        assert_eq!(status(&room, 1, over).0, ended, "what ended stays as it ended");
    }
}

#[test]
fn nobody_is_promoted_before_the_sale_starts() {
    let mut room = room(admission(5, None), Some(at(1_000)), 2);
    assert_eq!(tick(&mut room, 999, PLENTY), []);
    assert_eq!(status(&room, 2, 999), (QueueStatus::PreSale, None));
    assert_eq!(room.place(entry(2), at(999)).unwrap().sale_starts_at, Some(at(1_000)));
    assert_eq!(status(&room, 2, 1_000), (QueueStatus::Waiting, Some(1)));
    assert_eq!(tick(&mut room, 1_000, PLENTY), [entry(1), entry(2)]);
}

#[test]
fn rate_and_max_active_hold_together() {
    let mut room = room(admission(5, Some((2, 1))), None, 9);
    for (ms, promoted) in [(900, 2), (1_000, 0), (1_899, 0), (1_900, 2), (2_900, 1), (3_900, 0)] {
        assert_eq!(tick(&mut room, ms, PLENTY).len(), promoted, "at {ms} ms");
    }
    assert_eq!(room.counts(at(3_900)).active, 5);
    let per_s = room.counts(at(3_900)).admitted_per_s;
    assert!((per_s - 5.0 / RATE_WINDOW_S as f64).abs() < 1e-9, "{per_s}");
}

#[test]
fn the_longest_interval_is_remembered_whole() {
    let hour = i64::from(INTERVAL_S_MAX) * 1_000;
    let mut room = room(admission(5, Some((1, INTERVAL_S_MAX))), None, 3);
    for (ms, promoted) in [(0, 1), (RATE_WINDOW_S * 1_000 + 1, 0), (hour / 2, 0), (hour - 1, 0), (hour, 1)] {
        assert_eq!(tick(&mut room, ms, PLENTY).len(), promoted, "at {ms} ms");
    }
}

#[test]
fn only_who_waits_for_a_turn_is_told_how_long() {
    let mut room = room(admission(1, None), None, 2);
    tick(&mut room, 0, PLENTY);
    let eta = |room: &Room, n| room.place(entry(n), at(1)).unwrap().eta;
    assert!(eta(&room, 2).is_some() && eta(&room, 1).is_none());
    tick(&mut room, 1, Stock { obtainable: 0, linked: true });
    assert_eq!((status(&room, 2, 1).0, eta(&room, 2)), (QueueStatus::SoldOut, None));
}

#[test]
fn stock_links_active_places_to_seats_that_can_be_had() {
    let mut room = room(admission(100, None), None, 9);
    assert_eq!(tick(&mut room, 0, Stock { obtainable: 3, linked: true }).len(), 3);
    assert_eq!(tick(&mut room, 1, Stock { obtainable: 3, linked: true }).len(), 0);
    assert_eq!(tick(&mut room, 2, Stock { obtainable: 2, linked: true }).len(), 0);
    assert_eq!(tick(&mut room, 3, Stock { obtainable: 4, linked: true }).len(), 1);
    assert_eq!(tick(&mut room, 4, Stock { obtainable: 1, linked: false }).len(), 5, "not linked: only none at all stops it");
}

#[test]
fn sold_out_stops_promotion_keeps_places_and_is_undone() {
    let mut room = room(admission(1, None), None, 3);
    tick(&mut room, 0, PLENTY);
    for linked in [true, false] {
        assert_eq!(tick(&mut room, 1, Stock { obtainable: 0, linked }), []);
        assert_eq!(status(&room, 1, 1), (QueueStatus::Active, Some(0)), "who is active stays so");
        assert_eq!(status(&room, 3, 1), (QueueStatus::SoldOut, Some(1)));
    }
    room.finish(user(1), at(2), at(2), &mut Vec::new());
    for linked in [true, false] {
        assert_eq!(tick(&mut room, 2, Stock { obtainable: 0, linked }), []);
    }
    assert_eq!(tick(&mut room, 3, PLENTY), [entry(2)], "a returned seat undoes it");
    assert_eq!(status(&room, 3, 3), (QueueStatus::Waiting, Some(0)));
}

#[test]
fn pausing_stops_promotion_and_draining_stops_joining() {
    let mut room = room(mode(AdmissionMode::Paused), None, 2);
    assert_eq!(tick(&mut room, 0, PLENTY), []);
    assert!(room.join(user(3), entry(3), at(0), &mut Vec::new()).unwrap().new, "joining goes on");
    room.set_admission(mode(AdmissionMode::Draining));
    assert!(room.join(user(4), entry(4), at(0), &mut Vec::new()).is_none());
    assert!(!room.join(user(3), entry(9), at(0), &mut Vec::new()).unwrap().new, "who is there keeps the place");
    assert_eq!(tick(&mut room, 1, PLENTY), [entry(1), entry(2), entry(3)], "who waits is still admitted");
    room.set_admission(mode(AdmissionMode::Running));
    assert!(room.join(user(4), entry(4), at(2), &mut Vec::new()).unwrap().new);
    assert_eq!(tick(&mut room, 2, PLENTY), [entry(4)]);
}

#[test]
fn one_tick_is_a_capped_step() {
    let people = u128::from(PROMOTIONS_PER_TICK_MAX) + 1;
    let mut room = room(admission(MAX_ACTIVE, None), None, people);
    let stock = Stock { obtainable: u64::MAX, linked: true };
    assert_eq!(tick(&mut room, 0, stock).len() as u32, PROMOTIONS_PER_TICK_MAX);
    assert_eq!(tick(&mut room, 1, stock).len(), 1);
}

const MAX_ACTIVE: u32 = crate::admission::MAX_ACTIVE_MAX;

#[test]
fn ended_entries_are_forgotten_after_a_day() {
    let mut room = room(admission(1, None), None, 2);
    room.leave(entry(1), at(0), &mut Vec::new());
    tick(&mut room, ENDED_KEPT_S * 1_000, PLENTY);
    assert_eq!(status(&room, 1, 0).0, QueueStatus::Left);
    tick(&mut room, ENDED_KEPT_S * 1_000 + 1, PLENTY);
    assert_eq!(room.place(entry(1), at(0)), None);
    assert_eq!(room.entry_of(user(1)), None);
    assert_eq!(room.counts(at(0)).left, 1, "and still counted");
}

#[test]
fn whoever_came_back_is_not_forgotten_with_the_earlier_entry() {
    let mut room = room(admission(1, None), None, 1);
    room.leave(entry(1), at(0), &mut Vec::new());
    room.join(user(1), entry(2), at(0), &mut Vec::new());
    tick(&mut room, ENDED_KEPT_S * 1_000 + 1, Stock { obtainable: 0, linked: true });
    assert_eq!(room.place(entry(1), at(0)), None);
    assert_eq!(room.entry_of(user(1)), Some(entry(2)));
}

#[test]
fn a_restored_room_forgets_by_when_entries_ended_not_by_place() {
    let mut before = room(admission(1, None), None, 2);
    let mut changes = Vec::new();
    before.leave(entry(2), at(0), &mut changes);
    before.leave(entry(1), at(5_000), &mut changes);
    changes.sort_unstable_by_key(|change| change.place);
    let mut restored = Room::new(admission(1, None), None, TTL_S);
    changes.into_iter().for_each(|record| restored.restore(record));
    restored.restored();
    tick(&mut restored, ENDED_KEPT_S * 1_000 + 1, PLENTY);
    assert_eq!((restored.entry_of(user(1)), restored.entry_of(user(2))), (Some(entry(1)), None));
}

#[test]
fn a_restored_room_keeps_places_over_gaps() {
    let mut before = room(admission(1, None), None, 5);
    let mut changes = Vec::new();
    before.tick(at(0), PLENTY, &mut changes);
    let record = |n| before.entries[&entry(n)].clone();
    let mut restored = Room::new(admission(2, None), None, TTL_S);
    // The places 1 and 4 are of entries that are kept no more.
    [record(2), record(3), record(5)].into_iter().for_each(|record| restored.restore(record));
    restored.restored();
    assert_eq!(status(&restored, 5, 0), (QueueStatus::Waiting, Some(2)));
    assert_eq!(tick(&mut restored, 1, PLENTY), [entry(2), entry(3)]);
    assert_eq!(status(&restored, 5, 1), (QueueStatus::Waiting, Some(0)));
    restored.leave(entry(5), at(2), &mut changes);
    assert_eq!(restored.counts(at(2)).waiting, 0);
    assert_eq!(restored.join(user(9), entry(9), at(2), &mut changes).unwrap().place.arrival, 6);
}

#[test]
fn counts_and_places_go_on_from_what_is_no_longer_kept_one_by_one() {
    let mut restored = Room::new(admission(1, None), None, TTL_S);
    restored.restore_counts(5, 3, 2);
    restored.restore_last_place(10);
    restored.restored();
    let counts = restored.counts(at(0));
    assert_eq!((counts.served, counts.expired, counts.left, counts.waiting), (5, 3, 2, 0));
    assert_eq!(restored.join(user(1), entry(1), at(0), &mut Vec::new()).unwrap().place.arrival, 11);
}

#[test]
fn polling_is_soon_for_who_is_next_and_seldom_far_behind() {
    let place = |status, ahead| Place {
        entry: entry(1),
        user: user(1),
        status,
        arrival: 1,
        ahead,
        active_until: None,
        eta: None,
        sale_starts_at: Some(at(60_000)),
    };
    for (status, ahead, now, expected) in [
        (QueueStatus::Waiting, Some(0), 0, Some(1_000)),
        (QueueStatus::Waiting, Some(500), 0, Some(1_500)),
        (QueueStatus::Waiting, Some(u64::MAX - 1_000), 0, Some(10_000)),
        (QueueStatus::SoldOut, Some(0), 0, Some(10_000)),
        (QueueStatus::PreSale, None, 0, Some(10_000)),
        (QueueStatus::PreSale, None, 56_000, Some(2_000)),
        (QueueStatus::PreSale, None, 59_999, Some(1_000)),
        (QueueStatus::Active, Some(0), 0, Some(10_000)),
        (QueueStatus::Done, None, 0, None),
        (QueueStatus::Expired, None, 0, None),
        (QueueStatus::Left, None, 0, None),
    ] {
        assert_eq!(poll_after_ms(&place(status, ahead), at(now)), expected, "{status:?} {ahead:?} at {now}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(u128),
    Leave(u128),
    Finish(u128),
    Tick { obtainable: u64, linked: bool },
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u128..12).prop_map(Step::Join),
        1 => (0u128..12).prop_map(Step::Leave),
        1 => (0u128..12).prop_map(Step::Finish),
        4 => (prop_oneof![1 => 0u64..4, 3 => 4u64..20], any::<bool>()).prop_map(|(obtainable, linked)| Step::Tick { obtainable, linked }),
        4 => (0i64..900).prop_map(Step::Pass),
        1 => (0i64..40_000).prop_map(Step::Pass),
    ]
}

/// What a plain list makes of the changes a room hands out.
#[derive(Default)]
struct Watched {
    latest: HashMap<QueueEntryId, RoomChange>,
    promotions: Vec<Timestamp>,
    last_promoted: u64,
}

impl Watched {
    fn see(&mut self, changes: Vec<RoomChange>, now: Timestamp) {
        for change in changes {
            if change.status == QueueStatus::Active {
                assert!(change.place > self.last_promoted, "FIFO: {} after {}", change.place, self.last_promoted);
                let waits = |other: &RoomChange| other.status == QueueStatus::Waiting && other.place < change.place;
                assert!(!self.latest.values().any(waits), "FIFO: somebody before {} still waits", change.place);
                assert_eq!(change.promoted_at, Some(now));
                self.last_promoted = change.place;
                self.promotions.push(now);
            }
            if let Some(before) = self.latest.insert(change.entry, change.clone()) {
                assert_eq!((before.place, before.user, before.joined_at), (change.place, change.user, change.joined_at));
                assert!(!before.status.is_ended(), "an ended entry changed: {change:?}");
            }
        }
    }

    fn able_to_hold(&self, now: Timestamp) -> u64 {
        let able = |change: &&RoomChange| change.status == QueueStatus::Active && change.active_until.is_some_and(|until| until > now);
        self.latest.values().filter(able).count() as u64
    }

    fn with(&self, status: QueueStatus) -> u64 {
        self.latest.values().filter(|change| change.status == status).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// I4, order, fixed places and counts; and a room put back from its records goes on as if nothing had happened.
    #[test]
    fn never_too_many_and_restored_as_it_was(
        max_active in 1u32..6,
        rate in prop::option::of((1u32..4, 1u32..4)),
        sale in prop::option::of(0i64..5_000),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let terms = admission(max_active, rate);
        let mut room = Room::new(terms, sale.map(at), TTL_S);
        let (mut now, mut next, mut watched) = (0i64, 0u128, Watched::default());
        for step in steps {
            let mut changes = Vec::new();
            match step {
                Step::Join(n) => {
                    let mine = |change: &&RoomChange| change.user == user(n);
                    let before = watched.latest.values().filter(mine).max_by_key(|change| change.place).cloned();
                    let reads = before.as_ref().and_then(|change| room.place(change.entry, at(now)));
                    next += 1;
                    let entered = room.join(user(n), entry(next), at(now), &mut changes).unwrap();
                    match reads.filter(|place| !place.status.is_ended()) {
                        Some(place) => {
                            prop_assert_eq!(&entered, &Entered { place, new: false });
                            prop_assert!(changes.is_empty());
                        }
                        None => {
                            let last = watched.latest.values().map(|change| change.place).max().unwrap_or(0);
                            prop_assert_eq!((entered.new, entered.place.arrival), (true, last + 1));
                        }
                    }
                }
                Step::Leave(n) => {
                    if let Some(entry) = room.entry_of(user(n)) {
                        room.leave(entry, at(now), &mut changes);
                        prop_assert!(room.place(entry, at(now)).unwrap().status.is_ended());
                    }
                }
                Step::Finish(n) => room.finish(user(n), at(now), at(now), &mut changes),
                Step::Tick { obtainable, linked } => {
                    room.tick(at(now), Stock { obtainable, linked }, &mut changes);
                    let promoted = changes.iter().filter(|change| change.status == QueueStatus::Active).count() as u64;
                    let active = room.counts(at(now)).active;
                    prop_assert!(promoted == 0 || !linked || active <= obtainable, "{} active for {} seats", active, obtainable);
                    prop_assert!(promoted == 0 || sale.is_none_or(|start| start <= now), "before the sale");
                }
                Step::Pass(ms) => now += ms,
            }
            watched.see(changes, at(now));

            let able = watched.able_to_hold(at(now));
            prop_assert!(able <= u64::from(max_active), "I4: {} able to hold", able);
            if let Some((count, seconds)) = rate {
                let from = at(now) - TimeDelta::seconds(i64::from(seconds));
                let within = watched.promotions.iter().filter(|promoted| **promoted > from).count();
                prop_assert!(within <= count as usize, "I4: {} admitted within {} s", within, seconds);
            }
            let counts = room.counts(at(now));
            let overdue = watched.with(QueueStatus::Active) - able;
            prop_assert_eq!(
                (counts.waiting, counts.active, counts.served, counts.left, counts.expired),
                (
                    watched.with(QueueStatus::Waiting),
                    able,
                    watched.with(QueueStatus::Done),
                    watched.with(QueueStatus::Left),
                    watched.with(QueueStatus::Expired) + overdue,
                )
            );
            for change in watched.latest.values() {
                let place = room.place(change.entry, at(now)).unwrap();
                prop_assert_eq!(place.arrival, change.place);
                if place.status == QueueStatus::Waiting {
                    let before = |other: &&RoomChange| other.status == QueueStatus::Waiting && other.place < change.place;
                    prop_assert_eq!(place.ahead, Some(watched.latest.values().filter(before).count() as u64));
                }
            }
        }

        let mut records: Vec<_> = watched.latest.values().cloned().collect();
        records.sort_unstable_by_key(|record| record.place);
        let mut restored = Room::new(terms, sale.map(at), TTL_S);
        records.iter().cloned().for_each(|record| restored.restore(record));
        restored.restored();
        // Whether it is sold out is known from the first tick on.
        for ms in [0, 1, 500, 1_000, 3_000, i64::from(TTL_S) * 1_000] {
            let instant = now + ms;
            prop_assert_eq!(tick(&mut restored, instant, PLENTY), tick(&mut room, instant, PLENTY), "promoted after {} ms", ms);
            prop_assert_eq!(restored.counts(at(instant)), room.counts(at(instant)));
            for record in &records {
                prop_assert_eq!(restored.place(record.entry, at(instant)), room.place(record.entry, at(instant)));
                prop_assert_eq!(restored.entry_of(record.user), room.entry_of(record.user));
            }
        }
        let newcomer = |room: &mut Room| room.join(user(99), entry(9_999), at(now + 70_000), &mut Vec::new());
        prop_assert_eq!(newcomer(&mut restored), newcomer(&mut room), "the next place goes on where it was");
    }
}
