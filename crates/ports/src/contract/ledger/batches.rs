//! Many commands in one transaction.

use std::collections::HashMap;

use boxoffice_domain::{Command, Rejection, ReservationId};

use crate::contract::Fixture;
use crate::contract::build::{self, HALL, PRICE_R, user};
use crate::contract::shop::{Shop, done, entry, is_done, numbers, paid, refused, reservation};

pub async fn later_commands_see_earlier_effects(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let hold = build::hold(ann, "h", shop.date, &[1]);
    let held = ReservationId(hold.fresh.subject);
    let pay = build::pay(ann, "p", held, 0);
    let payment = pay.fresh.subject.into();
    // A command may name what an earlier one of its own batch creates.
    let replies = shop
        .run(vec![
            build::spend(ann, "too early", 1),
            build::charge(ann, "c", PRICE_R),
            hold,
            build::hold(ben, "h", shop.date, &[1]),
            build::extend(ann, "e", held),
            pay,
            build::spend(ann, "spent", 1),
            build::refund(ann, "r", payment),
            build::spend(ann, "u", 500),
            build::hold(ben, "h2", shop.date, &[1]),
        ])
        .await;
    assert_eq!(refused(&replies[0]), Rejection::InsufficientBalance);
    assert_eq!(entry(&replies[1]).balance, PRICE_R);
    assert_eq!(reservation(&replies[2]).id, held);
    assert_eq!(refused(&replies[3]), Rejection::SeatUnavailable { seats: vec![1] });
    assert_eq!(reservation(&replies[4]).extensions, 1);
    assert_eq!(paid(&replies[5]).0.id, payment);
    assert_eq!(refused(&replies[6]), Rejection::InsufficientBalance);
    assert!(paid(&replies[7]).0.refund.is_some());
    assert_eq!(entry(&replies[8]).balance, PRICE_R - 500);
    assert!(is_done(&replies[9]), "{:?}", replies[9]);
    assert!(replies.iter().all(|reply| reply.decided_at == replies[0].decided_at), "one instant for a batch");
    assert_eq!(shop.balance(ann).await, PRICE_R - 500);
    let events: Vec<_> = shop.seat_events(1).await.iter().map(|row| row.event.kind()).collect();
    assert_eq!(events, ["reservation.held", "reservation.confirmed", "reservation.cancelled", "reservation.held"]);
    shop.close().await;
}

pub async fn refusal_in_the_middle_harms_no_neighbour(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let users: Vec<_> = (0..9).map(|_| user()).collect();
    let requests = users.iter().enumerate().map(|(at, &who)| match at % 3 {
        0 => build::charge(who, "k", 100),
        1 => build::spend(who, "k", 100),
        _ => build::hold(who, "k", shop.date, &[at as u32, HALL + 1]),
    });
    let replies = shop.run(requests.collect()).await;
    for (at, (who, reply)) in users.into_iter().zip(replies).enumerate() {
        assert_eq!(is_done(&reply), at % 3 == 0, "{at}: {reply:?}");
        assert_eq!(shop.balance(who).await, if at % 3 == 0 { 100 } else { 0 });
    }
    assert_eq!(shop.tally().await.0, u64::from(HALL));
    shop.close().await;
}

pub async fn duplicates_in_a_batch_get_one_effect(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let charge = build::charge(ann, "c", 700);
    let hold = build::hold(ann, "h", shop.date, &[4]);
    let poor = build::spend(ann, "u", 9_999);
    let batch = [&charge, &hold, &poor].into_iter().flat_map(|request| [request.clone(), build::again(request)]).collect();
    let replies = shop.run(batch).await;
    for pair in replies.chunks(2) {
        assert_eq!(pair[0].decision, pair[1].decision);
        assert_eq!((pair[0].replayed, pair[1].replayed), (false, true));
    }
    assert_eq!((shop.balance(ann).await, shop.entries(ann).await.len()), (700, 1));
    assert_eq!(shop.tally().await.1, 1);
    // A key used for two things in one batch: the first has it.
    let replies = shop.run(vec![build::charge(ann, "k", 1), build::charge(ann, "k", 2)]).await;
    assert_eq!((entry(&replies[0]).amount, refused(&replies[1])), (1, Rejection::IdempotencyKeyReused));
    shop.close().await;
}

pub async fn empty_batch_is_answered_with_nothing(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let committed = shop.commit(Vec::new()).await;
    assert!(committed.replies.is_empty() && committed.seats.is_empty());
    shop.close().await;
}

pub async fn seat_versions_grow_and_agree(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.charge(ann, 10 * PRICE_R).await;
    let mut versions: HashMap<u32, i64> = shop.seats().await.into_iter().map(|row| (row.seat.key.number, row.version)).collect();
    let hold = build::hold(ann, "h", shop.date, &[1, 2]);
    let held = ReservationId(hold.fresh.subject);
    let pay = build::pay(ann, "p", held, 0);
    let payment = pay.fresh.subject.into();
    let other = build::hold(ann, "h2", shop.date, &[3]);
    let third = ReservationId(other.fresh.subject);
    let steps = [
        (vec![hold.clone()], vec![1, 2]),
        (vec![build::again(&hold)], vec![]),
        (vec![build::extend(ann, "e", held)], vec![1, 2]),
        (vec![pay, other], vec![1, 2, 3]),
        (vec![build::charge(ann, "c", 5)], vec![]),
        (vec![build::hold(user(), "x", shop.date, &[1])], vec![]),
        (vec![build::refund(ann, "r", payment), build::release(ann, third), build::hold(ann, "h3", shop.date, &[3])], vec![1, 2, 3]),
    ];
    for (requests, changed) in steps {
        let committed = shop.commit(requests).await;
        assert_eq!(numbers(&committed.seats), changed, "each changed seat once");
        let rows: HashMap<_, _> = shop.seats().await.into_iter().map(|row| (row.seat.key.number, row)).collect();
        for change in &committed.seats {
            let row = &rows[&change.key.number];
            assert_eq!((row.version, row.seat.state), (change.version, change.state), "seat {}", change.key.number);
            let before = versions.insert(change.key.number, change.version);
            assert!(before < Some(change.version), "seat {}: {before:?} then {}", change.key.number, change.version);
        }
        let all: HashMap<_, _> = rows.iter().map(|(number, row)| (*number, row.version)).collect();
        assert_eq!(all, versions, "no other seat's version moved");
    }
    shop.close().await;
}

/// As many commands as an executor may ever put together, with more ids than a store may take in one statement.
pub async fn large_batch_is_one_commit(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let users: Vec<_> = (0..1_500).map(|_| user()).collect();
    let mut requests: Vec<_> = users.iter().map(|&who| build::charge(who, "c", 10)).collect();
    requests.extend(users.iter().take(HALL as usize).zip(1..).map(|(&who, number)| build::hold(who, "h", shop.date, &[number])));
    let committed = shop.commit(requests).await;
    assert!(committed.replies.iter().all(is_done));
    assert_eq!(committed.seats.len(), HALL as usize);
    let release = committed.replies[users.len()..].iter().map(|reply| match done(reply) {
        boxoffice_domain::Outcome::Held { reservation, .. } => {
            build::unkeyed(boxoffice_domain::Actor::System, Command::ReleaseHold { reservation: reservation.id })
        }
        other => panic!("a hold was expected, and not {other:?}"),
    });
    let replies = shop.run(release.collect()).await;
    assert!(replies.iter().all(is_done));
    assert_eq!(shop.tally().await, (u64::from(HALL), 0, 0));
    assert_eq!(shop.balance(users[1_499]).await, 10);
    shop.close().await;
}
