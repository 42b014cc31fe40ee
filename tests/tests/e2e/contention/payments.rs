//! Payments and refunds, against each other and against everything else that ends a hold.

use super::{Site, count, nothing};
use boxoffice_tests::{Answer, Person, at_once, seats};

/// `POST /api/v1/payments` for one reservation under different keys, then `POST /api/v1/payments/{id}/refund`.
pub(super) async fn a_reservation_is_paid_once_and_refunded_once(site: &Site) {
    let (concert, date) = site.one_date(seats(50, 1_000)).await;
    let mut owner = site.person().await;
    owner.charge(100_000).await;
    owner.enter(&concert).await;
    for round in 0..4_u32 {
        let held = owner.hold(&format!("h{round}"), &date, &[round + 1]).await.expect(201).text("id");
        let pay = |n: usize| {
            let (owner, held) = (site.at(n, &owner), held.clone());
            async move { owner.pay(&format!("p-{round}-{n}"), &held).await }
        };
        let answers = at_once((0..8).map(pay)).await;
        assert_eq!((count(&answers, 201, ""), count(&answers, 409, "already_paid")), (1, 7), "{answers:?}");
        let payment = answers.iter().find(|answer| answer.status == 201).unwrap().text("id");
        if round % 2 == 0 {
            let refund = |n: usize| {
                let (owner, path) = (site.at(n, &owner), format!("/payments/{payment}/refund"));
                async move { owner.post(&path, &format!("r-{round}-{n}"), nothing()).await }
            };
            let answers = at_once((0..8).map(refund)).await;
            assert_eq!((count(&answers, 200, ""), count(&answers, 409, "already_refunded")), (1, 7), "{answers:?}");
        }
        // At any instance: an answered payment has ended the turn.
        owner.join(&concert).await.expect(201);
        owner.await_turn().await;
    }
    assert_eq!(owner.balance().await, 98_000);
}

/// Each buyer joins again, at either instance, as soon as the payment is answered.
pub(super) async fn a_paid_turn_has_ended_on_every_instance(site: &Site) {
    let (concert, date) = site.one_date(seats(100, 1_000)).await;
    let people = site.people_with_a_turn(80, &concert).await;
    let joined = at_once(people.into_iter().enumerate().map(|(n, person)| {
        let (mut after, concert, date) = (site.at(n / 2, &person), concert.clone(), date.clone());
        async move {
            person.charge(1_000).await;
            let held = person.hold("h", &date, &[n as u32 + 1]).await.expect(201).text("id");
            person.pay("p", &held).await.expect(201);
            after.join(&concert).await
        }
    }))
    .await;
    assert_eq!(count(&joined, 201, ""), 80, "each join after a payment is a new entry: {joined:?}");
}

/// The money is enough for one of them.
pub(super) async fn money_for_one_of_two_reservations_pays_one(site: &Site) {
    let (concert, date) = site.one_date(seats(50, 1_000)).await;
    let mut owner = site.person().await;
    owner.charge(1_500).await;
    owner.enter(&concert).await;
    let first = owner.hold("1", &date, &[1]).await.expect(201).text("id");
    let second = owner.hold("2", &date, &[2]).await.expect(201).text("id");
    let answers = at_once([first, second].into_iter().enumerate().map(|(n, held)| {
        let owner = site.at(n, &owner);
        async move { owner.pay(&format!("p-{held}"), &held).await }
    }))
    .await;
    assert_eq!((count(&answers, 201, ""), count(&answers, 402, "insufficient_balance")), (1, 1), "{answers:?}");
    assert_eq!(owner.balance().await, 500);
}

/// The end of a hold that a payment competes with.
#[derive(Clone, Copy, Debug)]
enum Rival {
    Expiry,
    Release,
    Leaving,
}

/// The payment at one instance, its rival at another.
async fn pay_against(site: &Site, owner: &Person, held: &str, rival: Rival) -> (Answer, Option<Answer>) {
    let pay = {
        let (owner, held) = (site.at(0, owner), held.to_owned());
        async move { owner.pay(&format!("p-{held}"), &held).await }
    };
    let (owner, held) = (site.at(1, owner), held.to_owned());
    match rival {
        Rival::Expiry => {
            let clock = site.server().clock.clone();
            let pay = tokio::spawn(pay);
            tokio::task::yield_now().await;
            clock.advance(chrono::TimeDelta::seconds(301));
            (pay.await.unwrap(), None)
        }
        Rival::Release => {
            let release = async move { owner.delete(&format!("/reservations/{held}")).await };
            let (paid, released) = tokio::join!(tokio::spawn(pay), tokio::spawn(release));
            (paid.unwrap(), Some(released.unwrap()))
        }
        Rival::Leaving => {
            let leave = async move { owner.delete("/queue").await };
            let (paid, left) = tokio::join!(tokio::spawn(pay), tokio::spawn(leave));
            (paid.unwrap(), Some(left.unwrap()))
        }
    }
}

pub(super) async fn payment_against_expiry_release_and_leaving_has_one_winner(site: &Site) {
    for rival in [Rival::Expiry, Rival::Release, Rival::Leaving] {
        let (concert, date) = site.one_date_called(&format!("{rival:?}"), seats(100, 1_000)).await;
        let mut owner = site.person().await;
        owner.charge(1_000_000).await;
        let mut balance = 1_000_000;
        for round in 0..8_u32 {
            // The payment or its rival of the round before may have ended the turn, and sold seats count.
            owner.enter(&concert).await;
            let held = owner.hold(&format!("h-{round}"), &date, &[round + 1]).await.expect(201).text("id");
            let (paid, other) = pay_against(site, &owner, &held, rival).await;
            let state = owner.get(&format!("/reservations/{held}")).await.text("status");
            if paid.status == 201 {
                balance -= 1_000;
                assert_eq!(state, "confirmed");
                if let (Rival::Release, Some(other)) = (rival, &other) {
                    other.clone().expect_problem(409, "already_paid");
                }
                owner.post(&format!("/payments/{}/refund", paid.text("id")), &format!("r-{round}"), nothing()).await.expect(200);
                balance += 1_000;
            } else {
                let code = if matches!(rival, Rival::Expiry) { "hold_expired" } else { "hold_released" };
                paid.expect_problem(409, code);
                assert!(state == "released" || state == "expired", "{state}");
            }
            assert_eq!(owner.balance().await, balance, "{rival:?}");
            site.audit().await;
        }
    }
}
