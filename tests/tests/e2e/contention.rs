//! Many at once: one effect each, the sums exact, and the invariants after every run.

use boxoffice_tests::{Answer, Person, Server, Setup, at_once, seats};
use serde_json::{Value, json};

/// Both strategies there are, and mixed.
const STRATEGIES: [[&str; 3]; 3] = [["combining"; 3], ["memory"; 3], ["memory", "combining", "memory"]];

async fn server_of([seat, wallet, payment]: [&str; 3]) -> Server {
    Setup::default()
        .with(&format!("strategy.seat={seat}"))
        .with(&format!("strategy.wallet={wallet}"))
        .with(&format!("strategy.payment={payment}"))
        .with("strategy.wait_ms=20000")
        .start()
        .await
}

fn count(answers: &[Answer], status: u16, code: &str) -> usize {
    answers.iter().filter(|answer| (answer.status, answer.code()) == (status, code)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_seat_and_a_thousand_users_make_one_reservation() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(2_000, 10_000)).await;
        let people = server.people_with_a_turn(1_000, &concert).await;
        let answers = at_once(people.into_iter().map(|person| {
            let date = date.clone();
            async move { person.hold("mine", &date, &[7]).await }
        }))
        .await;
        assert_eq!((count(&answers, 201, ""), count(&answers, 409, "seat_unavailable")), (1, 999), "{strategies:?}");
        assert!(answers.iter().filter(|answer| answer.status == 409).all(|answer| answer.at("seats") == &json!([7])));
        server.audit().await;
        server.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_and_uses_on_one_wallet_are_all_applied() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let owner = server.person().await;
        owner.charge(10_000_000).await;
        let callers = (0..100).map(|caller| {
            let owner = owner.clone();
            async move {
                for n in 0..30 {
                    owner.post("/wallet/charges", &format!("c-{caller}-{n}"), json!({ "amount": 7 })).await.expect(201);
                    owner.post("/wallet/uses", &format!("u-{caller}-{n}"), json!({ "amount": 5, "memo": "tea" })).await.expect(201);
                }
            }
        });
        at_once(callers).await;
        assert_eq!(owner.balance().await, 10_000_000 + 3_000 * 7 - 3_000 * 5, "{strategies:?}");
        server.audit().await;
        server.running.stop().await;
    }
}

/// `equal` equal requests at once, then once more: one effect, equal answers.
async fn equal_requests(what: &str, equal: usize, send: impl Fn() -> reqwest::RequestBuilder, status: u16) -> Answer {
    let requests: Vec<_> = (0..equal).map(|_| send()).collect();
    let answers = at_once(requests.into_iter().map(Answer::to)).await;
    let later = Answer::to(send()).await;
    assert!(later.is_replay(), "{what}: {later:?}");
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1, "{what}: one of {equal} is the first");
    for answer in answers.iter().chain([&later]) {
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.essence(), later.essence(), "{what}");
    }
    later
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_at_once_have_one_effect_and_equal_answers() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(200, 1_000)).await;
        let (mut rival, mut owner) = (server.person().await, server.person().await);
        rival.enter(&concert).await;
        owner.enter(&concert).await;
        rival.hold("r", &date, &[200]).await.expect(201);
        for (n, equal) in [2, 3, 10, 100].into_iter().enumerate() {
            let write = |path: &str, body: Value| {
                let (owner, path) = (owner.clone(), path.to_owned());
                move || owner.writing(&path, &format!("{path}-{n}-{body}").replace(' ', ""), &body)
            };
            let before = owner.balance().await;
            equal_requests("use, refused", equal, write("/wallet/uses", json!({ "amount": 90_000_000 })), 402).await;
            equal_requests("charge", equal, write("/wallet/charges", json!({ "amount": 5_000 })), 201).await;
            assert_eq!(owner.balance().await, before + 5_000);
            let hold = write("/reservations", json!({ "date_id": date, "seats": [n + 1] }));
            let held = equal_requests("hold", equal, hold, 201).await.text("id");
            equal_requests("hold, refused", equal, write("/reservations", json!({ "date_id": date, "seats": [200] })), 409).await;
            let extend = write(&format!("/reservations/{held}/extend"), Value::Null);
            equal_requests("extend", equal, extend, 200).await;
            let paid = equal_requests("pay", equal, write("/payments", json!({ "reservation_id": held })), 201).await.text("id");
            assert_eq!(owner.balance().await, before + 4_000);
            equal_requests("refund", equal, write(&format!("/payments/{paid}/refund"), Value::Null), 200).await;
            assert_eq!(owner.balance().await, before + 5_000);
            owner.enter(&concert).await;
        }
        server.audit().await;
        server.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_paid_once_and_refunded_once() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(50, 1_000)).await;
        let mut owner = server.person().await;
        owner.charge(100_000).await;
        owner.enter(&concert).await;
        for round in 0..4_u32 {
            let held = owner.hold(&format!("h{round}"), &date, &[round + 1]).await.expect(201).text("id");
            let pay = |n: usize| {
                let (owner, held) = (owner.clone(), held.clone());
                async move { owner.pay(&format!("p-{round}-{n}"), &held).await }
            };
            let answers = at_once((0..8).map(pay)).await;
            assert_eq!((count(&answers, 201, ""), count(&answers, 409, "already_paid")), (1, 7), "{answers:?}");
            let payment = answers.iter().find(|answer| answer.status == 201).unwrap().text("id");
            if round % 2 == 0 {
                let refund = |n: usize| {
                    let (owner, path) = (owner.clone(), format!("/payments/{payment}/refund"));
                    async move { owner.post(&path, &format!("r-{round}-{n}"), Value::Null).await }
                };
                let answers = at_once((0..8).map(refund)).await;
                assert_eq!((count(&answers, 200, ""), count(&answers, 409, "already_refunded")), (1, 7), "{answers:?}");
            }
            owner.enter(&concert).await;
        }
        assert_eq!(owner.balance().await, 98_000);
        server.audit().await;
        server.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_reservations_and_money_for_one() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(50, 1_000)).await;
        let mut owner = server.person().await;
        owner.charge(1_500).await;
        owner.enter(&concert).await;
        let first = owner.hold("1", &date, &[1]).await.expect(201).text("id");
        let second = owner.hold("2", &date, &[2]).await.expect(201).text("id");
        let answers = at_once([first, second].map(|held| {
            let owner = owner.clone();
            async move { owner.pay(&format!("p-{held}"), &held).await }
        }))
        .await;
        assert_eq!((count(&answers, 201, ""), count(&answers, 402, "insufficient_balance")), (1, 1), "{answers:?}");
        assert_eq!(owner.balance().await, 500);
        server.audit().await;
        server.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seat_limit_holds_for_one_user_on_many_devices() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(50, 1_000)).await;
        let mut owner = server.person().await;
        owner.enter(&concert).await;
        let answers = at_once((1..=20_u32).map(|seat| {
            let (owner, date) = (owner.clone(), date.clone());
            async move { owner.hold(&format!("h{seat}"), &date, &[seat]).await }
        }))
        .await;
        assert_eq!((count(&answers, 201, ""), count(&answers, 422, "seat_limit_exceeded")), (4, 16), "{answers:?}");
        server.audit().await;
        server.running.stop().await;
    }
}

/// What a payment competes with.
#[derive(Clone, Copy, Debug)]
enum Rival {
    Expiry,
    Release,
    Leaving,
}

async fn pay_against(server: &Server, owner: &Person, held: &str, rival: Rival) -> (Answer, Option<Answer>) {
    let pay = {
        let (owner, held) = (owner.clone(), held.to_owned());
        async move { owner.pay(&format!("p-{held}"), &held).await }
    };
    let (owner, held) = (owner.clone(), held.to_owned());
    match rival {
        Rival::Expiry => {
            let clock = server.clock.clone();
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

#[tokio::test(flavor = "multi_thread")]
async fn payment_against_expiry_release_and_leaving_has_one_winner() {
    for strategies in STRATEGIES {
        for rival in [Rival::Expiry, Rival::Release, Rival::Leaving] {
            let server = server_of(strategies).await;
            let (concert, date) = server.one_date(seats(100, 1_000)).await;
            let mut owner = server.person().await;
            owner.charge(1_000_000).await;
            let mut balance = 1_000_000;
            for round in 0..8_u32 {
                // A payment that won or a rival that did: either way the turn may be over, and sold seats count.
                owner.enter(&concert).await;
                let held = owner.hold(&format!("h-{round}"), &date, &[round + 1]).await.expect(201).text("id");
                let (paid, other) = pay_against(&server, &owner, &held, rival).await;
                let state = owner.get(&format!("/reservations/{held}")).await.text("status");
                if paid.status == 201 {
                    balance -= 1_000;
                    assert_eq!(state, "confirmed");
                    if let (Rival::Release, Some(other)) = (rival, &other) {
                        other.clone().expect_problem(409, "already_paid");
                    }
                    owner.post(&format!("/payments/{}/refund", paid.text("id")), &format!("r-{round}"), Value::Null).await.expect(200);
                    balance += 1_000;
                } else {
                    let code = if matches!(rival, Rival::Expiry) { "hold_expired" } else { "hold_released" };
                    paid.expect_problem(409, code);
                    assert!(state == "released" || state == "expired", "{state}");
                }
                assert_eq!(owner.balance().await, balance, "{rival:?}");
                server.audit().await;
            }
            server.running.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_of_holds_and_releases_ends_with_every_seat_counted() {
    for strategies in STRATEGIES {
        let server = server_of(strategies).await;
        let (concert, date) = server.one_date(seats(60, 1_000)).await;
        let people = server.people_with_a_turn(40, &concert).await;
        let churn = people.iter().enumerate().map(|(who, person)| {
            let (person, date) = (person.clone(), date.clone());
            async move {
                for round in 0..12 {
                    let seat = ((who * 7 + round * 13) % 30 + 1) as u32;
                    let held = person.hold(&format!("h{round}"), &date, &[seat, seat + 30]).await;
                    match held.status {
                        201 if round % 3 > 0 => {
                            person.delete(&format!("/reservations/{}", held.text("id"))).await.expect(204);
                        }
                        201 | 409 | 422 => {}
                        _ => panic!("{held:?}"),
                    }
                }
            }
        });
        at_once(churn).await;
        let dates = people[0].get(&format!("/concerts/{concert}/dates")).await.expect(200);
        let map = people[0].get(&format!("/dates/{date}/seats")).await.expect(200);
        let shown = |status: &str| map.at("items").as_array().unwrap().iter().filter(|seat| seat["status"] == status).count();
        assert_eq!(shown("available") + shown("held"), 60);
        assert_eq!(dates.number("items/0/available") as usize, shown("available"));
        let stored = server.running.stores.queries.seats(date.parse::<uuid::Uuid>().unwrap().into()).await.unwrap();
        let free = stored.iter().filter(|row| row.seat.state == boxoffice_domain::SeatState::Available).count();
        assert_eq!(shown("available"), free, "the view shows what the ledger holds");
        server.audit().await;
        server.running.stop().await;
    }
}
