//! Commands in a log: a caller that does not wait, or waits too long, is answered 202 with where to ask; and a command
//! that is never decided.

use crate::brokers::{Log, own_postgres, through_each_log};
use boxoffice_services::Postgres;
use boxoffice_tests::{Answer, OpenTransaction, Person, Server, Setup, at_once, eventually, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// While this lives no command is decided: no reply can be written, though everything can be read.
fn undecided(server: &Server) -> OpenTransaction {
    block_in_place(|| OpenTransaction::begin(server.running.settings.store.postgres_url.expose(), "LOCK TABLE replies IN SHARE MODE"))
}

/// Whether the ledger waits for [`undecided`]. The pruning of old replies waits too, and does not count.
fn is_waited_for(server: &Server) -> bool {
    let url = server.running.settings.store.postgres_url.expose();
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
         WHERE NOT granted AND relation = 'replies'::regclass AND query LIKE '%INSERT INTO replies%'";
    block_in_place(|| Postgres::shared().sql_in(url, waiting)).expect("an answer").trim() != "0"
}

fn not_waiting(request: RequestBuilder) -> RequestBuilder {
    request.header("Prefer", "respond-async")
}

/// Sends without waiting; the path to ask at.
async fn accepted(request: RequestBuilder) -> String {
    let answer = Answer::to(not_waiting(request)).await.expect(202);
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let valid_until = chrono::DateTime::parse_from_rfc3339(&answer.text("valid_until"));
    assert!(valid_until.is_ok(), "{answer:?}");
    let location = answer.header("location").expect("a location").to_owned();
    assert_eq!(location, format!("/api/v1/commands/{}", answer.text("command_id")));
    location.trim_start_matches("/api/v1").to_owned()
}

/// The outcome of a command, once it is decided: status and body of the response.
async fn outcome(owner: &Person, location: &str) -> Answer {
    eventually("the command is decided", async || {
        let command = owner.get(location).await.expect(200);
        match command.text("status").as_str() {
            "pending" => {
                assert_eq!(command.at("response"), &Value::Null);
                None
            }
            status => {
                assert_eq!(status, "done");
                let status = command.number("response/status").try_into().expect("a status");
                Some(Answer { status, headers: Default::default(), body: command.at("response/body").clone() })
            }
        }
    })
    .await
}

/// Sends a command without waiting: its outcome, which is that of its replay.
async fn decided(owner: &Person, request: impl Fn() -> RequestBuilder, status: u16) -> Answer {
    let location = accepted(request()).await;
    let outcome = outcome(owner, &location).await.expect(status);
    let replay = replay_of(&request, &outcome).await;
    let unhurried = Answer::to(not_waiting(request())).await;
    assert!(unhurried.is_replay(), "a decided command is answered at once: {unhurried:?}");
    assert_eq!(unhurried.essence(), replay.essence());
    outcome
}

/// The ledger may have the outcome a moment before the answer is sent, and then the next request is answered first. The
/// one after it is a replay.
async fn replay_of(request: impl Fn() -> RequestBuilder, outcome: &Answer) -> Answer {
    let first = Answer::to(request()).await;
    assert_eq!(first.essence(), outcome.essence());
    let replay = Answer::to(request()).await;
    assert!(replay.is_replay(), "{replay:?}");
    assert_eq!(replay.essence(), outcome.essence());
    replay
}

async fn two_instances(log: Log, set: &[&str]) -> Vec<Server> {
    let setup = log.setup().await.with("strategy.wait_ms=30000");
    set.iter().fold(setup, |setup, set| setup.with(set)).start_many(2).await
}

/// `GET /api/v1/commands/{command_id}`, for every kind of command, also for refusals.
pub(super) async fn a_command_sent_without_waiting_has_the_outcome_of_its_replay(log: Log) {
    let servers = two_instances(log, &[]).await;
    let (concert, date) = servers[0].one_date(seats(20, 1_000)).await;
    servers[1].shows(&concert).await;
    let (mut owner, rival) = (servers[0].person().await, servers[0].person().await);
    let charge = || owner.writing("/wallet/charges", "c", &json!({ "amount": 10_000 }));
    assert_eq!(decided(&owner, charge, 201).await.number("balance"), 10_000);
    let spend = || owner.writing("/wallet/uses", "u", &json!({ "amount": 10_001 }));
    assert_eq!(decided(&owner, spend, 402).await.code(), "insufficient_balance");

    owner.enter(&concert).await;
    let hold = |key: &str, body: Value| owner.writing("/reservations", key, &body);
    let named = || hold("h1", json!({ "date_id": date, "seats": [7] }));
    let held = decided(&owner, named, 201).await.text("id");
    assert_eq!(decided(&owner, || hold("h2", json!({ "date_id": date, "seats": [7] })), 409).await.code(), "seat_unavailable");
    let best = || hold("h3", json!({ "date_id": date, "best": { "count": 2 } }));
    let best = decided(&owner, best, 201).await;
    assert_eq!(best.at("seats").as_array().map(Vec::len), Some(2));
    decided(&owner, || owner.writing(&format!("/reservations/{held}/extend"), "e", &json!(null)), 200).await;

    // A release has no key: sent again, it has the same outcome.
    let release = || owner.request(Method::DELETE, &format!("/reservations/{}", best.text("id")));
    for _ in 0..2 {
        let location = accepted(release()).await;
        assert_eq!(outcome(&owner, &location).await.expect(204).body, Value::Null);
    }
    Answer::to(release()).await.expect(204);
    assert_eq!(owner.get(&format!("/reservations/{}", best.text("id"))).await.text("status"), "released");
    let location = accepted(rival.request(Method::DELETE, &format!("/reservations/{held}"))).await;
    assert_eq!(outcome(&rival, &location).await.expect(404).code(), "not_found");

    let paid = decided(&owner, || owner.writing("/payments", "p", &json!({ "reservation_id": held })), 201).await.text("id");
    decided(&owner, || owner.writing(&format!("/payments/{paid}/refund"), "r", &json!(null)), 200).await;
    assert_eq!(owner.balance().await, 10_000);

    // The id of another user's command, and ids that the server did not sign.
    let location = accepted(owner.writing("/wallet/charges", "c2", &json!({ "amount": 5 }))).await;
    rival.get(&location).await.expect_problem(404, "not_found");
    for forged in [format!("{location}x"), location[..location.len() - 2].to_owned(), "/commands/0".to_owned()] {
        owner.get(&forged).await.expect_problem(404, "not_found");
    }
    outcome(&owner.clone().at(&servers[1].base), &location).await.expect(201);
    Server::audit_and_stop(servers).await;
}

/// Equal requests over both instances while the first of them is undecided: one effect, equal answers (I3).
pub(super) async fn equal_requests_wait_for_the_first_while_it_is_undecided(log: Log) {
    let servers = two_instances(log, &[]).await;
    let owner = servers[0].person().await;
    let at = |n: usize| owner.clone().at(&servers[n % 2].base);
    let charge = |n: usize| at(n).writing("/wallet/charges", "k", &json!({ "amount": 7 }));
    let undecided = undecided(&servers[0]);
    let locations = [accepted(charge(0)).await, accepted(charge(1)).await];
    for location in &locations {
        assert_eq!(owner.get(location).await.expect(200).text("status"), "pending");
    }
    let waiting = tokio::spawn(at_once((0..20).map(charge).map(Answer::to).collect::<Vec<_>>()));
    eventually("they stand in the log", async || servers.iter().all(|it| it.running.stats.logged_commands.get() > 1).then_some(())).await;
    Answer::to(at(1).writing("/wallet/charges", "k", &json!({ "amount": 8 }))).await.expect_problem(422, "idempotency_key_reused");
    drop(undecided);
    let answers = waiting.await.unwrap();
    let decided = outcome(&owner, &locations[0]).await;
    assert_eq!(decided.essence(), outcome(&at(1), &locations[1]).await.essence());
    for answer in &answers {
        assert_eq!(answer.clone().expect(201).essence(), decided.essence());
    }
    assert_eq!(owner.balance().await, 7);
    Server::audit_and_stop(servers).await;
}

/// How many commands of an instance may be in the log.
const BACKLOG: usize = 8;

pub(super) async fn beyond_the_backlog_the_answer_is_overloaded_and_nothing_changes(log: Log) {
    let servers = two_instances(log, &[&format!("strategy.backlog_max={BACKLOG}")]).await;
    let owner = servers[0].person().await;
    let charge = |n: usize| owner.writing("/wallet/charges", &format!("k{n}"), &json!({ "amount": 1 }));
    let undecided = undecided(&servers[0]);
    let mut locations = Vec::new();
    for n in 0..BACKLOG {
        locations.push(accepted(charge(n)).await);
    }
    for n in BACKLOG..BACKLOG + 5 {
        for request in [charge(n), not_waiting(charge(n))] {
            let refused = Answer::to(request).await.expect_problem(503, "overloaded");
            assert!(refused.header("retry-after").is_some());
        }
    }
    // Another instance has a bound of its own.
    let other = owner.clone().at(&servers[1].base);
    locations.push(accepted(other.writing("/wallet/charges", "other", &json!({ "amount": 1 }))).await);
    drop(undecided);
    for location in &locations {
        outcome(&owner, location).await.expect(201);
    }
    assert_eq!(owner.balance().await, BACKLOG as i64 + 1, "what was refused had no effect");
    for n in BACKLOG..BACKLOG + 5 {
        let answer = eventually("there is room again", async || {
            let answer = Answer::to(charge(n)).await;
            (answer.code() != "overloaded").then_some(answer)
        })
        .await;
        assert!(!answer.expect(201).is_replay(), "the key stayed free");
    }
    assert_eq!(owner.balance().await, BACKLOG as i64 + 6);
    Server::audit_and_stop(servers).await;
}

pub(super) async fn a_wait_that_runs_out_is_answered_with_where_to_ask(log: Log) {
    let (cluster, url) = own_postgres();
    let set = [&format!("store.postgres_url={url}"), "strategy.wait_ms=500"];
    let servers = two_instances(log, &set).await;
    let owner = servers[0].person().await;
    let first = || owner.writing("/wallet/charges", "first", &json!({ "amount": 100 }));
    // The readers may have just started.
    eventually("a charge in time", async || (Answer::to(first()).await.status == 201).then_some(())).await;
    block_in_place(|| cluster.pause()).expect("hung");
    let charge = || owner.writing("/wallet/charges", "k", &json!({ "amount": 7 }));
    let answer = Answer::to(charge()).await.expect(202);
    assert_eq!(answer.header("preference-applied"), None, "it was not asked for");
    block_in_place(|| cluster.resume()).expect("it goes on");
    let location = answer.header("location").expect("a location").trim_start_matches("/api/v1").to_owned();
    let decided = outcome(&owner, &location).await.expect(201);
    assert_eq!(decided.number("balance"), 107);
    eventually("an answer in time", async || (Answer::to(charge()).await.status == 201).then_some(())).await;
    replay_of(charge, &decided).await;
    assert_eq!(owner.balance().await, 107);
    Server::audit_and_stop(servers).await;
}

/// How long a command may be in the log: half of `idempotency.ttl_s`.
const RETENTION_S: i64 = 3_600;

/// A 202 ends in a reply or a dead letter (I12).
pub(super) async fn a_command_that_is_not_decided_in_time_is_dead(log: Log) {
    let set = [&format!("idempotency.ttl_s={}", 2 * RETENTION_S), "kafka.partitions=1", "rabbitmq.shards=1", "strategy.batch_max=1"];
    let servers = two_instances(log, &set).await;
    let owner = servers[0].person().await;
    let charge = |key: &str| owner.writing("/wallet/charges", key, &json!({ "amount": 1 }));
    let undecided = undecided(&servers[0]);
    // The reader has taken the first one; the second one waits behind it.
    let first = accepted(charge("first")).await;
    eventually("the first is taken", async || is_waited_for(&servers[0]).then_some(())).await;
    let second = accepted(charge("second")).await;
    assert_eq!(owner.get(&second).await.expect(200).text("status"), "pending");
    servers[0].advance(RETENTION_S + 1);
    let dead = owner.get(&second).await.expect(200);
    assert_eq!((dead.text("status").as_str(), dead.at("response")), ("dead", &Value::Null));
    drop(undecided);
    outcome_of_the_first(&owner, &first).await;
    eventually("the second is a dead letter", async || (log.dead_letters(&servers[0]).await == 1).then_some(())).await;
    assert_eq!(owner.get(&second).await.expect(200).text("status"), "dead");
    assert_eq!(owner.balance().await, 1);
    assert!(!Answer::to(charge("second")).await.expect(201).is_replay(), "the key stayed free");
    assert_eq!(owner.balance().await, 2);
    Server::audit_and_stop(servers).await;
}

/// The first command is shown as dead until it is decided after all.
async fn outcome_of_the_first(owner: &Person, location: &str) {
    eventually("the first is decided", async || (owner.get(location).await.expect(200).text("status") == "done").then_some(())).await;
}

through_each_log! {
    a_command_sent_without_waiting_has_the_outcome_of_its_replay
    equal_requests_wait_for_the_first_while_it_is_undecided
    beyond_the_backlog_the_answer_is_overloaded_and_nothing_changes
    a_wait_that_runs_out_is_answered_with_where_to_ask
    a_command_that_is_not_decided_in_time_is_dead
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies_without_a_log_ignore_respond_async() {
    for strategy in ["combining", "memory", "pessimistic"] {
        let server = Setup::default().with(&format!("strategy.wallet={strategy}")).start().await;
        let owner = server.person().await;
        let charge = || not_waiting(owner.writing("/wallet/charges", "k", &json!({ "amount": 5 })));
        let answer = Answer::to(charge()).await.expect(201);
        assert_eq!((answer.header("preference-applied"), answer.number("balance")), (None, 5));
        assert!(Answer::to(charge()).await.expect(201).is_replay());
    }
}
