//! What two instances of one room must agree on: at once when they have to, by the next tick otherwise.

use super::*;

/// What two looks at the same entry must have in common.
fn told(place: Option<Place>) -> Option<(QueueStatus, u64, Option<u64>, Option<Timestamp>)> {
    place.map(|place| (place.status, place.arrival, place.ahead, place.active_until))
}

impl Hall {
    fn both(&self) -> [&Arc<dyn WaitingRoom>; 2] {
        [&self.room, &self.other]
    }

    async fn touch(&self, room: &Arc<dyn WaitingRoom>, entry: QueueEntryId) -> Option<Place> {
        room.touch(self.concert, entry).await.expect("a room")
    }
}

/// I4 is judged here: whatever was answered before, by whichever instance, counts.
pub async fn what_one_instance_was_answered_the_other_touches(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let ann = hall.join(user()).await;
    assert_eq!(told(hall.touch(&hall.other, ann.entry).await), told(Some(ann.clone())));
    hall.tick(PLENTY).await;
    let active = hall.touch(&hall.other, ann.entry).await.expect("a place");
    assert_eq!(active.status, QueueStatus::Active);
    let Extended::To(longer) = hall.other.extend(hall.concert, ann.entry, active.active_until.expect("a turn")).await.expect("an answer")
    else {
        panic!("a longer turn")
    };
    let here = hall.touch(&hall.room, ann.entry).await.expect("a place");
    assert_eq!(here.active_until, longer.active_until);
    hall.other.finish(hall.concert, ann.user, Timestamp::MAX_UTC).await.expect("finished");
    assert_eq!(hall.touch(&hall.room, ann.entry).await.expect("a place").status, QueueStatus::Done);
    let again = hall.enter(&hall.other, ann.user).await;
    assert!(again.new);
    hall.leave(again.place.entry).await;
    assert_eq!(hall.touch(&hall.other, again.place.entry).await.expect("a place").status, QueueStatus::Left);
}

pub async fn poll_on_the_other_instance_is_a_tick_behind_at_most(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let (ann, ben) = (hall.join(user()).await, hall.join(user()).await);
    let poll = async |entry| hall.other.place(hall.concert, entry).await.expect("a room").expect("a place");
    assert_eq!(poll(ben.entry).await.ahead, Some(1), "one that is not known is looked for at once");
    assert_eq!(hall.tick(PLENTY).await.promoted, 1);
    assert_eq!(hall.other.tick(hall.concert, PLENTY).await.expect("a tick").promoted, 0);
    assert_eq!((poll(ann.entry).await.status, poll(ben.entry).await.ahead), (QueueStatus::Active, Some(0)));
    hall.leave(ann.entry).await;
    // The slot is given away by whichever instance comes first, within two of its ticks.
    let mut promoted = 0;
    for _ in 0..2 {
        promoted += hall.other.tick(hall.concert, PLENTY).await.expect("a tick").promoted;
    }
    assert_eq!((promoted, poll(ben.entry).await.status), (1, QueueStatus::Active));
    assert_eq!(hall.tick(PLENTY).await.promoted, 0, "given away once");
}

pub async fn joins_over_two_instances_are_distinct_places(fixture: RoomFixture) {
    const USERS: u64 = 3_000;
    let hall = Hall::open(fixture, admission()).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let hall = Arc::clone(&hall);
        tasks.spawn(async move { hall.enter(hall.both()[at as usize % 2], user()).await });
    }
    let mut all = tasks.join_all().await;
    assert!(all.iter().all(|entered| entered.new));
    all.sort_unstable_by_key(|entered| entered.place.arrival);
    let arrivals: Vec<_> = all.iter().map(|entered| entered.place.arrival).collect();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>(), "distinct places, none left out");
    for entered in all.iter().step_by(197) {
        for room in hall.both() {
            let place = hall.touch(room, entered.place.entry).await.expect("a place");
            assert_eq!((place.arrival, place.ahead), (entered.place.arrival, Some(entered.place.arrival - 1)));
        }
    }
    assert_eq!(hall.tick(PLENTY).await.promoted, 100);
    for (at, entered) in all.iter().enumerate().take(110) {
        let expected = if at < 100 { QueueStatus::Active } else { QueueStatus::Waiting };
        assert_eq!(hall.touch(&hall.other, entered.place.entry).await.map(|place| place.status), Some(expected), "place {}", at + 1);
    }
}

pub async fn joins_of_one_user_over_two_instances_are_one_place(fixture: RoomFixture) {
    let hall = Hall::open(fixture, admission()).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for at in 0..400 {
        let hall = Arc::clone(&hall);
        tasks.spawn(async move { hall.enter(hall.both()[at % 2], ann).await });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|entered| entered.new).count(), 1);
    assert_eq!(all.iter().map(|entered| (entered.place.entry, entered.place.arrival)).collect::<HashSet<_>>().len(), 1);
}

pub async fn admission_set_on_one_instance_is_obeyed_by_both(fixture: RoomFixture) {
    let hall = Hall::open(fixture, admission()).await;
    hall.join_many(10).await;
    hall.set(Admission { mode: AdmissionMode::Paused, ..at_most(4) }).await;
    for _ in 0..2 {
        assert_eq!(hall.other.tick(hall.concert, PLENTY).await.expect("a tick").promoted, 0, "paused");
    }
    assert_eq!(hall.other.admission(hall.concert).await.expect("an admission").mode, AdmissionMode::Paused);
    hall.set(at_most(4)).await;
    let mut promoted = 0;
    for _ in 0..2 {
        for room in hall.both() {
            promoted += room.tick(hall.concert, PLENTY).await.expect("a tick").promoted;
        }
    }
    assert_eq!(promoted, 4);
    hall.set(Admission { mode: AdmissionMode::Draining, ..at_most(4) }).await;
    let refused = hall.other.join(hall.concert, user(), None, fresh()).await;
    assert!(matches!(refused, Err(RoomError::Closed)), "{refused:?}");
}

pub async fn admission_set_by_two_instances_at_once_is_set_by_one(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(5)).await;
    let mut was = at_most(6);
    hall.set(was).await;
    for round in 0..10 {
        let (one, two) = (at_most(10 + round), at_most(100 + round));
        let (here, there) =
            tokio::join!(hall.room.set_admission(hall.concert, was, one), hall.other.set_admission(hall.concert, was, two),);
        let (here, there) = (here.expect("an answer"), there.expect("an answer"));
        assert!(here != there, "one of them, in round {round}");
        was = if here { one } else { two };
        for room in hall.both() {
            assert_eq!(room.admission(hall.concert).await.expect("an admission"), was);
        }
    }
}

/// Both instances promote, end and let in at the same time: they agree on everybody, and nobody was counted twice.
pub async fn both_instances_agree_after_a_tumult(fixture: RoomFixture) {
    const USERS: usize = 400;
    const MAX_ACTIVE: u32 = 30;
    let hall = Hall::open(fixture, at_most(MAX_ACTIVE)).await;
    let mut tasks = JoinSet::new();
    for at in 0..USERS {
        let hall = Arc::clone(&hall);
        tasks.spawn(async move {
            let (room, concert, ann) = (hall.both()[at % 2], hall.concert, user());
            let entry = hall.enter(room, ann).await.place.entry;
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
        let here = told(hall.touch(&hall.room, entry).await);
        assert_eq!(here, told(hall.touch(&hall.other, entry).await));
        assert!(arrivals.insert(here.expect("a place").1), "a place of two entries");
    }
    let counts = hall.counts().await;
    assert_eq!(hall.other.counts(hall.concert).await.expect("counts"), counts);
    assert!(counts.active <= u64::from(MAX_ACTIVE), "{counts:?}");
    assert_eq!(counts.waiting + counts.active + counts.served + counts.left + counts.expired, USERS as u64);
}

/// Also where the rate does not adapt.
pub async fn how_many_may_be_active_is_learnt_from_how_the_instances_fare(fixture: RoomFixture) {
    const USERS: usize = 300;
    const TICKS_MAX: u32 = 20;
    let hall = Hall::open(fixture, Admission { auto: true, ..at_most(1_000_000) }).await;
    hall.join_many(USERS).await;
    hall.tick(PLENTY).await;
    let at_first = hall.counts().await.active;
    assert!(at_first < USERS as u64, "it begins with less than all");
    for room in hall.both() {
        room.fares(Health { p99_ms: 1, errors_permille: 0, samples: 100 });
    }
    for _ in 0..TICKS_MAX {
        hall.shop.advance(TimeDelta::seconds(2));
        hall.tick(PLENTY).await;
        if hall.counts().await.active == USERS as u64 {
            return;
        }
    }
    panic!("{at_first} active at first, {:?} now", hall.counts().await);
}

/// The clock was an hour ahead, or ten seconds: nobody waits for it to come there again, and nothing that was over is
/// not.
pub async fn a_clock_that_is_set_back_keeps_nobody_waiting(fixture: RoomFixture) {
    const TICKS_MAX: u32 = 10;
    let rate = Some(PerInterval { count: 2, seconds: 1 });
    let hall = Hall::open(fixture, Admission { per_interval: rate, ..at_most(100) }).await;
    let places = hall.join_many(12).await;
    assert_eq!(hall.tick(PLENTY).await.promoted, 2);
    let turn = hall.place(places[0].entry).await.active_until.expect("a turn") - hall.shop.now().await;
    hall.leave(places[0].entry).await;
    for back in [TimeDelta::hours(1), TimeDelta::seconds(10)] {
        let before = hall.counts().await.waiting;
        hall.shop.advance(-back);
        // The window begins anew: nobody more has gone when less than a second has passed.
        let (mut promoted, mut ticks) = (0, 0);
        while promoted == 0 && ticks < TICKS_MAX {
            promoted = hall.tick(PLENTY).await.promoted;
            hall.shop.advance(TimeDelta::milliseconds(300));
            ticks += 1;
        }
        assert!(promoted == 2 && ticks > 1, "{promoted} after {ticks} ticks, {back} back");
        assert_eq!(hall.counts().await.waiting, before - 2);
        for room in hall.both() {
            let left = hall.touch(room, places[0].entry).await.expect("a place").status;
            assert_eq!(left, QueueStatus::Left, "what is over does not come back with the clock");
            let until = hall.touch(room, places[1].entry).await.expect("a place").active_until.expect("a turn");
            assert!(until - hall.shop.now().await <= turn, "a turn is as long as it was");
        }
    }
    let last = hall.place(places[1].entry).await;
    hall.advance_to_end(&last).await;
    assert_eq!(hall.status(places[1].entry).await, QueueStatus::Expired, "by the clock as it is now");
}

pub async fn connections_are_not_what_a_turn_ends_by_for_whoever_had_none(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let ann = hall.join(user()).await;
    hall.tick(PLENTY).await;
    let turn = hall.place(ann.entry).await.active_until.expect("a turn") - hall.shop.now().await;
    hall.shop.advance(turn - TimeDelta::seconds(10));
    let ticked = hall.tick(PLENTY).await;
    assert_eq!((ticked.expired, ticked.abandoned.len()), (0, 0));
    assert_eq!(hall.status(ann.entry).await, QueueStatus::Active);
}
