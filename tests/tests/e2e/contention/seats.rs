//! Seats of one date.

use super::{Site, count, is_slow};
use boxoffice_tests::{Answer, at_once, eventually, seats};
use serde_json::json;

/// A seat has one reservation (I1): all users send `POST /api/v1/reservations` for it at once.
pub(super) async fn one_seat_and_many_users_make_one_reservation(site: &Site) {
    let [strategy, _, _] = site.stage.strategies;
    let users = if is_slow(strategy) { 200 } else { 1_000 };
    let (concert, date) = site.one_date(seats(2_000, 10_000)).await;
    let people = site.people_with_a_turn(users, &concert).await;
    let answers = at_once(people.into_iter().map(|person| {
        let date = date.clone();
        // Without patience: a refusal counts as a loss.
        async move { Answer::to(person.writing("/reservations", "mine", &json!({ "date_id": date, "seats": [7] }))).await }
    }))
    .await;
    let (won, lost, busy) = (count(&answers, 201, ""), count(&answers, 409, "seat_unavailable"), count(&answers, 409, "busy"));
    assert_eq!((won, lost + busy), (1, users - 1), "{:?}", answers.iter().find(|answer| ![201, 409].contains(&answer.status)));
    assert!(strategy == "simple" || busy == 0, "a strategy that waits answers with the outcome");
    assert!(answers.iter().filter(|answer| answer.code() == "seat_unavailable").all(|answer| answer.at("seats") == &json!([7])));
}

/// One user holds more seats than the limit allows (I10), one in each request, at all instances at once.
pub(super) async fn the_seat_limit_holds_on_many_devices(site: &Site) {
    let (concert, date) = site.one_date(seats(50, 1_000)).await;
    let mut owner = site.person().await;
    owner.enter(&concert).await;
    let answers = at_once((1..=20_u32).map(|seat| {
        let (owner, date) = (site.at(seat as usize, &owner), date.clone());
        async move { owner.hold(&format!("h{seat}"), &date, &[seat]).await }
    }))
    .await;
    assert_eq!((count(&answers, 201, ""), count(&answers, 422, "seat_limit_exceeded")), (4, 16), "{answers:?}");
}

/// Holds and releases of one date, all at once: afterwards every instance shows what the ledger holds (I6).
pub(super) async fn churn_ends_with_every_seat_counted(site: &Site) {
    let (concert, date) = site.one_date(seats(60, 1_000)).await;
    let people = site.people_with_a_turn(40, &concert).await;
    let churn = people.iter().enumerate().map(|(number, person)| {
        let (person, date) = (person.clone().patiently(), date.clone());
        async move {
            for round in 0..12 {
                let seat = ((number * 7 + round * 13) % 30 + 1) as u32;
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
    let stored = site.server().running.stores.queries.seats(date.parse::<uuid::Uuid>().unwrap().into()).await.unwrap();
    let free = stored.iter().filter(|row| row.seat.state == boxoffice_domain::SeatState::Available).count();
    for n in 0..site.servers.len() {
        let person = site.at(n, &people[0]);
        // Other instances' commits show within a moment.
        eventually("the view of the ledger", async || {
            let dates = person.get(&format!("/concerts/{concert}/dates")).await.expect(200);
            let map = person.get(&format!("/dates/{date}/seats")).await.expect(200);
            let shown = |status: &str| map.at("items").as_array().unwrap().iter().filter(|seat| seat["status"] == status).count();
            assert_eq!(shown("available") + shown("held"), 60);
            (shown("available") == free && dates.number("items/0/available") == free as i64).then_some(())
        })
        .await;
    }
}
