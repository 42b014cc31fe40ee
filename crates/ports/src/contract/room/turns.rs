//! Turns: how they end, and how they are lengthened.

use boxoffice_domain::waiting::{Extended, Ticked};
use boxoffice_domain::{QueueStatus, Timestamp};
use chrono::TimeDelta;

use super::super::build::{fresh, user};
use super::case::{EXTENSIONS_MAX, PLENTY, RoomCase, RoomFixture, at_most, promoted};

pub async fn turn_ends_at_its_instant_without_a_tick(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let places = case.join_many(2).await;
    case.tick(PLENTY).await;
    let active = case.place(places[0].entry).await;
    case.advance_to_end(&active).await;
    let over = case.place(places[0].entry).await;
    assert_eq!((over.status, over.active_until, over.ahead), (QueueStatus::Expired, None, None));
    let counts = case.counts().await;
    assert_eq!((counts.active, counts.expired, counts.waiting), (0, 1, 1));
    // Paying or leaving too late changes nothing.
    case.finish(active.user).await;
    case.leave(active.entry).await;
    assert_eq!(case.status(places[0].entry).await, QueueStatus::Expired);
    assert_eq!(case.tick(PLENTY).await.promoted, 1, "the slot is free");
    let counts = case.counts().await;
    assert_eq!((counts.active, counts.expired, counts.served, counts.left), (1, 1, 0, 0), "counted once");

    let next = case.place(places[1].entry).await;
    case.advance_to_end(&next).await;
    assert_eq!(case.tick(PLENTY).await, Ticked { expired: 1, ..Ticked::default() });
}

pub async fn leaving_and_paying_end_an_entry(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(2)).await;
    let places = case.join_many(4).await;
    case.tick(PLENTY).await;
    case.finish(places[2].user).await;
    assert_eq!(case.status(places[2].entry).await, QueueStatus::Waiting, "a waiting entry has no turn to finish");
    for _ in 0..2 {
        case.finish(places[0].user).await;
        case.leave(places[1].entry).await;
        case.leave(places[3].entry).await;
    }
    case.leave(places[0].entry).await;
    let statuses = [QueueStatus::Done, QueueStatus::Left, QueueStatus::Waiting, QueueStatus::Left];
    for (place, expected) in places.iter().zip(statuses) {
        let place = case.place(place.entry).await;
        assert_eq!(place.status, expected);
        assert_eq!(place.active_until, None);
    }
    let counts = case.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left, counts.expired), (1, 0, 1, 2, 0));
    assert_eq!(case.tick(PLENTY).await, promoted(1));
}

pub async fn a_payment_applied_again_does_not_end_a_later_turn(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let first = case.join(user()).await;
    case.tick(PLENTY).await;
    // Between the first turn and the second.
    let paid_at = case.place(first.entry).await.active_until.expect("a turn");
    case.finish(first.user).await;
    case.shop.advance(TimeDelta::days(1));
    let second = case.join(first.user).await;
    case.tick(PLENTY).await;
    case.finish_paid_at(first.user, paid_at).await;
    assert_eq!(case.status(second.entry).await, QueueStatus::Active);
    case.finish(first.user).await;
    assert_eq!(case.status(second.entry).await, QueueStatus::Done);
}

pub async fn turn_is_lengthened_as_often_as_may_be(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let places = case.join_many(2).await;
    let extend_from = async |entry, until| case.room.extend(case.concert, entry, until).await.expect("an answer");
    let extend = async |entry| {
        let until = case.room.place(case.concert, entry).await.expect("a room").and_then(|place| place.active_until);
        extend_from(entry, until.unwrap_or(Timestamp::MAX_UTC)).await
    };
    assert_eq!(extend(places[0].entry).await, Extended::NotActive, "it waits");
    case.tick(PLENTY).await;
    let before = case.place(places[0].entry).await.active_until.expect("a turn");
    case.shop.advance(TimeDelta::seconds(60));
    for _ in 0..EXTENSIONS_MAX {
        let known = case.place(places[0].entry).await.active_until.expect("a turn");
        let Extended::To(place) = extend_from(places[0].entry, known).await else { panic!("a longer turn") };
        let again = extend_from(places[0].entry, known).await;
        assert_eq!(again, Extended::To(place.clone()), "asked again because no answer came");
        assert!(place.active_until.expect("a turn") >= before + TimeDelta::seconds(60));
        assert_eq!(case.place(place.entry).await.active_until, place.active_until);
    }
    assert_eq!(extend(places[0].entry).await, Extended::LimitReached);
    case.shop.advance(before - case.shop.now().await + TimeDelta::seconds(1));
    assert_eq!(case.status(places[0].entry).await, QueueStatus::Active, "past the first end");
    assert_eq!(case.tick(PLENTY).await.promoted, 0, "its slot is taken");
    let longer = case.place(places[0].entry).await;
    case.advance_to_end(&longer).await;
    assert_eq!(extend(places[0].entry).await, Extended::NotActive, "it is over");
    assert_eq!(extend(fresh()).await, Extended::NotActive);
    assert_eq!(case.tick(PLENTY).await, Ticked { promoted: 1, expired: 1, ..Ticked::default() });
}
