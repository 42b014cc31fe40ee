//! Redis and PostgreSQL are killed, emptied or made read-only: commands may be refused, and nothing is ever wrong.

use boxoffice_services::{Postgres, Redis};
use boxoffice_tests::services::{redis_nodes, redlock_setting};
use boxoffice_tests::{Answer, Person, Process, Server, Setup, at_once, eventually, seats};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a command of these tests may wait for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// Ten times as long as an event may take.
const EVENT_MAX: Duration = Duration::from_secs(10);

async fn two_instances(set: &[&str]) -> Vec<Server> {
    let wait = format!("strategy.wait_ms={}", WAIT.as_millis());
    let setup = Setup::default().on_postgres().await.with(&wait);
    set.iter().fold(setup, |setup, set| setup.with(set)).start_many(2).await
}

/// `rounds` charges of 1 by each of ten callers, spread over the instances: the answers, each with how long it took.
async fn charges(servers: &[Server], owner: &Person, series: &str, rounds: usize) -> Vec<(Answer, Duration)> {
    charges_counted(servers, owner, series, rounds, &Answered::default()).await
}

/// How many answers there were: a test waits for some, to act in the middle of them.
#[derive(Clone, Debug, Default)]
struct Answered(Arc<AtomicUsize>);

impl Answered {
    async fn at_least(&self, count: usize) {
        eventually("answers", async || (self.0.load(Ordering::SeqCst) >= count).then_some(())).await;
    }
}

async fn charges_counted(servers: &[Server], owner: &Person, series: &str, rounds: usize, answered: &Answered) -> Vec<(Answer, Duration)> {
    let callers = (0..10).map(|caller| {
        let (owner, series) = (owner.clone().at(&servers[caller % servers.len()].base), series.to_owned());
        let answered = answered.clone();
        async move {
            let mut answers = Vec::with_capacity(rounds);
            for n in 0..rounds {
                let began = Instant::now();
                let answer = owner.post("/wallet/charges", &format!("{series}-{caller}-{n}"), json!({ "amount": 1 })).await;
                answered.0.fetch_add(1, Ordering::SeqCst);
                answers.push((answer, began.elapsed()));
            }
            answers
        }
    });
    at_once(callers).await.into_iter().flatten().collect()
}

fn applied(answers: &[(Answer, Duration)]) -> usize {
    answers.iter().filter(|(answer, _)| answer.status == 201).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn redlock_goes_on_without_one_of_five_nodes_and_refuses_without_three() {
    let mut nodes = redis_nodes(5);
    let urls: Vec<_> = nodes.iter().map(Redis::url).collect();
    let servers = two_instances(&["strategy.wallet=redlock", &redlock_setting(&urls)]).await;
    let owner = servers[0].person().await;

    let answered = Answered::default();
    let all = charges_counted(&servers, &owner, "five", 5, &answered);
    let kill = async {
        answered.at_least(10).await;
        nodes[0].kill().expect("killed");
    };
    let (all, ()) = tokio::join!(all, kill);
    let four = charges(&servers, &owner, "four", 5).await;
    assert_eq!((applied(&all), applied(&four)), (50, 50), "a majority is enough");

    nodes[1].kill().expect("killed");
    nodes[2].kill().expect("killed");
    let two = charges(&servers, &owner, "two", 1).await;
    assert!(two.iter().all(|(answer, _)| matches!((answer.status, answer.code()), (503, _) | (409, "busy"))), "{two:?}");
    let slowest = two.iter().map(|(_, took)| *took).max().unwrap_or_default();
    println!("refused within {slowest:?}, wait_ms {}", WAIT.as_millis());
    assert!(slowest < (WAIT + Duration::from_millis(500)) * 10);
    assert_eq!(owner.balance().await, 100, "what was refused had no effect");

    for node in &mut nodes[..3] {
        node.restart().expect("it starts again");
    }
    // The same keys again: commands that were refused are decided now, once.
    eventually("a majority", async || {
        let again = charges(&servers, &owner, "two", 1).await;
        (applied(&again) == 10).then_some(())
    })
    .await;
    assert_eq!(owner.balance().await, 110);
    Server::audit_and_stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_forgets_everything_loses_no_place_and_sells_no_seat_twice() {
    let node = Redis::start().expect("Redis starts");
    let redis = format!("redis.urls=[{:?}]", node.url());
    let set = [redis.as_str(), "queue.backend=redis", "strategy.seat=pubsub", "strategy.payment=spin", "admission.max_active=20"];
    let servers = two_instances(&set).await;
    let (concert, date) = servers[0].one_date(seats(400, 1_000)).await;
    servers[1].shows(&concert).await;
    let active = servers[0].people_with_a_turn(20, &concert).await;
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut person = servers[0].person().await;
        person.join(&concert).await.expect(201);
        waiting.push(person);
    }
    let places = |people: Vec<Person>| async move {
        let mut places = Vec::new();
        for mut person in people {
            let answer = person.status().await;
            places.push((answer.text("status"), answer.number("place")));
        }
        places
    };
    let before = places(waiting.clone()).await;

    // All active people hold the same few seats, while Redis is emptied again and again.
    let asked = Answered::default();
    let buying = active.iter().enumerate().map(|(n, person)| {
        let (mut person, date, asked) = (person.clone().at(&servers[n % 2].base), date.clone(), asked.clone());
        async move {
            let mut held = Vec::new();
            for seat in 1..=12_u32 {
                let answer = person.hold(&format!("h{seat}"), &date, &[seat]).await;
                asked.0.fetch_add(1, Ordering::SeqCst);
                match (answer.status, answer.code()) {
                    (201, _) => held.push(seat),
                    (409, "seat_unavailable" | "busy") | (422, "seat_limit_exceeded") | (503, _) | (403, "queue_waiting") => {}
                    _ => panic!("{answer:?}"),
                }
            }
            person.status().await;
            held
        }
    });
    let flushing = async {
        for flushes in 1..=10 {
            asked.at_least(flushes * 20).await;
            node.flush().expect("flushed");
        }
    };
    let (held, ()) = tokio::join!(at_once(buying), flushing);
    let sold: Vec<u32> = held.into_iter().flatten().collect();
    assert_eq!(sold.iter().collect::<HashSet<_>>().len(), sold.len(), "no seat has two holders");
    servers[0].audit().await;

    node.flush().expect("flushed");
    let after = eventually("the queue", async || {
        let after = places(waiting.clone()).await;
        after.iter().all(|(status, _)| status == "waiting").then_some(after)
    })
    .await;
    assert_eq!(after, before, "each entry keeps its place");
    let mut late = servers[1].person().await;
    late.join(&concert).await.expect(201);
    let behind = late.status().await.number("ahead");
    assert_eq!(behind, 30, "a new entry is behind all others");

    // When five leave, the first five in line get turns.
    for person in &active[..5] {
        person.delete("/queue").await.expect(204);
    }
    for (n, mut person) in waiting.into_iter().enumerate() {
        let answer = person.status().await;
        if n < 5 {
            person.await_turn().await;
        } else {
            assert_eq!(answer.text("status"), "waiting", "not out of turn");
        }
    }
    Server::audit_and_stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_refused_while_redis_is_away_and_decided_when_it_is_back() {
    let mut node = Redis::start().expect("Redis starts");
    let redis = format!("redis.urls=[{:?}]", node.url());
    let servers = two_instances(&[&redis, "strategy.wallet=pubsub"]).await;
    let owner = servers[0].person().await;
    assert_eq!(applied(&charges(&servers, &owner, "there", 2).await), 20);
    node.kill().expect("killed");
    let away = charges(&servers, &owner, "away", 1).await;
    assert!(away.iter().all(|(answer, _)| matches!((answer.status, answer.code()), (503, _) | (409, "busy"))), "{away:?}");
    let ready = Answer::to(servers[0].http().get(format!("{}/health/ready", servers[0].base))).await.expect(503);
    let down: Vec<_> = ready.at("checks").as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(down.len(), 1, "{ready:?}");
    assert_eq!(owner.balance().await, 20);
    node.restart().expect("it starts again");
    eventually("Redis", async || (applied(&charges(&servers, &owner, "away", 1).await) == 10).then_some(())).await;
    assert_eq!(owner.balance().await, 30);
    Server::audit_and_stop(servers).await;
}

/// As after a fail-over to a node that takes no writes yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_writes_is_not_ready_and_serves_again_with_them() {
    let url = boxoffice_tests::services::database().await;
    let name = url.rsplit('/').next().expect("a name").to_owned();
    let sql = async |statement: String| {
        tokio::task::spawn_blocking(move || Postgres::shared().sql(&statement)).await.expect("no panic").expect("done")
    };
    let servers = two_instances(&[&format!("store.postgres_url={url}"), "queue.backend=store"]).await;
    let (concert, _) = servers[0].one_date(seats(50, 1_000)).await;
    servers[1].shows(&concert).await;
    let owner = servers[0].person().await;
    assert_eq!(applied(&charges(&servers, &owner, "before", 2).await), 20);

    sql(format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    sql(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
    let ready = async |server: &Server| Answer::to(server.http().get(format!("{}/health/ready", server.base))).await;
    for server in &servers {
        let refused = eventually("not ready", async || Some(ready(server).await).filter(|answer| answer.status == 503)).await;
        let is_store_down = |check: &serde_json::Value| check["name"] == "store" && check["ok"] == false;
        assert!(refused.at("checks").as_array().unwrap().iter().any(is_store_down), "{refused:?}");
        let joined = server.person().await.join(&concert).await;
        assert_eq!(joined.status, 503, "{joined:?}");
        assert_eq!(Answer::to(server.http().get(format!("{}/health/live", server.base))).await.status, 200);
    }
    let away = charges(&servers, &owner, "away", 1).await;
    assert!(away.iter().all(|(answer, _)| answer.status == 503), "{away:?}");

    sql(format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    let back = Instant::now();
    for server in &servers {
        eventually("ready", async || (ready(server).await.status == 200).then_some(())).await;
        eventually("a place", async || (server.person().await.join(&concert).await.status == 201).then_some(())).await;
    }
    eventually("charges", async || (applied(&charges(&servers, &owner, "away", 1).await) == 10).then_some(())).await;
    println!("ready {:?} after the database", back.elapsed());
    // On every lane and session, not only on the first that is used.
    assert_eq!(applied(&charges(&servers, &owner, "after", 5).await), 50);
    for server in &servers {
        for _ in 0..10 {
            server.person().await.join(&concert).await.expect(201);
        }
    }
    assert_eq!(owner.balance().await, 80);
    Server::audit_and_stop(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_charges_survive_a_kill_of_postgres() {
    let mut cluster = tokio::task::spawn_blocking(|| Postgres::start().expect("PostgreSQL starts")).await.unwrap();
    let url = format!("store.postgres_url={}", cluster.database().expect("a database"));
    let servers = two_instances(&[&url, "strategy.wallet=combining"]).await;
    let owner = servers[0].person().await;
    let before = charges(&servers, &owner, "before", 3).await;
    assert_eq!(applied(&before), 30);
    let answered = Answered::default();
    let during = charges_counted(&servers, &owner, "during", 30, &answered);
    let kill = async {
        answered.at_least(30).await;
        cluster.kill().expect("killed");
        cluster.restart().expect("it starts again");
    };
    let (during, ()) = tokio::join!(during, kill);
    assert!(during.iter().all(|(answer, _)| [201, 503].contains(&answer.status)), "{during:?}");
    // The same keys again: answered charges are replayed, all others are decided once.
    let again = eventually("PostgreSQL", async || {
        let again = charges(&servers, &owner, "during", 30).await;
        (applied(&again) == 300).then_some(again)
    })
    .await;
    for ((first, _), (second, _)) in during.iter().zip(&again) {
        if first.status == 201 {
            assert_eq!(first.essence(), second.essence());
            assert!(second.is_replay());
        }
    }
    assert_eq!(owner.balance().await, 330);
    Server::audit_and_stop(servers).await;
}

/// Payments are answered while Redis is away, their events are printed (I7), and the turns end once the room is back.
#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_and_payments_are_answered_while_redis_is_away() {
    const BUYERS: u32 = 5;
    let (mut node, folder) = (Redis::start().expect("Redis starts"), TempDir::new().unwrap());
    let redis = format!("redis.urls=[{:?}]", node.url());
    let mut server = Process::start_printing_events(&folder.path().join("b.db"), &["queue.backend=redis", &redis]).await.unwrap();
    let (concert, date) = server.one_date(seats(50, 1_000)).await;
    let mut held = Vec::new();
    for seat in 1..=BUYERS {
        let mut person = server.person(false).await;
        person.charge(1_000).await;
        eventually("a place", async || (person.join(&concert).await.status == 201).then_some(())).await;
        person.await_turn().await;
        let hold = person.hold("h", &date, &[seat]).await.expect(201).text("id");
        held.push((person, hold));
    }
    node.kill().expect("killed");
    for (person, hold) in &held {
        person.pay("p", hold).await.expect(201);
    }
    let mut paid = 0;
    while paid < BUYERS {
        let line = tokio::time::timeout(EVENT_MAX, server.line()).await.expect("an event, while Redis is away").unwrap();
        paid += u32::from(line.contains("\"payment.paid\""));
    }
    node.restart().expect("it starts again");
    for (person, _) in &mut held {
        // A join finds the turn that was paid, until the room has ended it.
        eventually("a new place", async || (person.join(&concert).await.status == 201).then_some(())).await;
    }
    assert!(server.terminate().await.unwrap().success());
}
