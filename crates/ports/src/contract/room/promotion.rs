//! Promotion: in order, from the start of the sale, never too many (I4) and never too fast.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boxoffice_domain::waiting::Ticked;
use boxoffice_domain::{Admission, Lane, PerInterval, Place, QueueEntryId, QueueStatus, Stock, Timestamp, draw};
use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::super::build::{admission, fresh, user};
use super::case::{LANE, PLENTY, RoomCase, RoomFixture, STEPS_MAX, at_most, promoted};
use crate::Opening;

pub async fn promotion_is_in_order_of_arrival(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(3)).await;
    let places = case.join_many(6).await;
    assert_eq!(places[5].ahead, Some(5));
    assert!(places.iter().all(|place| place.status == QueueStatus::Waiting && place.active_until.is_none()));
    case.leave(places[1].entry).await;
    assert_eq!(case.place(places[5].entry).await.ahead, Some(4));
    assert_eq!(case.tick(PLENTY).await, promoted(3));
    for at in [0, 2, 3] {
        let place = case.place(places[at].entry).await;
        assert_eq!((place.status, place.ahead, place.arrival), (QueueStatus::Active, Some(0), at as u64 + 1));
        assert!(place.active_until.is_some_and(|until| until > places[0].sale_starts_at.unwrap_or_default()));
    }
    assert_eq!(case.status(places[1].entry).await, QueueStatus::Left);
    let last = case.place(places[5].entry).await;
    assert_eq!((last.status, last.ahead, last.arrival), (QueueStatus::Waiting, Some(1), 6), "a place is a fixed ordinal");
    let counts = case.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.left), (2, 3, 1));
    assert!(counts.admitted_per_s > 0.0);
    assert_eq!(case.tick(PLENTY).await, Ticked::default());
}

pub async fn no_entry_is_promoted_before_the_sale(fixture: RoomFixture) {
    let case = RoomCase::open_for_sale(fixture, admission(), Some(TimeDelta::seconds(600))).await;
    let places = case.join_many(3).await;
    for place in &places {
        assert_eq!((place.status, place.ahead, place.arrival, &place.eta), (QueueStatus::PreSale, None, 0, &None));
        assert!(place.sale_starts_at.is_some() && place.draw.is_some_and(|(_, seed)| seed.is_none()), "{place:?}");
    }
    let draw = case.room.draw(case.concert).await.expect("a room").expect("a draw");
    assert!(draw.keys.is_none() && draw.seed.is_none(), "before the start there is the commitment alone");
    assert_eq!(case.tick(PLENTY).await, Ticked::default());
    // Opening again brings the start of sale up to date.
    let later = case.shop.now().await + TimeDelta::seconds(1_200);
    let opening = Opening { concert: case.concert, sale_starts_at: Some(later), admission: admission() };
    case.room.open(opening).await.expect("a room");
    case.shop.advance(TimeDelta::seconds(601));
    assert_eq!(case.tick(PLENTY).await, Ticked::default());
    assert_eq!(case.status(places[0].entry).await, QueueStatus::PreSale);
    case.shop.advance(TimeDelta::seconds(601));
    // The list is closed and drawn before the first promotion.
    let mut promoted = 0;
    for _ in 0..STEPS_MAX {
        promoted += case.tick(PLENTY).await.promoted;
    }
    assert_eq!(promoted, 3);
    let drawn = case.other.touch(case.concert, places[2].entry).await.expect("a room").expect("a place");
    assert_eq!(drawn.status, QueueStatus::Active);
    let draw = case.other.draw(case.concert).await.expect("a room").expect("a draw");
    let (seed, keys) = (draw.seed.expect("a seed"), draw.keys.expect("a list"));
    assert_eq!((draw::commitment(&seed), keys.len()), (draw.commitment, 3));
    let key = |place: &Place| draw::draw_key(place.user, case.concert);
    let rank = |key: &draw::Hash32| draw::rank(&draw::salt(&seed, draw.beacon.as_deref()), key);
    for place in &places {
        let before = keys.iter().filter(|other| rank(other) < rank(&key(place))).count() as u64;
        assert_eq!(case.place(place.entry).await.arrival, before + 1, "as a client can recompute it");
    }
}

/// A new room is not taken for a lost one, which would wait for entries to come back.
pub async fn sale_that_starts_soon_opens_within_two_ticks(fixture: RoomFixture) {
    let case = RoomCase::open_for_sale(fixture, admission(), Some(TimeDelta::seconds(3))).await;
    let early = [case.join(user()).await, case.enter(&case.other, user()).await.place];
    assert!(early.iter().all(|place| place.status == QueueStatus::PreSale), "{early:?}");
    // What an instance takes for the log's time may be a round trip behind it.
    case.shop.advance(TimeDelta::seconds(4));
    let promoted = case.tick(PLENTY).await.promoted + case.tick(PLENTY).await.promoted;
    assert_eq!(promoted, 2, "the list is closed and drawn by the first tick, and the first are promoted by the second");
    for place in early {
        assert_eq!(case.status(place.entry).await, QueueStatus::Active);
    }
}

/// I4, sampled while two tasks tick: the count of the active at every step, and every window of the rate's length.
pub async fn never_more_active_than_allowed_nor_faster_than_the_rate(fixture: RoomFixture) {
    const USERS: usize = 60;
    const ROUNDS_MAX: u32 = 5_000;
    let rate = PerInterval { count: 5, seconds: 2 };
    let case = RoomCase::open(fixture, Admission { max_active: 8, per_interval: Some(rate), ..admission() }).await;
    let places = case.join_many(USERS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tickers = JoinSet::new();
    for _ in 0..2 {
        let (case, stop) = (Arc::clone(&case), Arc::clone(&stop));
        tickers.spawn(async move {
            let mut promoted = 0;
            while !stop.load(Ordering::SeqCst) {
                promoted += case.tick(PLENTY).await.promoted;
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
        case.other.touch(case.concert, places[0].entry).await.expect("a room");
        let active = case.counts().await.active;
        assert!(active <= 8, "{active} are active");
        full |= active == 8;
        let mut turns = Vec::new();
        for place in &places {
            let now = case.room.place(case.concert, place.entry).await.expect("a room").expect("a place");
            if let Some(until) = now.active_until {
                ends.insert(place.entry, until);
                turns.push(place.entry);
            }
        }
        if ends.len() == USERS {
            break;
        }
        // Three leave at once when the room is full, so that both limits matter.
        if active == 8 {
            for entry in turns.iter().take(3) {
                case.leave(*entry).await;
            }
        }
        case.shop.advance(TimeDelta::milliseconds(100));
    }
    stop.store(true, Ordering::SeqCst);
    let promoted: u64 = tickers.join_all().await.into_iter().sum();
    assert_eq!((ends.len(), promoted), (USERS, USERS as u64), "each user had a turn, once");
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
    let case = RoomCase::open(fixture, admission()).await;
    let places = case.join_many(10).await;
    assert_eq!(case.tick(Stock { obtainable: 4, linked: true }).await.promoted, 4);
    assert_eq!(case.tick(Stock { obtainable: 4, linked: true }).await.promoted, 0);
    case.finish(places[0].user).await;
    assert_eq!(case.tick(Stock { obtainable: 3, linked: true }).await.promoted, 0, "a sold seat took the slot with it");
    assert_eq!(case.tick(Stock { obtainable: 5, linked: true }).await.promoted, 2);
    assert_eq!(case.tick(Stock { obtainable: 1, linked: false }).await.promoted, 4, "not limited by it");
}

pub async fn sold_out_stops_promotion_and_a_returned_seat_undoes_it(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let places = case.join_many(3).await;
    for linked in [true, false] {
        assert_eq!(case.tick(Stock { obtainable: 0, linked }).await.promoted, 0);
        let place = case.place(places[2].entry).await;
        assert_eq!((place.status, place.ahead, place.arrival), (QueueStatus::SoldOut, Some(2), 3), "places stay");
    }
    assert_eq!(case.join(user()).await.status, QueueStatus::SoldOut, "one may still join");
    assert_eq!(case.tick(Stock { obtainable: 1, linked: true }).await.promoted, 1);
    assert_eq!(case.status(places[0].entry).await, QueueStatus::Active);
    assert_eq!(case.status(places[1].entry).await, QueueStatus::Waiting);
    case.tick(Stock { obtainable: 0, linked: true }).await;
    assert_eq!(case.status(places[0].entry).await, QueueStatus::Active, "an entry in its turn keeps it");
}

pub async fn lanes_have_their_shares(fixture: RoomFixture) {
    const OF_EACH: u64 = 100;
    let case = RoomCase::open(fixture, Admission { max_active: 10, ..admission() }).await;
    let join = async |lane: Option<&str>| {
        let lane = lane.map(str::to_owned);
        case.room.join(case.concert, user(), lane, fresh()).await.expect("a place").place
    };
    for at in 0..OF_EACH {
        let (general, member) = (join(None).await, join(Some(LANE.0)).await);
        assert_eq!((general.lane, general.ahead, general.arrival), (Lane(0), Some(at), 2 * at + 1), "places count all lanes");
        assert_eq!((member.lane, member.ahead, member.arrival), (Lane(1), Some(at), 2 * at + 2));
    }
    assert_eq!(join(Some("unknown")).await.lane, Lane(0), "an unknown lane is the general one");
    assert_eq!(case.tick(PLENTY).await.promoted, 10);
    let summary = case.room.summary(case.concert).await.expect("a room");
    let admitted: Vec<_> = summary.lanes.iter().map(|(admitted, _)| *admitted).collect();
    let of_members = u64::from(LANE.1) * 10 / 1_000;
    assert_eq!(admitted, [10 - of_members, of_members]);
    assert_eq!(summary.waiting, 2 * OF_EACH + 1 - 10);
    assert!(summary.open && !summary.sold_out);
}
