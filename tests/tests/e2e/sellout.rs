//! The busiest second of a sale: a concert that is new, the last seats, and a crowd after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boxoffice_adapters::clock::SystemIds;
use boxoffice_domain::{Actor, Command, CommandId, Decision, FreshIds, Outcome, Reply, Request, UserId};
use boxoffice_ports::{Deadline, Ids, Receipt};
use boxoffice_tests::{Answer, PATIENCE, Person, Server, Setup, at_once, concert, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Two instances on one PostgreSQL.
async fn two() -> Vec<Server> {
    Setup::default().with("admission.max_active=1000").on_postgres().await.start_many(2).await
}

/// `GET /api/v1/concerts/{id}`, `POST /api/v1/concerts/{id}/queue`, `GET /api/v1/concerts/{id}/dates` and others.
#[tokio::test(flavor = "multi_thread")]
async fn a_concert_imported_at_one_instance_is_found_at_once_at_another() {
    let servers = two().await;
    let (here, there) = (servers[0].operator().await, &servers[1]);
    // Each path is the first request at the other instance for its concert.
    for (at, path) in ["", "/draw", "/dates", "/queue", "/reservations", "/admission", "/stats"].into_iter().enumerate() {
        let document = concert(&servers[0], &format!("concert-{at}"), &[seats(50, 1_000)]);
        let made = here.request(Method::POST, "/admin/concerts").json(&document).send().await.unwrap();
        let made: Value = made.json().await.unwrap();
        let (id, date) = (made["id"].as_str().unwrap(), made["dates"][0]["id"].as_str().unwrap());
        let mut buyer = there.person().await;
        match path {
            "/admission" | "/stats" => {
                there.operator().await.get(&format!("/admin/concerts/{id}{path}")).await.expect(200);
            }
            "/queue" => {
                buyer.join(id).await.expect(201);
            }
            "/dates" | "/reservations" => {
                // The turn began at the first instance; the second one has not read the concert yet.
                let mut buyer = servers[0].person().await;
                buyer.enter(id).await;
                let buyer = buyer.at(&there.base);
                if path == "/dates" {
                    buyer.get(&format!("/concerts/{id}/dates")).await.expect(200);
                } else {
                    buyer.hold("hold", date, &[1]).await.expect(201);
                }
            }
            // This concert has no draw: both instances answer so alike.
            "/draw" => {
                let answers = [here.get(&format!("/concerts/{id}/draw")).await, buyer.get(&format!("/concerts/{id}/draw")).await];
                assert_eq!(answers[0].status, answers[1].status);
            }
            _ => {
                buyer.get(&format!("/concerts/{id}")).await.expect(200);
            }
        }
    }
    there.person().await.get(&format!("/concerts/{}", "00000000-0000-4000-8000-000000000000")).await.expect_problem(404, "not_found");
    servers[0].audit().await;
}

/// Holds every seat of a hall except `left`, for other users.
async fn sell_all_but(server: &Server, date: &str, seats: u32, left: &[u32]) {
    let date: Uuid = date.parse().unwrap();
    let numbers: Vec<u32> = (1..=seats).filter(|number| !left.contains(number)).collect();
    let hold = |choice: &[u32]| {
        let (user, fresh) = (UserId(SystemIds.fresh()), SystemIds.fresh());
        let (count, choices) = (choice.len() as u32, vec![choice.to_vec()]);
        let command = Command::HoldSeats { user, date: date.into(), count, choices, best: false, last: true };
        let fresh_ids = FreshIds { subject: fresh, entry: fresh, points: [fresh; 2] };
        Request { command_id: CommandId(fresh), actor: Actor::User(user), fingerprint: None, fresh: fresh_ids, command }
    };
    for some in numbers.chunks(2_000) {
        let executor = server.running.executors.seat.clone();
        let held = at_once(some.chunks(4).map(hold).map(|request| {
            let executor = executor.clone();
            async move { executor.execute(request, Deadline::after(PATIENCE)).await.unwrap() }
        }));
        let is_held = |receipt: &Receipt| matches!(receipt, Receipt::Done(Reply { decision: Decision::Done(Outcome::Held { .. }), .. }));
        assert!(held.await.iter().all(is_held));
    }
}

fn best(buyer: &Person, key: &str, date: &str, best: &Value) -> RequestBuilder {
    buyer.writing("/reservations", key, &json!({ "date_id": date, "best": best }))
}

/// Requests `/health/live` until it is stopped: the time of the slowest answer.
fn watch(server: &Server) -> (Arc<AtomicBool>, JoinHandle<Duration>) {
    let (stop, http, url) = (Arc::new(AtomicBool::new(false)), server.http().clone(), format!("{}/health/live", server.base));
    let stopped = stop.clone();
    let watching = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !stopped.load(Ordering::SeqCst) {
            let asked = Instant::now();
            Answer::to(http.get(&url)).await.expect(200);
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        longest
    });
    (stop, watching)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_in_front_of_a_sold_out_date_costs_the_ledger_nothing() {
    let server = Setup::default().with("admission.max_active=1000").start().await;
    let (concert, date) = server.one_date(seats(20_000, 1_000)).await;
    let buyers = server.people_with_a_turn(300, &concert).await;
    let lucky = best(&buyers[0], "first", &date, &json!({ "count": 2 }));
    let held = Answer::to(lucky).await.expect(201);
    sell_all_but(&server, &date, 20_000, &[1, 2, 777, 900]).await;
    let commands = server.running.stats.commands.get();
    let (stop, watching) = watch(&server);
    let searches = [json!({ "count": 2 }), json!({ "count": 2, "grade": "R" }), json!({ "count": 3, "adjacent": false })];
    let began = Instant::now();
    let answers = at_once(buyers.iter().cloned().enumerate().map(|(at, buyer)| {
        let request = best(&buyer, "mine", &date, &searches[at % 3]);
        async move { Answer::to(request).await }
    }))
    .await;
    stop.store(true, Ordering::SeqCst);
    println!("{} refusals in {:?}, /health/live at most {:?}", answers.len(), began.elapsed(), watching.await.unwrap());
    for answer in answers {
        let answer = answer.expect_problem(409, "seat_unavailable");
        assert_eq!((answer.at("seats"), answer.is_replay()), (&json!([]), false));
    }
    assert_eq!(server.running.stats.commands.get(), commands, "none of them reached the ledger");
    // An answer from before is replayed, and a key that was used for another request is refused.
    let again = Answer::to(best(&buyers[0], "first", &date, &json!({ "count": 2 }))).await.expect(201);
    assert!(again.is_replay() && again.text("id") == held.text("id"));
    Answer::to(best(&buyers[0], "first", &date, &json!({ "count": 3 }))).await.expect_problem(422, "idempotency_key_reused");
    // The refusal was not stored: the same key gets the seats that have come back since.
    buyers[0].delete(&format!("/reservations/{}", held.text("id"))).await.expect(204);
    let mine = Answer::to(best(&buyers[3], "mine", &date, &json!({ "count": 2 }))).await.expect(201);
    assert_eq!((mine.number("seats/0/number"), mine.number("seats/1/number")), (1, 2));
    server.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pairs_are_each_sold_once_to_a_crowd_on_two_instances() {
    let servers = two().await;
    let (concert, date) = servers[0].one_date(seats(2_000, 1_000)).await;
    // Ten pairs, and ten single seats between them.
    let left: Vec<u32> = (1..=10).flat_map(|n| [n * 100, n * 100 + 1, n * 100 + 50]).collect();
    let buyers = servers[0].people_with_a_turn(400, &concert).await;
    sell_all_but(&servers[0], &date, 2_000, &left).await;
    let ask = |at: usize, buyer: Person, search: Value| {
        let request = best(&buyer.at(&servers[at % 2].base), "mine", &date, &search);
        async move { Answer::to(request).await }
    };
    let pairs = buyers.iter().cloned().enumerate().map(|(at, buyer)| ask(at, buyer, json!({ "count": 2 })));
    let answers = at_once(pairs.collect::<Vec<_>>()).await;
    let mut sold: Vec<i64> = answers.iter().filter(|answer| answer.status == 201).map(|answer| answer.number("seats/0/number")).collect();
    sold.sort_unstable();
    assert_eq!(sold, (1..=10).map(|n| n * 100).collect::<Vec<_>>(), "every pair, each once");
    let refused = answers.iter().filter(|answer| answer.status == 409 && answer.code() == "seat_unavailable").count();
    assert_eq!(refused, answers.len() - sold.len(), "{:?}", answers.iter().find(|answer| ![201, 409].contains(&answer.status)));
    // The single seats are for searches that need not be adjacent.
    let late = buyers.into_iter().enumerate().skip(300).map(|(at, buyer)| {
        let request = best(&buyer.at(&servers[at % 2].base), "apart", &date, &json!({ "count": 2, "grade": "R", "adjacent": false }));
        async move { Answer::to(request).await }
    });
    let answers = at_once(late.collect::<Vec<_>>()).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5, "ten single seats");
    servers[0].audit().await;
}
