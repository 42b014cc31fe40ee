//! What two instances of one room must agree on: at once when they have to, by the next tick otherwise.

use std::collections::HashSet;
use std::sync::Arc;

use boxoffice_domain::waiting::{Extended, Health};
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Place, QueueEntryId, QueueStatus, Timestamp};
use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::super::build::{admission, fresh, user};
use super::case::{PLENTY, RoomCase, RoomFixture, at_most};
use crate::{RoomError, WaitingRoom};

/// What two reads of the same entry must have in common.
fn seen(place: Option<Place>) -> Option<(QueueStatus, u64, Option<u64>, Option<Timestamp>)> {
    place.map(|place| (place.status, place.arrival, place.ahead, place.active_until))
}

impl RoomCase {
    fn both(&self) -> [&Arc<dyn WaitingRoom>; 2] {
        [&self.room, &self.other]
    }

    async fn touch(&self, room: &Arc<dyn WaitingRoom>, entry: QueueEntryId) -> Option<Place> {
        room.touch(self.concert, entry).await.expect("a room")
    }
}

/// I4 is judged here: every answer of any instance before counts.
pub async fn what_one_instance_was_answered_the_other_touches(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let ann = case.join(user()).await;
    assert_eq!(seen(case.touch(&case.other, ann.entry).await), seen(Some(ann.clone())));
    case.tick(PLENTY).await;
    let active = case.touch(&case.other, ann.entry).await.expect("a place");
    assert_eq!(active.status, QueueStatus::Active);
    let Extended::To(longer) = case.other.extend(case.concert, ann.entry, active.active_until.expect("a turn")).await.expect("an answer")
    else {
        panic!("a longer turn")
    };
    let here = case.touch(&case.room, ann.entry).await.expect("a place");
    assert_eq!(here.active_until, longer.active_until);
    case.other.finish(case.concert, ann.user, Timestamp::MAX_UTC).await.expect("finished");
    assert_eq!(case.touch(&case.room, ann.entry).await.expect("a place").status, QueueStatus::Done);
    let again = case.enter(&case.other, ann.user).await;
    assert!(again.new);
    case.leave(again.place.entry).await;
    assert_eq!(case.touch(&case.other, again.place.entry).await.expect("a place").status, QueueStatus::Left);
}

pub async fn poll_on_the_other_instance_is_a_tick_behind_at_most(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let (ann, ben) = (case.join(user()).await, case.join(user()).await);
    let poll = async |entry| case.other.place(case.concert, entry).await.expect("a room").expect("a place");
    assert_eq!(poll(ben.entry).await.ahead, Some(1), "one that is not known is looked for at once");
    assert_eq!(case.tick(PLENTY).await.promoted, 1);
    assert_eq!(case.other.tick(case.concert, PLENTY).await.expect("a tick").promoted, 0);
    assert_eq!((poll(ann.entry).await.status, poll(ben.entry).await.ahead), (QueueStatus::Active, Some(0)));
    case.leave(ann.entry).await;
    // The slot is given away by whichever instance comes first, within two of its ticks.
    let mut promoted = 0;
    for _ in 0..2 {
        promoted += case.other.tick(case.concert, PLENTY).await.expect("a tick").promoted;
    }
    assert_eq!((promoted, poll(ben.entry).await.status), (1, QueueStatus::Active));
    assert_eq!(case.tick(PLENTY).await.promoted, 0, "given away once");
}

pub async fn joins_over_two_instances_are_distinct_places(fixture: RoomFixture) {
    const USERS: u64 = 3_000;
    let case = RoomCase::open(fixture, admission()).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let case = Arc::clone(&case);
        tasks.spawn(async move { case.enter(case.both()[at as usize % 2], user()).await });
    }
    let mut all = tasks.join_all().await;
    assert!(all.iter().all(|entered| entered.new));
    all.sort_unstable_by_key(|entered| entered.place.arrival);
    let arrivals: Vec<_> = all.iter().map(|entered| entered.place.arrival).collect();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>(), "distinct places, none left out");
    for entered in all.iter().step_by(197) {
        for room in case.both() {
            let place = case.touch(room, entered.place.entry).await.expect("a place");
            assert_eq!((place.arrival, place.ahead), (entered.place.arrival, Some(entered.place.arrival - 1)));
        }
    }
    assert_eq!(case.tick(PLENTY).await.promoted, 100);
    for (at, entered) in all.iter().enumerate().take(110) {
        let expected = if at < 100 { QueueStatus::Active } else { QueueStatus::Waiting };
        assert_eq!(case.touch(&case.other, entered.place.entry).await.map(|place| place.status), Some(expected), "place {}", at + 1);
    }
}

pub async fn joins_of_one_user_over_two_instances_are_one_place(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, admission()).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for at in 0..400 {
        let case = Arc::clone(&case);
        tasks.spawn(async move { case.enter(case.both()[at % 2], ann).await });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|entered| entered.new).count(), 1);
    assert_eq!(all.iter().map(|entered| (entered.place.entry, entered.place.arrival)).collect::<HashSet<_>>().len(), 1);
}

pub async fn admission_set_on_one_instance_is_obeyed_by_both(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, admission()).await;
    case.join_many(10).await;
    case.set(Admission { mode: AdmissionMode::Paused, ..at_most(4) }).await;
    for _ in 0..2 {
        assert_eq!(case.other.tick(case.concert, PLENTY).await.expect("a tick").promoted, 0, "paused");
    }
    assert_eq!(case.other.admission(case.concert).await.expect("an admission").mode, AdmissionMode::Paused);
    case.set(at_most(4)).await;
    let mut promoted = 0;
    for _ in 0..2 {
        for room in case.both() {
            promoted += room.tick(case.concert, PLENTY).await.expect("a tick").promoted;
        }
    }
    assert_eq!(promoted, 4);
    case.set(Admission { mode: AdmissionMode::Draining, ..at_most(4) }).await;
    let refused = case.other.join(case.concert, user(), None, fresh()).await;
    assert!(matches!(refused, Err(RoomError::Closed)), "{refused:?}");
}

pub async fn admission_set_by_two_instances_at_once_is_set_by_one(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(5)).await;
    let mut was = at_most(6);
    case.set(was).await;
    for round in 0..10 {
        let (one, two) = (at_most(10 + round), at_most(100 + round));
        let (here, there) =
            tokio::join!(case.room.set_admission(case.concert, was, one), case.other.set_admission(case.concert, was, two),);
        let (here, there) = (here.expect("an answer"), there.expect("an answer"));
        assert!(here != there, "one of them, in round {round}");
        was = if here { one } else { two };
        for room in case.both() {
            assert_eq!(room.admission(case.concert).await.expect("an admission"), was);
        }
    }
}

/// Both instances promote, end and admit at the same time: they agree on every entry, and count none twice.
pub async fn both_instances_agree_after_a_tumult(fixture: RoomFixture) {
    const USERS: usize = 400;
    const MAX_ACTIVE: u32 = 30;
    let case = RoomCase::open(fixture, at_most(MAX_ACTIVE)).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let case = Arc::clone(&case);
        tasks.spawn(async move {
            let (room, concert, ann) = (case.both()[at % 2], case.concert, user());
            let entry = case.enter(room, ann).await.place.entry;
            match at % 5 {
                0 => room.leave(concert, entry).await.expect("left"),
                1 => drop(room.tick(concert, PLENTY).await.expect("a tick")),
                2 => room.finish(concert, ann, Timestamp::MAX_UTC).await.expect("finished"),
                3 => drop(room.extend(concert, entry, Timestamp::MAX_UTC).await.expect("an answer")),
                _ => drop(room.place(concert, entry).await.expect("a room")),
            }
            entry
        });
    }
    let entries = tasks.join_all().await;
    let mut arrivals = HashSet::new();
    for entry in entries {
        let here = seen(case.touch(&case.room, entry).await);
        assert_eq!(here, seen(case.touch(&case.other, entry).await));
        assert!(arrivals.insert(here.expect("a place").1), "a place of two entries");
    }
    let counts = case.counts().await;
    assert_eq!(case.other.counts(case.concert).await.expect("counts"), counts);
    assert!(counts.active <= u64::from(MAX_ACTIVE), "{counts:?}");
    assert_eq!(counts.waiting + counts.active + counts.served + counts.left + counts.expired, USERS as u64);
}

/// Also where the rate does not adapt.
pub async fn how_many_may_be_active_follows_the_health_of_the_instances(fixture: RoomFixture) {
    const USERS: usize = 300;
    const TICKS_MAX: u32 = 20;
    let case = RoomCase::open(fixture, Admission { auto: true, ..at_most(1_000_000) }).await;
    case.join_many(USERS).await;
    case.tick(PLENTY).await;
    let at_first = case.counts().await.active;
    assert!(at_first < USERS as u64, "it begins with less than all");
    for room in case.both() {
        room.report_health(Health { p99_ms: 1, errors_permille: 0, samples: 100 });
    }
    for _ in 0..TICKS_MAX {
        case.shop.advance(TimeDelta::seconds(2));
        case.tick(PLENTY).await;
        if case.counts().await.active == USERS as u64 {
            return;
        }
    }
    panic!("{at_first} active at first, {:?} now", case.counts().await);
}

/// The clock was an hour ahead, or ten seconds: no entry waits for it to come there again, and nothing that was over is
/// not.
pub async fn a_clock_that_is_set_back_delays_no_entry(fixture: RoomFixture) {
    const TICKS_MAX: u32 = 10;
    let rate = Some(PerInterval { count: 2, seconds: 1 });
    let case = RoomCase::open(fixture, Admission { per_interval: rate, ..at_most(100) }).await;
    let places = case.join_many(12).await;
    assert_eq!(case.tick(PLENTY).await.promoted, 2);
    let turn = case.place(places[0].entry).await.active_until.expect("a turn") - case.shop.now().await;
    case.leave(places[0].entry).await;
    for back in [TimeDelta::hours(1), TimeDelta::seconds(10)] {
        let before = case.counts().await.waiting;
        case.shop.advance(-back);
        // The window begins anew: no further entry is promoted within less than a second.
        let (mut promoted, mut ticks) = (0, 0);
        while promoted == 0 && ticks < TICKS_MAX {
            promoted = case.tick(PLENTY).await.promoted;
            case.shop.advance(TimeDelta::milliseconds(300));
            ticks += 1;
        }
        assert!(promoted == 2 && ticks > 1, "{promoted} after {ticks} ticks, {back} back");
        assert_eq!(case.counts().await.waiting, before - 2);
        for room in case.both() {
            let left = case.touch(room, places[0].entry).await.expect("a place").status;
            assert_eq!(left, QueueStatus::Left, "what is over does not come back with the clock");
            let until = case.touch(room, places[1].entry).await.expect("a place").active_until.expect("a turn");
            assert!(until - case.shop.now().await <= turn, "a turn is as long as it was");
        }
    }
    let last = case.place(places[1].entry).await;
    case.advance_to_end(&last).await;
    assert_eq!(case.status(places[1].entry).await, QueueStatus::Expired, "by the clock as it is now");
}

pub async fn a_turn_that_never_had_a_connection_is_not_ended_for_lack_of_one(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let ann = case.join(user()).await;
    case.tick(PLENTY).await;
    let turn = case.place(ann.entry).await.active_until.expect("a turn") - case.shop.now().await;
    case.shop.advance(turn - TimeDelta::seconds(10));
    let ticked = case.tick(PLENTY).await;
    assert_eq!((ticked.expired, ticked.abandoned.len()), (0, 0));
    assert_eq!(case.status(ann.entry).await, QueueStatus::Active);
}
