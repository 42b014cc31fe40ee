//! Commands that stand in a log: who does not wait is told 202 and where to ask; who waits too long likewise; and what
//! comes of those that nobody decides.

use crate::brokers::{Log, own_postgres, through_each_log};
use boxoffice_services::Postgres;
use boxoffice_tests::{Answer, Person, Server, Setup, at_once, eventually, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::process::{ChildStdin, Stdio};
use tokio::task::block_in_place;

/// Nothing is decided while this lives: no reply can be written, though everything can be read.
struct Undecided {
    _session: ChildStdin,
}

impl Undecided {
    fn on(server: &Server) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let url = server.running.settings.store.postgres_url.expose();
        block_in_place(|| {
            let mut psql = std::process::Command::new(Postgres::shared().bin().join("psql"));
            psql.args(["-X", "-q", "-A", "-t", "-d", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut psql = psql.spawn().expect("psql starts");
            let mut session = psql.stdin.take().expect("a standard input");
            session.write_all(b"BEGIN; LOCK TABLE replies IN SHARE MODE; SELECT 'locked';\n").expect("written");
            let mut line = String::new();
            BufReader::new(psql.stdout.take().expect("a standard output")).read_line(&mut line).expect("an answer");
            assert_eq!(line.trim(), "locked");
            // It ends with its standard input, and somebody has to see it off.
            std::thread::spawn(move || psql.wait());
            Self { _session: session }
        })
    }
}

impl Undecided {
    /// Whether a command has come to the ledger. What prunes old replies waits too.
    fn is_waited_for(&self, server: &Server) -> bool {
        let url = server.running.settings.store.postgres_url.expose();
        let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE NOT granted AND relation = 'replies'::regclass AND query LIKE '%INSERT INTO replies%'";
        block_in_place(|| Postgres::shared().sql_in(url, waiting)).expect("an answer").trim() != "0"
    }
}

fn not_waiting(request: RequestBuilder) -> RequestBuilder {
    request.header("Prefer", "respond-async")
}

/// Sends without waiting; where to ask.
async fn accepted(request: RequestBuilder) -> String {
    let answer = Answer::to(not_waiting(request)).await.expect(202);
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let valid_until = chrono::DateTime::parse_from_rfc3339(&answer.text("valid_until"));
    assert!(valid_until.is_ok(), "{answer:?}");
    let location = answer.header("location").expect("a location").to_owned();
    assert_eq!(location, format!("/api/v1/commands/{}", answer.text("command_id")));
    location.trim_start_matches("/api/v1").to_owned()
}

/// What came of it, once it is decided: status and body of the response.
async fn outcome(owner: &Person, location: &str) -> Answer {
    eventually("the command is decided", async || {
        let told = owner.get(location).await.expect(200);
        match told.text("status").as_str() {
            "pending" => {
                assert_eq!(told.at("response"), &Value::Null);
                None
            }
            status => {
                assert_eq!(status, "done");
                let status = told.number("response/status").try_into().expect("a status");
                Some(Answer { status, headers: Default::default(), body: told.at("response/body").clone() })
            }
        }
    })
    .await
}

/// The command is decided as its replay says.
async fn decided(owner: &Person, request: impl Fn() -> RequestBuilder, status: u16) -> Answer {
    let location = accepted(request()).await;
    let outcome = outcome(owner, &location).await.expect(status);
    let replay = replay_of(&request, &outcome).await;
    let unhurried = Answer::to(not_waiting(request())).await;
    assert!(unhurried.is_replay(), "what is decided is told at once: {unhurried:?}");
    assert_eq!(unhurried.essence(), replay.essence());
    outcome
}

/// The ledger may have the outcome a moment before it is told: whoever asks again then is the first to be answered. The
/// next answer is a replay.
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

async fn stop(servers: Vec<Server>) {
    servers[0].audit().await;
    for server in servers {
        server.running.stop().await;
    }
}

/// Every kind of command, refusals too.
pub(super) async fn who_does_not_wait_is_told_later_what_the_replay_says(log: Log) {
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

    // A release has no key: where it is asked for, and again it is the same.
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

    // Somebody else's, and what we did not sign.
    let location = accepted(owner.writing("/wallet/charges", "c2", &json!({ "amount": 5 }))).await;
    rival.get(&location).await.expect_problem(404, "not_found");
    for forged in [format!("{location}x"), location[..location.len() - 2].to_owned(), "/commands/0".to_owned()] {
        owner.get(&forged).await.expect_problem(404, "not_found");
    }
    outcome(&owner.clone().at(&servers[1].base), &location).await.expect(201);
    stop(servers).await;
}

/// Equal requests over both instances while the first of them is undecided: one effect, equal answers.
pub(super) async fn equal_requests_wait_for_the_first_while_it_is_undecided(log: Log) {
    let servers = two_instances(log, &[]).await;
    let owner = servers[0].person().await;
    let at = |n: usize| owner.clone().at(&servers[n % 2].base);
    let charge = |n: usize| at(n).writing("/wallet/charges", "k", &json!({ "amount": 7 }));
    let undecided = Undecided::on(&servers[0]);
    let locations = [accepted(charge(0)).await, accepted(charge(1)).await];
    for location in &locations {
        assert_eq!(owner.get(location).await.expect(200).text("status"), "pending");
    }
    let waiting = tokio::spawn(at_once((0..20).map(charge).map(Answer::to).collect::<Vec<_>>()));
    eventually("they stand in the log", async || servers.iter().all(|it| it.running.stats.logged_commands.get() > 1).then_some(())).await;
    Answer::to(at(1).writing("/wallet/charges", "k", &json!({ "amount": 8 }))).await.expect_problem(422, "idempotency_key_reused");
    drop(undecided);
    let answers = waiting.await.unwrap();
    let told = outcome(&owner, &locations[0]).await;
    assert_eq!(told.essence(), outcome(&at(1), &locations[1]).await.essence());
    for answer in &answers {
        assert_eq!(answer.clone().expect(201).essence(), told.essence());
    }
    assert_eq!(owner.balance().await, 7);
    stop(servers).await;
}

/// Commands of an instance that may stand in the log.
const BACKLOG: usize = 8;

pub(super) async fn beyond_the_backlog_the_answer_is_overloaded_and_nothing_changes(log: Log) {
    let servers = two_instances(log, &[&format!("strategy.backlog_max={BACKLOG}")]).await;
    let owner = servers[0].person().await;
    let charge = |n: usize| owner.writing("/wallet/charges", &format!("k{n}"), &json!({ "amount": 1 }));
    let undecided = Undecided::on(&servers[0]);
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
    // Another instance counts its own.
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
    stop(servers).await;
}

pub(super) async fn who_waits_too_long_is_told_where_to_ask(log: Log) {
    let (cluster, url) = own_postgres();
    let set = [&format!("store.postgres_url={url}"), "strategy.wait_ms=500"];
    let servers = two_instances(log, &set).await;
    let owner = servers[0].person().await;
    let first = || owner.writing("/wallet/charges", "first", &json!({ "amount": 100 }));
    // The readers may have only just begun.
    eventually("a charge in time", async || (Answer::to(first()).await.status == 201).then_some(())).await;
    block_in_place(|| cluster.pause()).expect("hung");
    let charge = || owner.writing("/wallet/charges", "k", &json!({ "amount": 7 }));
    let answer = Answer::to(charge()).await.expect(202);
    assert_eq!(answer.header("preference-applied"), None, "it was not asked for");
    block_in_place(|| cluster.resume()).expect("it goes on");
    let location = answer.header("location").expect("a location").trim_start_matches("/api/v1").to_owned();
    let told = outcome(&owner, &location).await.expect(201);
    assert_eq!(told.number("balance"), 107);
    eventually("an answer in time", async || (Answer::to(charge()).await.status == 201).then_some(())).await;
    replay_of(charge, &told).await;
    assert_eq!(owner.balance().await, 107);
    stop(servers).await;
}

/// Half of `idempotency.ttl_s`: for so long a command may stand in the log.
const RETENTION_S: i64 = 3_600;

pub(super) async fn what_nobody_decides_in_time_is_dead(log: Log) {
    let set = [&format!("idempotency.ttl_s={}", 2 * RETENTION_S), "kafka.partitions=1", "rabbitmq.shards=1", "strategy.batch_max=1"];
    let servers = two_instances(log, &set).await;
    let owner = servers[0].person().await;
    let charge = |key: &str| owner.writing("/wallet/charges", key, &json!({ "amount": 1 }));
    let undecided = Undecided::on(&servers[0]);
    // The first one is in the reader's hands; the second one waits behind it.
    let first = accepted(charge("first")).await;
    eventually("the first is taken", async || undecided.is_waited_for(&servers[0]).then_some(())).await;
    let second = accepted(charge("second")).await;
    assert_eq!(owner.get(&second).await.expect(200).text("status"), "pending");
    servers[0].advance(RETENTION_S + 1);
    let dead = owner.get(&second).await.expect(200);
    assert_eq!((dead.text("status").as_str(), dead.at("response")), ("dead", &Value::Null));
    drop(undecided);
    outcome_of_the_first(&owner, &first).await;
    eventually("the second is buried", async || (log.dead_letters(&servers[0]).await == 1).then_some(())).await;
    assert_eq!(owner.get(&second).await.expect(200).text("status"), "dead");
    assert_eq!(owner.balance().await, 1);
    assert!(!Answer::to(charge("second")).await.expect(201).is_replay(), "the key stayed free");
    assert_eq!(owner.balance().await, 2);
    stop(servers).await;
}

/// It reads as dead until it is decided after all.
async fn outcome_of_the_first(owner: &Person, location: &str) {
    eventually("the first is decided", async || (owner.get(location).await.expect(200).text("status") == "done").then_some(())).await;
}

through_each_log! {
    who_does_not_wait_is_told_later_what_the_replay_says
    equal_requests_wait_for_the_first_while_it_is_undecided
    beyond_the_backlog_the_answer_is_overloaded_and_nothing_changes
    who_waits_too_long_is_told_where_to_ask
    what_nobody_decides_in_time_is_dead
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies_without_a_log_answer_as_always() {
    for strategy in ["combining", "memory", "pessimistic"] {
        let server = Setup::default().with(&format!("strategy.wallet={strategy}")).start().await;
        let owner = server.person().await;
        let charge = || not_waiting(owner.writing("/wallet/charges", "k", &json!({ "amount": 5 })));
        let answer = Answer::to(charge()).await.expect(201);
        assert_eq!((answer.header("preference-applied"), answer.number("balance")), (None, 5));
        assert!(Answer::to(charge()).await.expect(201).is_replay());
    }
}
