//! Holds whose time is over: in effect at the instant, written later by the sweep.

use boxoffice_domain::{Event, Rejection, ReservationChange, ReservationStatus, SeatState};
use chrono::TimeDelta;

use crate::contract::Fixture;
use crate::contract::build::{self, HALL, PRICE_R, user};
use crate::contract::shop::{Shop, numbers, reservation};

pub async fn hold_that_is_over_cannot_be_paid_extended_or_released(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.charge(ann, PRICE_R).await;
    let held = shop.hold(ann, &[1]).await;
    shop.advance_past_holds();
    assert_eq!(shop.refused(build::pay(ann, "p", held.id, 0)).await, Rejection::HoldExpired);
    assert_eq!(shop.refused(build::extend(ann, "e", held.id)).await, Rejection::HoldExpired);
    assert_eq!(shop.refused(build::release(ann, held.id)).await, Rejection::HoldExpired);
    assert_eq!(shop.balance(ann).await, PRICE_R);
    let queries = &shop.fixture.stores.queries;
    assert!(queries.live_holds(ann, shop.concert).await.expect("live holds").is_empty());
    let row = shop.reservation(ann, held.id).await;
    assert_eq!(row.status_at(shop.now().await), ReservationStatus::Expired);
    assert_eq!(shop.tally().await, (u64::from(HALL), 0, 0), "free before any sweep");
    shop.close().await;
}

pub async fn expired_seat_goes_to_the_next_user_at_once(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let old = shop.hold(ann, &[1, 2]).await;
    assert_eq!(shop.refused(build::hold(ben, "early", shop.date, &[2])).await, Rejection::SeatUnavailable { seats: vec![2] });
    shop.advance_past_holds();
    let new = shop.hold(ben, &[2]).await;
    assert_eq!(shop.seat(2).await.seat.state, SeatState::Held { reservation: new.id, until: new.expires_at });
    let events = shop.seat_events(2).await;
    let expected = [(ReservationChange::Held, old.id), (ReservationChange::Expired, old.id), (ReservationChange::Held, new.id)];
    assert_eq!(events.len(), expected.len());
    for (row, (change, id)) in events.iter().zip(expected) {
        assert_eq!(row.event, Event::Seat { change, date: shop.date, seat: 2, reservation: id });
    }
    assert_eq!((events[1].occurred_at, events[2].occurred_at), (new.created_at, new.created_at), "of one transaction");
    assert_eq!(shop.seat_events(1).await.len(), 1, "the other seat has no event yet");
    let left = shop.fixture.stores.upkeep.due_holds(10).await.expect("due holds");
    assert_eq!(left, [old.id], "the old row is left to the sweep");
    shop.close().await;
}

pub async fn sweep_frees_only_seats_that_still_name_the_hold(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let old = shop.hold(ann, &[1, 2, 3]).await;
    shop.advance_past_holds();
    let (_, bought) = shop.buy(ben, &[2]).await;
    let committed = shop.commit(vec![build::expire(old.id)]).await;
    assert_eq!(numbers(&committed.seats), [1, 3]);
    assert_eq!(reservation(&committed.replies[0]).status, ReservationStatus::Expired);
    assert_eq!(shop.reservation(ann, old.id).await.status, ReservationStatus::Expired);
    assert_eq!(shop.seat(1).await.seat.state, SeatState::Available);
    assert_eq!(shop.seat(2).await.seat.state, SeatState::Sold { reservation: bought.id });
    assert!(shop.fixture.stores.upkeep.due_holds(10).await.expect("due holds").is_empty());
    let expired = |rows: Vec<crate::OutboxRow>| rows.iter().filter(|row| row.event.kind() == "reservation.expired").count();
    for number in 1..=3 {
        assert_eq!(expired(shop.seat_events(number).await), 1, "seat {number}: once, by either writer");
    }
    assert_eq!(shop.events_of("reservation.expired").await, 4, "three seats and the whole");
    let again = shop.commit(vec![build::expire(old.id)]).await;
    assert!(again.seats.is_empty());
    assert_eq!(shop.events_of("reservation.expired").await, 4);
    shop.close().await;
}

pub async fn due_holds_are_bounded_and_oldest_first(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let mut held = Vec::new();
    for number in 1..=6 {
        held.push(shop.hold(user(), &[number]).await);
        shop.advance(TimeDelta::seconds(10));
    }
    let upkeep = &shop.fixture.stores.upkeep;
    assert!(upkeep.due_holds(10).await.expect("due holds").is_empty());
    // The first was extended, the second paid, the third released: none of these is due with the others.
    shop.one(build::extend(held[0].user, "e", held[0].id)).await;
    shop.charge(held[1].user, PRICE_R).await;
    shop.one(build::pay(held[1].user, "p", held[1].id, 0)).await;
    shop.one(build::release(held[2].user, held[2].id)).await;
    shop.advance(TimeDelta::seconds(i64::from(shop.policy.hold_ttl_s) - 30));
    assert_eq!(upkeep.due_holds(10).await.expect("due holds"), [held[3].id], "the instant counts, not the order of rows");
    shop.advance(TimeDelta::seconds(60));
    let due = upkeep.due_holds(2).await.expect("due holds");
    assert_eq!(due, [held[3].id, held[4].id]);
    let audit = shop.fixture.stores.audit.audit(shop.policy.max_seats_per_user).await.expect("an audit");
    assert_eq!(audit.overdue_holds, 4);
    shop.run(due.into_iter().map(build::expire).collect()).await;
    assert_eq!(upkeep.due_holds(10).await.expect("due holds"), [held[5].id, held[0].id]);
    shop.close().await;
}

pub async fn expired_hold_leaves_the_limit(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.hold(ann, &[1, 2, 3, 4]).await;
    let limit = shop.policy.max_seats_per_user;
    assert_eq!(shop.refused(build::hold(ann, "x", shop.date, &[5])).await, Rejection::SeatLimitExceeded { limit });
    shop.advance_past_holds();
    let held = shop.hold(ann, &[1, 2, 5, 6]).await;
    assert_eq!(held.seats.len(), 4, "one's own expired seats are to be had again");
    shop.close().await;
}
