//! Many callers at once. Which of them wins is open; that exactly the right number does is not.

use std::sync::Arc;

use boxoffice_domain::{Rejection, Reply, ReservationStatus, SeatState};
use chrono::TimeDelta;
use tokio::task::JoinSet;

use crate::Guard;
use crate::contract::Fixture;
use crate::contract::build::{self, HALL, PRICE_R, user};
use crate::contract::shop::{Shop, done, is_done, paid, refused};

/// Runs each request in a transaction and a task of its own, all at once; the replies in the order of the requests.
async fn at_once(shop: &Arc<Shop>, requests: Vec<boxoffice_domain::Request>, guard: Guard) -> Vec<Reply> {
    let start = Arc::new(tokio::sync::Barrier::new(requests.len()));
    let mut tasks = JoinSet::new();
    for (at, request) in requests.into_iter().enumerate() {
        let (shop, start) = (Arc::clone(shop), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            (at, shop.one_guarded(request, guard).await)
        });
    }
    let mut replies = tasks.join_all().await;
    replies.sort_by_key(|(at, _)| *at);
    replies.into_iter().map(|(_, reply)| reply).collect()
}

async fn same_command_in_two_batches(fixture: Fixture, guard: Guard) {
    const ROUNDS: u32 = 40;
    let shop = Shop::open(fixture).await;
    let ann = user();
    for round in 0..ROUNDS {
        let charge = build::charge(ann, &format!("c{round}"), 10);
        let hold = build::hold(user(), "h", shop.date, &[round + 1]);
        let poor = build::spend(user(), "u", 10);
        let mut tasks = JoinSet::new();
        for copy in 0..2 {
            let shop = Arc::clone(&shop);
            let mut batch = vec![build::again(&charge), build::again(&hold), build::again(&poor)];
            if copy == 1 {
                batch.reverse();
            }
            tasks.spawn(async move {
                let mut replies = shop.transact(batch, guard).await.expect("no error").replies;
                if copy == 1 {
                    replies.reverse();
                }
                replies
            });
        }
        let both = tasks.join_all().await;
        for (one, other) in both[0].iter().zip(&both[1]) {
            assert_eq!((&one.decision, one.decided_at), (&other.decision, other.decided_at));
            assert!(one.replayed != other.replayed, "one of them is the first: {one:?} {other:?}");
        }
    }
    assert_eq!((shop.balance(ann).await, shop.entries(ann).await.len()), (i64::from(ROUNDS) * 10, ROUNDS as usize));
    assert_eq!(shop.tally().await.1, u64::from(ROUNDS));
    shop.close().await;
}

pub async fn same_command_in_two_batches_has_one_effect_under_row_locks(fixture: Fixture) {
    same_command_in_two_batches(fixture, Guard::RowLock).await;
}

pub async fn same_command_in_two_batches_has_one_effect_under_versions(fixture: Fixture) {
    same_command_in_two_batches(fixture, Guard::Version).await;
}

async fn one_seat_has_one_winner(fixture: Fixture, guard: Guard) {
    let shop = Shop::open(fixture).await;
    // Each user asks for seat 7, and for another one that overlaps with a neighbour's request.
    let requests: Vec<_> = (0..150).map(|at| build::hold(user(), "h", shop.date, &[7, 8 + at % 20])).collect();
    let replies = at_once(&shop, requests, guard).await;
    let winners: Vec<_> = replies.iter().filter(|reply| is_done(reply)).collect();
    assert_eq!(winners.len(), 1);
    for reply in replies.iter().filter(|reply| !is_done(reply)) {
        assert!(matches!(refused(reply), Rejection::SeatUnavailable { seats } if seats.contains(&7)), "{reply:?}");
    }
    assert_eq!(shop.tally().await, (u64::from(HALL) - 2, 2, 0));
    assert_eq!(shop.seat_events(7).await.len(), 1);
    shop.close().await;
}

pub async fn one_seat_has_one_winner_under_row_locks(fixture: Fixture) {
    one_seat_has_one_winner(fixture, Guard::RowLock).await;
}

pub async fn one_seat_has_one_winner_under_versions(fixture: Fixture) {
    one_seat_has_one_winner(fixture, Guard::Version).await;
}

async fn one_wallet_adds_up(fixture: Fixture, guard: Guard) {
    const EACH: i64 = 100;
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.charge(ann, EACH * 3).await;
    let charges = (0..EACH).map(|at| build::charge(ann, &format!("c{at}"), 7));
    let uses = (0..EACH).map(|at| build::spend(ann, &format!("u{at}"), 3));
    let replies = at_once(&shop, charges.chain(uses).collect(), guard).await;
    assert!(replies.iter().all(is_done));
    assert_eq!(shop.balance(ann).await, EACH * 3 + EACH * 7 - EACH * 3);
    let entries = shop.entries(ann).await;
    assert_eq!(entries.iter().map(|entry| entry.seq).rev().collect::<Vec<_>>(), (1..=EACH * 2 + 1).collect::<Vec<_>>());
    assert_eq!(entries.iter().map(|entry| entry.amount).sum::<i64>(), shop.balance(ann).await);
    shop.close().await;
}

pub async fn one_wallet_adds_up_under_row_locks(fixture: Fixture) {
    one_wallet_adds_up(fixture, Guard::RowLock).await;
}

pub async fn one_wallet_adds_up_under_versions(fixture: Fixture) {
    one_wallet_adds_up(fixture, Guard::Version).await;
}

pub async fn two_payments_of_one_reservation_are_one(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    for (number, guard) in (1..=20).zip([Guard::RowLock, Guard::Version].into_iter().cycle()) {
        let ann = user();
        shop.charge(ann, 5 * PRICE_R).await;
        let held = shop.hold(ann, &[number]).await;
        let replies = at_once(&shop, ["a", "b", "c"].map(|key| build::pay(ann, key, held.id, 0)).to_vec(), guard).await;
        assert_eq!(replies.iter().filter(|reply| is_done(reply)).count(), 1);
        assert!(replies.iter().filter(|reply| !is_done(reply)).all(|reply| refused(reply) == Rejection::AlreadyPaid));
        assert_eq!(shop.balance(ann).await, 4 * PRICE_R);
    }
    assert_eq!(shop.fixture.stores.queries.revenue(shop.concert).await.expect("revenue"), 20 * PRICE_R);
    shop.close().await;
}

pub async fn holds_of_one_user_at_once_stay_within_the_limit(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let limit = shop.policy.max_seats_per_user;
    for guard in [Guard::RowLock, Guard::Version] {
        let ann = user();
        // The user has an account in one round out of two: the first hold makes it otherwise.
        if guard == Guard::RowLock {
            shop.charge(ann, 1).await;
        }
        let from = if guard == Guard::RowLock { 0 } else { HALL / 2 };
        let requests = (1..=HALL / 2).map(|at| build::hold(ann, &format!("h{at}"), shop.date, &[from + at])).collect();
        let replies = at_once(&shop, requests, guard).await;
        assert_eq!(replies.iter().filter(|reply| is_done(reply)).count() as u32, limit);
        let exceeded = Rejection::SeatLimitExceeded { limit };
        assert!(replies.iter().filter(|reply| !is_done(reply)).all(|reply| refused(reply) == exceeded));
    }
    shop.close().await;
}

pub async fn payment_release_and_leaving_at_once_have_one_winner(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    for number in 1..=30 {
        let guard = if number % 2 == 0 { Guard::RowLock } else { Guard::Version };
        let ann = user();
        shop.charge(ann, PRICE_R).await;
        let held = shop.hold(ann, &[number]).await;
        let requests = vec![build::pay(ann, "p", held.id, 0), build::release(ann, held.id), build::release_by_system(held.id)];
        let replies = at_once(&shop, requests, guard).await;
        let seat = shop.seat(number).await.seat.state;
        let status = shop.reservation(ann, held.id).await.status;
        if is_done(&replies[0]) {
            assert!(replies[1..].iter().all(|reply| refused(reply) == Rejection::AlreadyPaid));
            assert_eq!((seat, status), (SeatState::Sold { reservation: held.id }, ReservationStatus::Confirmed));
            assert_eq!(paid(&replies[0]).0.amount, held.total());
        } else {
            assert_eq!(refused(&replies[0]), Rejection::HoldReleased);
            assert!(replies[1..].iter().all(is_done));
            assert_eq!((seat, status), (SeatState::Available, ReservationStatus::Released));
        }
        let taken = if is_done(&replies[0]) { held.total() } else { 0 };
        assert_eq!(shop.balance(ann).await, PRICE_R - taken);
    }
    shop.close().await;
}

pub async fn refunds_at_once_are_one(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    for (number, guard) in [(1, Guard::RowLock), (2, Guard::Version), (3, Guard::RowLock), (4, Guard::Version)] {
        let ann = user();
        let (payment, _) = shop.buy(ann, &[number]).await;
        let requests = (0..10).map(|at| build::refund(ann, &format!("r{at}"), payment.id)).collect();
        let replies = at_once(&shop, requests, guard).await;
        assert_eq!(replies.iter().filter(|reply| is_done(reply)).count(), 1);
        assert_eq!((shop.balance(ann).await, shop.points(ann).await), (payment.amount, 0));
    }
    shop.close().await;
}

/// Several instances sweep, while others take the very seats that are being freed.
pub async fn sweeps_at_once_write_an_expiry_once(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    for number in 1..=20 {
        shop.hold(user(), &[number]).await;
    }
    shop.advance_past_holds();
    let due = shop.fixture.stores.upkeep.due_holds(100).await.expect("due holds");
    assert_eq!(due.len(), 20);
    let sweeps = due.iter().flat_map(|id| [build::expire(*id), build::expire(*id)]);
    let takers = (1..=20).map(|number| build::hold(user(), "h", shop.date, &[number]));
    let replies = at_once(&shop, sweeps.chain(takers).collect(), Guard::RowLock).await;
    assert_eq!(replies[..40].iter().filter(|reply| is_done(reply)).count(), 20, "one of each two");
    replies[40..].iter().for_each(|reply| drop(done(reply)));
    for number in 1..=20 {
        let events: Vec<_> = shop.seat_events(number).await.iter().map(|row| row.event.kind()).collect();
        assert_eq!(events, ["reservation.held", "reservation.expired", "reservation.held"], "seat {number}");
    }
    shop.advance(TimeDelta::seconds(1));
    assert!(shop.fixture.stores.upkeep.due_holds(100).await.expect("due holds").is_empty());
    shop.close().await;
}

/// Looking takes nothing with it: neither the rows, nor what is decided next.
pub async fn rows_that_no_transaction_keeps_are_not_held(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let (payment, reservation) = shop.buy(ann, &[1]).await;
    let requests = vec![
        build::charge(ann, "c", 10),
        build::charge(user(), "of a new user", 10),
        build::hold(user(), "h", shop.date, &[1, 2]),
        build::extend(ann, "e", reservation.id),
        build::refund(ann, "r", payment.id),
    ];
    for _ in 0..2 {
        let held = shop.fixture.stores.ledger.held(requests.clone().into()).await.expect("looked at");
        assert!(held.is_empty(), "{held:?}");
    }
    shop.transact(requests, Guard::RowLock).await.expect("committed");
    shop.close().await;
}
