//! Joining a waiting room.

use super::{Site, on_postgres};
use boxoffice_tests::{Person, at_once, seats};
use std::collections::HashSet;

/// A thousand joins of one user over all instances, by `POST /api/v1/concerts/{id}/queue`.
pub(super) async fn one_user_joining_at_once_has_one_place(site: &Site) {
    let (concert, _) = site.one_date(seats(50, 1_000)).await;
    let owner = site.person().await;
    let joins = (0..1_000).map(|n| {
        let (mut owner, concert) = (site.at(n, &owner), concert.clone());
        async move { owner.join(&concert).await }
    });
    let answers = at_once(joins).await;
    let entries: HashSet<String> = answers.iter().map(|answer| answer.text("entry_id")).collect();
    let new = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((entries.len(), new), (1, 1));
    assert!(answers.iter().all(|answer| answer.number("place") == 1));
}

/// How many callers join at once, and how many users each has.
const CALLERS: usize = 200;
const USERS: usize = 50;

async fn ten_thousand_users_have_distinct_places(queue: &'static str) {
    let site = on_postgres("combining", "combining", "combining", queue).open().await;
    let (concert, _) = site.one_date(seats(50, 1_000)).await;
    let callers = (0..CALLERS).map(|caller| {
        let (base, concert) = (site.servers[caller % site.servers.len()].base.clone(), concert.clone());
        let http = site.server().http().clone();
        async move {
            let mut places = Vec::with_capacity(USERS);
            for _ in 0..USERS {
                let mut person = Person::registered(&http, &base).await;
                places.push(person.join(&concert).await.expect(201).number("place"));
            }
            places
        }
    });
    let mut places: Vec<i64> = at_once(callers).await.into_iter().flatten().collect();
    places.sort_unstable();
    assert!(places.iter().copied().eq(1..=(CALLERS * USERS) as i64), "every place once, and no gap");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_users_have_distinct_places_in_postgres() {
    Box::pin(ten_thousand_users_have_distinct_places("store")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_users_have_distinct_places_in_redis() {
    Box::pin(ten_thousand_users_have_distinct_places("redis")).await;
}
