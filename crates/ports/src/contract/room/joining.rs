//! Joining: one place for each user, in order of arrival, each concert by itself.

use std::collections::HashSet;
use std::sync::Arc;

use boxoffice_domain::QueueStatus;
use boxoffice_domain::waiting::RoomCounts;
use tokio::task::JoinSet;

use super::super::build::{admission, demo_plan, fresh, user};
use super::case::{PLENTY, RoomCase, RoomFixture, at_most};
use crate::{Opening, RoomError};

pub async fn room_that_was_not_opened_is_none(fixture: RoomFixture) {
    let (room, concert) = (Arc::clone(&fixture.room), fresh());
    assert!(matches!(room.join(concert, user(), None, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.place(concert, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.touch(concert, fresh()).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.tick(concert, PLENTY).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.counts(concert).await, Err(RoomError::NoRoom)));
    assert!(matches!(room.admission(concert).await, Err(RoomError::NoRoom)));
    let case = RoomCase::open(fixture, admission()).await;
    assert_eq!(case.room.place(case.concert, fresh()).await.expect("a room"), None, "an entry that is not known");
    assert_eq!(case.room.touch(case.concert, fresh()).await.expect("a room"), None);
    case.leave(fresh()).await;
    case.finish(user()).await;
    assert_eq!(case.counts().await, RoomCounts::default());
}

pub async fn joins_of_one_user_at_once_are_one_place(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, admission()).await;
    case.join_many(3).await;
    let ann = user();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let case = Arc::clone(&case);
        tasks.spawn(async move { case.room.join(case.concert, ann, None, fresh()).await.expect("a place") });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|entered| entered.new).count(), 1);
    let entries: HashSet<_> = all.iter().map(|entered| (entered.place.entry, entered.place.arrival)).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((all[0].place.user, all[0].place.arrival, all[0].place.ahead), (ann, 4, Some(3)));
    assert_eq!(case.counts().await.waiting, 4);
    // Other entries come and go: the place stays, on every device.
    case.join_many(2).await;
    let entered = case.room.join(case.concert, ann, None, fresh()).await.expect("a place");
    assert_eq!((entered.new, entered.place), (false, all[0].place.clone()));
}

pub async fn joins_of_many_users_at_once_are_distinct_places(fixture: RoomFixture) {
    const USERS: u64 = 300;
    let case = RoomCase::open(fixture, admission()).await;
    let mut tasks = JoinSet::new();
    for _ in 0..USERS {
        let case = Arc::clone(&case);
        tasks.spawn(async move { case.join(user()).await });
    }
    let places = tasks.join_all().await;
    let mut arrivals: Vec<_> = places.iter().map(|place| place.arrival).collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals, (1..=USERS).collect::<Vec<_>>());
    assert_eq!(case.counts().await.waiting, USERS);
    for place in &places {
        assert_eq!(case.place(place.entry).await.ahead, Some(place.arrival - 1));
    }
}

pub async fn joining_after_the_end_is_a_new_entry_at_the_end(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(3)).await;
    let places = case.join_many(3).await;
    case.tick(PLENTY).await;
    let waiting = case.join(user()).await;
    case.finish(places[0].user).await;
    case.leave(places[1].entry).await;
    let active = case.place(places[2].entry).await;
    case.advance_to_end(&active).await;
    for (old, arrival) in places.iter().zip(5..) {
        let entered = case.room.join(case.concert, old.user, None, fresh()).await.expect("a place");
        assert!(entered.new && entered.place.entry != old.entry);
        assert_eq!((entered.place.status, entered.place.arrival), (QueueStatus::Waiting, arrival));
        assert!(case.status(old.entry).await.is_ended(), "the old entry stays as it ended");
        let again = case.room.join(case.concert, old.user, None, fresh()).await.expect("a place");
        assert_eq!((again.new, again.place.entry), (false, entered.place.entry));
    }
    case.set(at_most(1)).await;
    assert_eq!(case.tick(PLENTY).await.promoted, 1);
    assert_eq!(case.status(waiting.entry).await, QueueStatus::Active);
    let counts = case.counts().await;
    assert_eq!((counts.waiting, counts.active, counts.served, counts.left, counts.expired), (3, 1, 1, 1, 1));
}

pub async fn rooms_are_each_concerts_own(fixture: RoomFixture) {
    let case = RoomCase::open(fixture, at_most(1)).await;
    let mut plan = demo_plan(case.shop.now().await);
    plan.key = "another".to_owned();
    let other = case.shop.fixture.stores.catalog.import(vec![plan], admission()).await.expect("an import")[0].id;
    case.room.open(Opening { concert: other, sale_starts_at: None, admission: at_most(1) }).await.expect("a room");
    let ann = user();
    let here = case.join(ann).await;
    let there = case.room.join(other, ann, None, fresh()).await.expect("a place").place;
    assert_eq!((here.arrival, there.arrival), (1, 1));
    assert!(here.entry != there.entry);
    case.tick(PLENTY).await;
    assert_eq!(case.status(here.entry).await, QueueStatus::Active);
    let there = case.room.place(other, there.entry).await.expect("a room").expect("a place");
    assert_eq!(there.status, QueueStatus::Waiting);
    assert_eq!(case.room.place(other, here.entry).await.expect("a room"), None, "an entry opens only its own concert");
}
