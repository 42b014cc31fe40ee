//! What every waiting room must do: one place for each user, in order of arrival, never too many (I4), and the same by
//! every instance.
//!
//! A turn's length is the room's own setting; the cases learn it from `active_until`. What else they rely on is said by
//! [`EXTENSIONS_MAX`] and [`LANE`].

mod together;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boxoffice_domain::draw;
use boxoffice_domain::waiting::{Entered, Extended, Health, RoomCounts, Ticked};
use boxoffice_domain::{
    Admission, AdmissionMode, ConcertId, Lane, PerInterval, Place, QueueEntryId, QueueStatus, Stock, Timestamp, UserId,
};
use chrono::TimeDelta;
use tokio::task::JoinSet;

pub use self::together::*;
use super::Fixture;
use super::build::{admission, fresh, user};
use super::shop::Shop;
use crate::{Opening, RoomError, WaitingRoom};

/// The most ticks until the list of a draw is closed, drawn, and its first have gone.
const STEPS_MAX: u32 = 5;
/// More seats than anybody here could take.
const PLENTY: Stock = Stock { obtainable: 1_000_000, linked: true };
/// How often a turn can be lengthened in the rooms of a [`RoomFixture`].
pub const EXTENSIONS_MAX: u32 = 1;
/// The lane beside the general one, and its share in thousandths.
pub const LANE: (&str, u16) = ("members", 300);

/// Two instances of the rooms of one fresh store, which obey the same.
pub struct RoomFixture {
    pub store: Fixture,
    pub room: Arc<dyn WaitingRoom>,
    pub other: Arc<dyn WaitingRoom>,
}

/// One test for each case: `room_contract!(make)`, where `async fn make() -> RoomFixture`.
#[macro_export]
macro_rules! room_contract {
    ($make:path) => {
        $crate::contract_cases!($make; room {
            room_that_was_not_opened_is_none
            joins_of_one_user_at_once_are_one_place
            joins_of_many_users_at_once_are_distinct_places
            promotion_is_in_order_of_arrival
            nobody_is_promoted_before_the_sale
            sale_that_starts_soon_opens_within_two_ticks
            never_more_active_than_allowed_nor_faster_than_the_rate
            stock_limits_the_active
            sold_out_stops_promotion_and_a_returned_seat_undoes_it
            pausing_draining_and_resuming
            admission_is_kept_when_the_room_is_opened_again
            admission_is_replaced_only_by_whoever_has_read_it
            turn_ends_at_its_instant_without_a_tick
            leaving_and_paying_end_an_entry
            joining_after_the_end_is_a_new_entry_at_the_end
            payment_told_again_does_not_end_a_later_turn
            turn_is_lengthened_as_often_as_may_be
            lanes_have_their_shares
            rooms_are_each_concerts_own
            what_one_instance_was_answered_the_other_touches
            poll_on_the_other_instance_is_a_tick_behind_at_most
            joins_over_two_instances_are_distinct_places
            joins_of_one_user_over_two_instances_are_one_place
            admission_set_on_one_instance_is_obeyed_by_both
            admission_set_by_two_instances_at_once_is_set_by_one
            both_instances_agree_after_a_tumult
            how_many_may_be_active_is_learnt_from_how_the_instances_fare
            a_clock_that_is_set_back_keeps_nobody_waiting
            connections_are_not_what_a_turn_ends_by_for_whoever_had_none
        });
    };
}

/// The room of one concert.
struct Hall {
    shop: Arc<Shop>,
    room: Arc<dyn WaitingRoom>,
    other: Arc<dyn WaitingRoom>,
    concert: ConcertId,
}

impl Hall {
    async fn open(fixture: RoomFixture, admission: Admission) -> Arc<Self> {
        Self::open_for_sale(fixture, admission, None).await
    }

    async fn open_for_sale(fixture: RoomFixture, admission: Admission, sale_in: Option<TimeDelta>) -> Arc<Self> {
        let RoomFixture { store, room, other } = fixture;
        let shop = Shop::open(store).await;
        let (concert, now) = (shop.concert, shop.now().await);
        let opening = Opening { concert, sale_starts_at: sale_in.map(|by| now + by), admission };
        for room in [&room, &other] {
            room.open(opening).await.expect("a room");
        }
        Arc::new(Self { shop, room, other, concert })
    }

    async fn join(&self, user: UserId) -> Place {
        self.enter(&self.room, user).await.place
    }

    async fn enter(&self, room: &Arc<dyn WaitingRoom>, user: UserId) -> Entered {
        room.join(self.concert, user, None, fresh()).await.expect("a place")
    }

    async fn join_many(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(self.join(user()).await);
        }
        places
    }

    async fn tick(&self, stock: Stock) -> Ticked {
        self.room.tick(self.concert, stock).await.expect("a tick")
    }

    /// As a poll sees it; the place where the truth is must agree.
    async fn place(&self, entry: QueueEntryId) -> Place {
        let place = self.room.place(self.concert, entry).await.expect("a room").expect("a place");
        let touched = self.room.touch(self.concert, entry).await.expect("a room").expect("a place");
        assert_eq!((touched.status, touched.arrival, touched.active_until), (place.status, place.arrival, place.active_until));
        place
    }

    async fn status(&self, entry: QueueEntryId) -> QueueStatus {
        self.place(entry).await.status
    }

    async fn counts(&self) -> RoomCounts {
        self.room.counts(self.concert).await.expect("counts")
    }

    async fn leave(&self, entry: QueueEntryId) {
        self.room.leave(self.concert, entry).await.expect("left");
    }

    async fn finish(&self, user: UserId) {
        self.finish_paid_at(user, Timestamp::MAX_UTC).await;
    }

    async fn finish_paid_at(&self, user: UserId, paid_at: Timestamp) {
        self.room.finish(self.concert, user, paid_at).await.expect("finished");
    }

    async fn set(&self, admission: Admission) {
        let was = self.room.admission(self.concert).await.expect("an admission");
        assert!(self.room.set_admission(self.concert, was, admission).await.expect("set"), "nobody else is at it");
    }

    /// Moves time past the instant at which this turn ends: what an instance takes for the log's time may be a round
    /// trip behind it.
    async fn advance_to_end(&self, place: &Place) {
        let left = place.active_until.expect("a turn") - self.shop.now().await;
        self.shop.advance(left.max(TimeDelta::zero()) + TimeDelta::seconds(2));
    }
}

fn promoted(promoted: u64) -> Ticked {
    Ticked { promoted, ..Ticked::default() }
}

fn at_most(max_active: u32) -> Admission {
    Admission { max_active, ..admission() }
}

pub async fn room_that_was_not_opened_is_none(fixture: RoomFixture) {
    let (room, concert) = (Arc::clone(&fixture.room), fresh());
    assert!(matches!(room.join(concert, user(), None, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.place(concert, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.touch(concert, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.tick(concert, PLENTY).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.counts(concert).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.admission(concert).await, Err(RoomError::NoRoom)));
    let hall = Hall::open(fixture, admission()).await;
    assert_eq!(hall.room.place(hall.concert, fresh()).await.expect("a room"), None, "an entry that is not known");
    assert_eq!(hall.room.touch(hall.concert, fresh()).await.expect("a room"), None);
    hall.leave(fresh()).await;
    hall.finish(user()).await;
    assert_eq!(hall.counts().await, RoomCounts::default());
}

pub async fn joins_of_one_user_at_once_are_one_place(fixture: RoomFixture) {
    let hall = Hall::open(fixture, admission()).await;
    hall.join_many(3).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let hall = Arc::clone(&hall);
        tasks.spawn(async move { hall.room.join(hall.concert, ann, None, fresh()).await.expect("a place") });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|entered| entered.new).count(), 1);
    let entries: HashSet<_> = all.iter().map(|entered| (entered.place.entry, entered.place.arrival)).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((all[0].place.user, all[0].place.arrival, all[0].place.ahead), (ann, 4, Some(3)));
    assert_eq!(hall.counts().await.waiting, 4);
    // Others come and go: the place stays, on whatever device.
    hall.join_many(2).await;
    let entered = hall.room.join(hall.concert, ann, None, fresh()).await.expect("a place");
    assert_eq!((entered.new, entered.place), (false, all[0].place.clone()));
}

pub async fn joins_of_many_users_at_once_are_distinct_places(fixture: RoomFixture) {
    const USERS: u64 = 300;
    let hall = Hall::open(fixture, admission()).await;
    let mut tasks = JoinSet::new();
    for _ in 0..USERS {
        let hall = Arc::clone(&hall);
        tasks.spawn(async move { hall.join(user()).await });
    }
    let places = tasks.join_all().await;
    let mut arrivals: Vec<_> = places.iter().map(|place| place.arrival).collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>());
    assert_eq!(hall.counts().await.waiting, USERS);
    for place in &places {
        assert_eq!(hall.place(place.entry).await.ahead, Some(place.arrival - 1));
    }
}

pub async fn promotion_is_in_order_of_arrival(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(3)).await;
    let places = hall.join_many(6).await;
    assert_eq!(places[5].ahead, Some(5));
    assert!(places.iter().all(|place| place.status == QueueStatus::Waiting && place.active_until.is_none()));
    hall.leave(places[1].entry).await;
    assert_eq!(hall.place(places[5].entry).await.ahead, Some(4));
    assert_eq!(hall.tick(PLENTY).await, promoted(3));
    for at in [0, 2, 3] {
        let place = hall.place(places[at].entry).await;
        assert_eq!((place.status, place.ahead, place.arrival), (QueueStatus::Active, Some(0), at as u64 + 1));
        assert!(place.active_until.is_some_and(|until| until > places[0].sale_starts_at.unwrap_or_default()));
    }
    assert_eq!(hall.status(places[1].entry).await, QueueStatus::Left);
    let last = hall.place(places[5].entry).await;
    assert_eq!((last.status, last.ahead, last.arrival), (QueueStatus::Waiting, Some(1), 6), "a place is a fixed ordinal");
    let counts = hall.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.left), (2, 3, 1));
    assert!(counts.admitted_per_s > 0.0);
    assert_eq!(hall.tick(PLENTY).await, Ticked::default());
}

pub async fn nobody_is_promoted_before_the_sale(fixture: RoomFixture) {
    let hall = Hall::open_for_sale(fixture, admission(), Some(TimeDelta::seconds(600))).await;
    let places = hall.join_many(3).await;
    for place in &places {
        assert_eq!((place.status, place.ahead, place.arrival, &place.eta), (QueueStatus::PreSale, None, 0, &None));
        assert!(place.sale_starts_at.is_some() && place.draw.is_some_and(|(_, seed)| seed.is_none()), "{place:?}");
    }
    let draw = hall.room.draw(hall.concert).await.expect("a room").expect("a draw");
    assert!(draw.keys.is_none() && draw.seed.is_none(), "before the start there is the commitment alone");
    assert_eq!(hall.tick(PLENTY).await, Ticked::default());
    // Opening again brings the start of sale up to date.
    let later = hall.shop.now().await + TimeDelta::seconds(1_200);
    let opening = Opening { concert: hall.concert, sale_starts_at: Some(later), admission: admission() };
    hall.room.open(opening).await.expect("a room");
    hall.shop.advance(TimeDelta::seconds(601));
    assert_eq!(hall.tick(PLENTY).await, Ticked::default());
    assert_eq!(hall.status(places[0].entry).await, QueueStatus::PreSale);
    hall.shop.advance(TimeDelta::seconds(601));
    // The list is closed and drawn before anybody goes.
    let mut promoted = 0;
    for _ in 0..STEPS_MAX {
        promoted += hall.tick(PLENTY).await.promoted;
    }
    assert_eq!(promoted, 3);
    let drawn = hall.other.touch(hall.concert, places[2].entry).await.expect("a room").expect("a place");
    assert_eq!(drawn.status, QueueStatus::Active);
    let draw = hall.other.draw(hall.concert).await.expect("a room").expect("a draw");
    let (seed, keys) = (draw.seed.expect("a seed"), draw.keys.expect("a list"));
    assert_eq!((draw::commitment(&seed), keys.len()), (draw.commitment, 3));
    let key = |place: &Place| draw::draw_key(place.user, hall.concert);
    let rank = |key: &draw::Hash32| draw::rank(&draw::salt(&seed, draw.beacon.as_deref()), key);
    for place in &places {
        let before = keys.iter().filter(|other| rank(other) < rank(&key(place))).count() as u64;
        assert_eq!(hall.place(place.entry).await.arrival, before + 1, "as anybody can recompute it");
    }
}

/// A new room is not taken for one that was lost, which would wait for people to come back.
pub async fn sale_that_starts_soon_opens_within_two_ticks(fixture: RoomFixture) {
    let hall = Hall::open_for_sale(fixture, admission(), Some(TimeDelta::seconds(3))).await;
    let early = [hall.join(user()).await, hall.enter(&hall.other, user()).await.place];
    assert!(early.iter().all(|place| place.status == QueueStatus::PreSale), "{early:?}");
    // What an instance takes for the log's time may be a round trip behind it.
    hall.shop.advance(TimeDelta::seconds(4));
    let promoted = hall.tick(PLENTY).await.promoted + hall.tick(PLENTY).await.promoted;
    assert_eq!(promoted, 2, "the list is closed and drawn by the first tick, and its first go by the second");
    for place in early {
        assert_eq!(hall.status(place.entry).await, QueueStatus::Active);
    }
}

/// I4, sampled while two tasks tick: the count of the active at every step, and every window of the rate's length.
pub async fn never_more_active_than_allowed_nor_faster_than_the_rate(fixture: RoomFixture) {
    const USERS: usize = 60;
    const ROUNDS_MAX: u32 = 5_000;
    let rate = PerInterval { count: 5, seconds: 2 };
    let hall = Hall::open(fixture, Admission { max_active: 8, per_interval: Some(rate), ..admission() }).await;
    let places = hall.join_many(USERS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tickers = JoinSet::new();
    for _ in 0..2 {
        let (hall, stop) = (Arc::clone(&hall), Arc::clone(&stop));
        tickers.spawn(async move {
            let mut promoted = 0;
            while !stop.load(Ordering::SeqCst) {
                promoted += hall.tick(PLENTY).await.promoted;
                tokio::task::yield_now().await;
            }
            promoted
        });
    }
    // All turns are equally long, so the ends of the turns are as far apart as the promotions were.
    let mut ends: BTreeMap<QueueEntryId, Timestamp> = BTreeMap::new();
    let mut full = false;
    for _ in 0..ROUNDS_MAX {
        // Looks cost nothing: the room is given the time of a round trip.
        hall.other.touch(hall.concert, places[0].entry).await.expect("a room");
        let active = hall.counts().await.active;
        assert!(active <= 8, "{active} are active");
        full |= active == 8;
        let mut turns = Vec::new();
        for place in &places {
            let now = hall.room.place(hall.concert, place.entry).await.expect("a room").expect("a place");
            if let Some(until) = now.active_until {
                ends.insert(place.entry, until);
                turns.push(place.entry);
            }
        }
        if ends.len() == USERS {
            break;
        }
        // Three go at once when the house is full, so that both limits come to bear.
        if active == 8 {
            for entry in turns.iter().take(3) {
                hall.leave(*entry).await;
            }
        }
        hall.shop.advance(TimeDelta::milliseconds(100));
    }
    stop.store(true, Ordering::SeqCst);
    let promoted: u64 = tickers.join_all().await.into_iter().sum();
    assert_eq!((ends.len(), promoted), (USERS, USERS as u64), "everybody had a turn, once");
    assert!(full, "the limit was reached");
    let mut ends: Vec<_> = ends.into_values().collect();
    ends.sort_unstable();
    let window = TimeDelta::seconds(i64::from(rate.seconds));
    for group in ends.windows(rate.count as usize + 1) {
        let span = group[group.len() - 1] - group[0];
        assert!(span >= window, "{} promotions within {span}", group.len());
    }
}

pub async fn stock_limits_the_active(fixture: RoomFixture) {
    let hall = Hall::open(fixture, admission()).await;
    let places = hall.join_many(10).await;
    assert_eq!(hall.tick(Stock { obtainable: 4, linked: true }).await.promoted, 4);
    assert_eq!(hall.tick(Stock { obtainable: 4, linked: true }).await.promoted, 0);
    hall.finish(places[0].user).await;
    assert_eq!(hall.tick(Stock { obtainable: 3, linked: true }).await.promoted, 0, "a sold seat took the slot with it");
    assert_eq!(hall.tick(Stock { obtainable: 5, linked: true }).await.promoted, 2);
    assert_eq!(hall.tick(Stock { obtainable: 1, linked: false }).await.promoted, 4, "not limited by it");
}

pub async fn sold_out_stops_promotion_and_a_returned_seat_undoes_it(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let places = hall.join_many(3).await;
    for linked in [true, false] {
        assert_eq!(hall.tick(Stock { obtainable: 0, linked }).await.promoted, 0);
        let place = hall.place(places[2].entry).await;
        assert_eq!((place.status, place.ahead, place.arrival), (QueueStatus::SoldOut, Some(2), 3), "places stay");
    }
    assert_eq!(hall.join(user()).await.status, QueueStatus::SoldOut, "one may still join");
    assert_eq!(hall.tick(Stock { obtainable: 1, linked: true }).await.promoted, 1);
    assert_eq!(hall.status(places[0].entry).await, QueueStatus::Active);
    assert_eq!(hall.status(places[1].entry).await, QueueStatus::Waiting);
    hall.tick(Stock { obtainable: 0, linked: true }).await;
    assert_eq!(hall.status(places[0].entry).await, QueueStatus::Active, "who has a turn keeps it");
}

pub async fn pausing_draining_and_resuming(fixture: RoomFixture) {
    let hall = Hall::open(fixture, admission()).await;
    let ann = hall.join(user()).await;
    hall.set(Admission { mode: AdmissionMode::Paused, ..admission() }).await;
    assert_eq!(hall.tick(PLENTY).await.promoted, 0);
    let ben = hall.join(user()).await;
    assert_eq!((ben.status, ben.arrival), (QueueStatus::Waiting, 2), "joining goes on");

    hall.set(Admission { mode: AdmissionMode::Draining, ..at_most(1) }).await;
    assert!(matches!(hall.room.join(hall.concert, user(), None, fresh()).await, Err(RoomError::Closed)));
    assert_eq!(hall.join(ann.user).await.entry, ann.entry, "who is there is found");
    assert_eq!(hall.tick(PLENTY).await.promoted, 1, "who waits is still admitted");
    assert_eq!(hall.status(ann.entry).await, QueueStatus::Active);

    hall.set(Admission { mode: AdmissionMode::Running, ..admission() }).await;
    assert_eq!(hall.join(user()).await.arrival, 3);
    assert_eq!(hall.tick(PLENTY).await.promoted, 2);
}

pub async fn admission_is_kept_when_the_room_is_opened_again(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(5)).await;
    assert_eq!(hall.room.admission(hall.concert).await.expect("an admission"), at_most(5));
    let changed = Admission {
        mode: AdmissionMode::Paused,
        max_active: 9,
        per_interval: Some(PerInterval { count: 3, seconds: 7 }),
        auto: false,
        adaptive: false,
    };
    hall.set(changed).await;
    let place = hall.join(user()).await;
    let terms = Opening { concert: hall.concert, sale_starts_at: None, admission: at_most(5) };
    hall.room.open(terms).await.expect("opening again is harmless");
    assert_eq!(hall.room.admission(hall.concert).await.expect("an admission"), changed);
    assert_eq!(hall.place(place.entry).await.arrival, 1);
    assert_eq!(hall.tick(PLENTY).await.promoted, 0);
}

pub async fn admission_is_replaced_only_by_whoever_has_read_it(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(5)).await;
    let (one, other) = (at_most(6), at_most(7));
    assert!(hall.room.set_admission(hall.concert, at_most(5), one).await.expect("set"));
    assert!(!hall.room.set_admission(hall.concert, at_most(5), other).await.expect("an answer"), "it is another by now");
    assert_eq!(hall.room.admission(hall.concert).await.expect("an admission"), one);
    assert!(hall.room.set_admission(hall.concert, one, other).await.expect("set"));
    assert_eq!(hall.room.admission(hall.concert).await.expect("an admission"), other);
}

pub async fn turn_ends_at_its_instant_without_a_tick(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let places = hall.join_many(2).await;
    hall.tick(PLENTY).await;
    let active = hall.place(places[0].entry).await;
    hall.advance_to_end(&active).await;
    let over = hall.place(places[0].entry).await;
    assert_eq!((over.status, over.active_until, over.ahead), (QueueStatus::Expired, None, None));
    let counts = hall.counts().await;
    assert_eq!((counts.active, counts.expired, counts.waiting), (0, 1, 1));
    // Paying or leaving too late changes nothing.
    hall.finish(active.user).await;
    hall.leave(active.entry).await;
    assert_eq!(hall.status(places[0].entry).await, QueueStatus::Expired);
    assert_eq!(hall.tick(PLENTY).await.promoted, 1, "the slot is free");
    let counts = hall.counts().await;
    assert_eq!((counts.active, counts.expired, counts.served, counts.left), (1, 1, 0, 0), "counted once");

    let next = hall.place(places[1].entry).await;
    hall.advance_to_end(&next).await;
    assert_eq!(hall.tick(PLENTY).await, Ticked { expired: 1, ..Ticked::default() });
}

pub async fn leaving_and_paying_end_an_entry(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(2)).await;
    let places = hall.join_many(4).await;
    hall.tick(PLENTY).await;
    hall.finish(places[2].user).await;
    assert_eq!(hall.status(places[2].entry).await, QueueStatus::Waiting, "who waits has nothing to finish");
    for _ in 0..2 {
        hall.finish(places[0].user).await;
        hall.leave(places[1].entry).await;
        hall.leave(places[3].entry).await;
    }
    hall.leave(places[0].entry).await;
    let statuses = [QueueStatus::Done, QueueStatus::Left, QueueStatus::Waiting, QueueStatus::Left];
    for (place, expected) in places.iter().zip(statuses) {
        let place = hall.place(place.entry).await;
        assert_eq!(place.status, expected);
        assert_eq!(place.active_until, None);
    }
    let counts = hall.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left, counts.expired), (1, 0, 1, 2, 0));
    assert_eq!(hall.tick(PLENTY).await, promoted(1));
}

pub async fn payment_told_again_does_not_end_a_later_turn(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let first = hall.join(user()).await;
    hall.tick(PLENTY).await;
    // Between the first turn and the second.
    let paid_at = hall.place(first.entry).await.active_until.expect("a turn");
    hall.finish(first.user).await;
    hall.shop.advance(TimeDelta::days(1));
    let second = hall.join(first.user).await;
    hall.tick(PLENTY).await;
    hall.finish_paid_at(first.user, paid_at).await;
    assert_eq!(hall.status(second.entry).await, QueueStatus::Active);
    hall.finish(first.user).await;
    assert_eq!(hall.status(second.entry).await, QueueStatus::Done);
}

pub async fn joining_after_the_end_is_a_new_entry_at_the_end(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(3)).await;
    let places = hall.join_many(3).await;
    hall.tick(PLENTY).await;
    let waiting = hall.join(user()).await;
    hall.finish(places[0].user).await;
    hall.leave(places[1].entry).await;
    let active = hall.place(places[2].entry).await;
    hall.advance_to_end(&active).await;
    for (old, arrival) in places.iter().zip(5..) {
        let entered = hall.room.join(hall.concert, old.user, None, fresh()).await.expect("a place");
        assert!(entered.new && entered.place.entry != old.entry);
        assert_eq!((entered.place.status, entered.place.arrival), (QueueStatus::Waiting, arrival));
        assert!(hall.status(old.entry).await.is_ended(), "the old entry stays as it ended");
        let again = hall.room.join(hall.concert, old.user, None, fresh()).await.expect("a place");
        assert_eq!((again.new, again.place.entry), (false, entered.place.entry));
    }
    hall.set(at_most(1)).await;
    assert_eq!(hall.tick(PLENTY).await.promoted, 1);
    assert_eq!(hall.status(waiting.entry).await, QueueStatus::Active);
    let counts = hall.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left, counts.expired), (3, 1, 1, 1, 1));
}

pub async fn turn_is_lengthened_as_often_as_may_be(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let places = hall.join_many(2).await;
    let extend_from = async |entry, until| hall.room.extend(hall.concert, entry, until).await.expect("an answer");
    let extend = async |entry| {
        let until = hall.room.place(hall.concert, entry).await.expect("a room").and_then(|place| place.active_until);
        extend_from(entry, until.unwrap_or(Timestamp::MAX_UTC)).await
    };
    assert_eq!(extend(places[0].entry).await, Extended::NotActive, "it waits");
    hall.tick(PLENTY).await;
    let before = hall.place(places[0].entry).await.active_until.expect("a turn");
    hall.shop.advance(TimeDelta::seconds(60));
    for _ in 0..EXTENSIONS_MAX {
        let known = hall.place(places[0].entry).await.active_until.expect("a turn");
        let Extended::To(place) = extend_from(places[0].entry, known).await else { panic!("a longer turn") };
        let again = extend_from(places[0].entry, known).await;
        assert_eq!(again, Extended::To(place.clone()), "asked again because no answer came");
        assert!(place.active_until.expect("a turn") >= before + TimeDelta::seconds(60));
        assert_eq!(hall.place(place.entry).await.active_until, place.active_until);
    }
    assert_eq!(extend(places[0].entry).await, Extended::LimitReached);
    hall.shop.advance(before - hall.shop.now().await + TimeDelta::seconds(1));
    assert_eq!(hall.status(places[0].entry).await, QueueStatus::Active, "past the first end");
    assert_eq!(hall.tick(PLENTY).await.promoted, 0, "its slot is taken");
    let longer = hall.place(places[0].entry).await;
    hall.advance_to_end(&longer).await;
    assert_eq!(extend(places[0].entry).await, Extended::NotActive, "it is over");
    assert_eq!(extend(fresh()).await, Extended::NotActive);
    assert_eq!(hall.tick(PLENTY).await, Ticked { promoted: 1, expired: 1, ..Ticked::default() });
}

pub async fn lanes_have_their_shares(fixture: RoomFixture) {
    const OF_EACH: u64 = 100;
    let hall = Hall::open(fixture, Admission { max_active: 10, ..admission() }).await;
    let join = async |lane: Option<&str>| {
        let lane = lane.map(str::to_owned);
        hall.room.join(hall.concert, user(), lane, fresh()).await.expect("a place").place
    };
    for at in 0..OF_EACH {
        let (general, member) = (join(None).await, join(Some(LANE.0)).await);
        assert_eq!((general.lane, general.ahead, general.arrival), (Lane(0), Some(at), 2 * at + 1), "places count all lanes");
        assert_eq!((member.lane, member.ahead, member.arrival), (Lane(1), Some(at), 2 * at + 2));
    }
    assert_eq!(join(Some("nobody's")).await.lane, Lane(0), "a lane that there is not is the general one");
    assert_eq!(hall.tick(PLENTY).await.promoted, 10);
    let summary = hall.room.summary(hall.concert).await.expect("a room");
    let admitted: Vec<_> = summary.lanes.iter().map(|(admitted, _)| *admitted).collect();
    let of_members = u64::from(LANE.1) * 10 / 1_000;
    assert_eq!(admitted, [10 - of_members, of_members]);
    assert_eq!(summary.waiting, 2 * OF_EACH + 1 - 10);
    assert!(summary.open && !summary.sold_out);
}

pub async fn rooms_are_each_concerts_own(fixture: RoomFixture) {
    let hall = Hall::open(fixture, at_most(1)).await;
    let mut plan = super::build::demo_plan(hall.shop.now().await);
    plan.key = "another".to_owned();
    let other = hall.shop.fixture.stores.catalog.import(vec![plan], admission()).await.expect("an import")[0].id;
    hall.room.open(Opening { concert: other, sale_starts_at: None, admission: at_most(1) }).await.expect("a room");
    let ann = user();
    let here = hall.join(ann).await;
    let there = hall.room.join(other, ann, None, fresh()).await.expect("a place").place;
    assert_eq!((here.arrival, there.arrival), (1, 1));
    assert!(here.entry != there.entry);
    hall.tick(PLENTY).await;
    assert_eq!(hall.status(here.entry).await, QueueStatus::Active);
    let there = hall.room.place(other, there.entry).await.expect("a room").expect("a place");
    assert_eq!(there.status, QueueStatus::Waiting);
    assert_eq!(hall.room.place(other, here.entry).await.expect("a room"), None, "an entry opens only its own concert");
}
