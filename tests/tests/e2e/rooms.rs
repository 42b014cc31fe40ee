//! The waiting rooms of a whole server: many without entries, and one whose admission is changed while Redis is away.

use boxoffice_domain::{Admission, ConcertId};
use boxoffice_ports::{Opening, WaitingRoom as _};
use boxoffice_services::Redis;
use boxoffice_tests::{Answer, Server, Setup, concert, eventually, seats};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

async fn max_active(server: &Server, concert: &str) -> Option<i64> {
    let operator = server.operator().await;
    let answer = operator.get(&format!("/admin/concerts/{concert}/admission")).await;
    (answer.status == 200).then(|| answer.number("max_active"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_that_never_reached_redis_applies_when_it_is_back() {
    let mut node = Redis::start().expect("Redis starts");
    let redis = format!("redis.urls=[{:?}]", node.url());
    let setup = Setup::default().on_postgres().await.with(&redis).with("queue.backend=redis").with("admission.max_active=1");
    let servers = setup.start_many(2).await;
    let (name, _) = servers[0].one_date(seats(50, 1_000)).await;
    servers[1].shows(&name).await;
    let mut people = servers[0].people_with_a_turn(1, &name).await;
    for server in &servers {
        let mut person = server.person().await;
        person.join(&name).await.expect(201);
        people.push(person);
    }
    node.kill().expect("killed");
    let operator = servers[0].operator().await;
    let patch = async |max_active: u32| {
        let request = operator.request(Method::PATCH, &format!("/admin/concerts/{name}/admission"));
        Answer::to(request.json(&json!({ "max_active": max_active }))).await
    };
    patch(2).await.expect(503);
    // As when Redis goes away in the middle of a change: the database has it, and the room's log does not.
    let concert = ConcertId(name.parse().expect("an id"));
    let (stores, was) = (&servers[0].running.stores, servers[0].running.room.look(concert, |room, _| room.admission()).expect("a room"));
    let asked = Admission { max_active: 3, ..was };
    assert!(stores.mirror.set_admission(concert, was, asked).await.expect("set").is_some());
    for server in &servers {
        let opening = Opening { concert, sale_starts_at: None, admission: asked };
        assert!(server.running.room.open(opening).await.is_err(), "a refresh that fails");
    }
    node.restart().expect("it starts again");
    for server in &servers {
        eventually("the admission", async || (max_active(server, &name).await == Some(3)).then_some(())).await;
    }
    for person in &mut people[1..] {
        person.await_turn().await;
    }
    patch(4).await.expect(200);
    assert_eq!(max_active(&servers[1], &name).await, Some(4));
    servers[0].audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_rooms_cost_the_stores_nothing() {
    const ROOMS: u64 = 60;
    /// Dozens of ticks, and several refreshes of the catalogue.
    const WATCHED: Duration = Duration::from_secs(3);
    let node = Redis::start().expect("Redis starts");
    let redis = format!("redis.urls=[{:?}]", node.url());
    let server = Setup::default().on_postgres().await.with(&redis).with("queue.backend=redis").start().await;
    let sent = async || {
        let before = server.running.traffic.counts();
        tokio::time::sleep(WATCHED).await;
        let after = server.running.traffic.counts();
        (after.statements - before.statements, after.redis_commands - before.redis_commands)
    };
    let (first, _) = server.one_date(seats(10, 1_000)).await;
    let rests = |name: &str| server.running.room.rests(ConcertId(name.parse().expect("an id")));
    eventually("the room rests", async || rests(&first).then_some(())).await;
    let one = sent().await;
    let operator = server.operator().await;
    let mut names = Vec::new();
    for at in 1..ROOMS {
        let document = concert(&server, &format!("concert-{at}"), &[seats(10, 1_000)]);
        let made = Answer::to(operator.request(Method::POST, "/admin/concerts").json(&document)).await.expect(201);
        names.push(made.text("id"));
    }
    eventually("all rooms rest", async || names.iter().all(|name| rests(name)).then_some(())).await;
    let all = sent().await;
    println!("statements and commands within {WATCHED:?}: {one:?} with one room, {all:?} with {ROOMS}");
    assert!(all.0 < one.0 + ROOMS && all.1 < one.1 + ROOMS, "less than one for each");
    // A buyer who joins gets a turn as usual.
    let mut person = server.person().await;
    person.enter(&names[7]).await;
}
