//! A part that the server needs hangs: while it runs, while it is connected to, or in the middle of a COMMIT.
//!
//! For each part: each request is answered within `strategy.wait_ms` and half a second, readiness names the part, and
//! requests that do not need it are served. When the part goes on so does the server, without a restart, with one effect
//! for each key. [`a_part_hangs`] checks it; the modules have the parts.

mod brokers;
mod postgres;
mod redis;
mod sqlite;

use boxoffice_tests::{Answer, Person, Server, at_once, concert, eventually, seats};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `strategy.wait_ms` of these tests: so short that no other bound can be mistaken for it.
const WAIT: Duration = Duration::from_secs(1);
/// How much longer than `strategy.wait_ms` a request may take.
const LATER: Duration = Duration::from_millis(500);
/// How soon readiness names the part that hangs.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// The factor by which a bound may be exceeded: the machine has other work.
const LOADED: u32 = 3;
/// The detail of a request that was ended at the edge, because nothing below it knew its deadline.
const GIVEN_UP: &str = "there was no answer in time; what was begun is found under its key";
/// Callers that charge one wallet when the part begins to hang, and how many charges each sends.
const CALLERS: usize = 10;
const ROUNDS: usize = 30;
/// Charges that begin while it hangs.
const HUNG: usize = 20;

/// The setting of [`WAIT`].
fn wait() -> String {
    format!("strategy.wait_ms={}", WAIT.as_millis())
}

/// Kinds of requests, by the parts that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Charge,
    Hold,
    Join,
    /// Reads rows that only the store has.
    Read,
    Import,
    /// Polls a place, or reads something else that is answered from memory.
    Look,
}

const KINDS: [Kind; 6] = [Kind::Charge, Kind::Hold, Kind::Join, Kind::Read, Kind::Import, Kind::Look];

/// The statuses that a kind of request may have while the part hangs.
type Statuses = fn(Kind) -> &'static [u16];

/// The answer to one request that was sent while the part hung.
#[derive(Debug)]
struct Asked {
    what: String,
    kind: Kind,
    status: u16,
    took: Duration,
    /// Whether it was [`GIVEN_UP`].
    given_up: bool,
}

/// The users of the server meanwhile.
struct Users {
    owner: Person,
    buyer: Person,
    /// Has a place, and waits for its turn.
    waiting: Person,
    operator: Person,
    concert: String,
    date: String,
    document: Value,
    live: String,
}

impl Users {
    async fn of(server: &Server) -> Self {
        let mut document = concert(server, "sale", &[seats(50, 1_000)]);
        document["admission"] = json!({ "max_active": 1 });
        let (concert, mut dates) = server.put_on_sale(&document).await;
        let (mut buyer, mut waiting) = (server.person().await, server.person().await);
        eventually("a place", async || (buyer.join(&concert).await.status == 201).then_some(())).await;
        buyer.await_turn().await;
        waiting.join(&concert).await.expect(201);
        let date = dates.remove(0);
        // Read from the store once; from now on it is in memory.
        buyer.get(&format!("/dates/{date}/seats")).await.expect(200);
        let live = format!("{}/health/live", server.base);
        let (owner, operator) = (server.person().await, server.operator().await);
        Self { owner, buyer, waiting, operator, concert, date, document, live }
    }

    fn charge(&self, n: usize) -> RequestBuilder {
        self.owner.writing("/wallet/charges", &format!("hung-{n}"), &json!({ "amount": 1 }))
    }

    fn hold(&self, round: u32) -> RequestBuilder {
        self.buyer.writing("/reservations", &format!("hung-{round}"), &json!({ "date_id": self.date, "seats": [round] }))
    }

    fn import(&self, round: u32) -> RequestBuilder {
        let mut document = self.document.clone();
        document["key"] = json!(format!("hung-{round}"));
        self.operator.request(Method::POST, "/admin/concerts").json(&document)
    }

    /// Sends every kind of request at once. Charges have the same keys in every round, holds and imports do not.
    async fn ask(&self, round: u32) -> Vec<Asked> {
        let get = |person: &Person, kind, path: &str| (kind, path.to_owned(), person.request(Method::GET, path));
        let mut requests: Vec<_> = (0..HUNG).map(|n| (Kind::Charge, format!("charge {n}"), self.charge(n))).collect();
        requests.extend([
            (Kind::Hold, "hold".to_owned(), self.hold(round)),
            (Kind::Import, "import".to_owned(), self.import(round)),
            (Kind::Join, "join".to_owned(), self.owner.request(Method::POST, &format!("/concerts/{}/queue", self.concert))),
            (Kind::Look, "live".to_owned(), reqwest::Client::new().get(&self.live)),
            get(&self.waiting, Kind::Look, "/queue"),
            get(&self.buyer, Kind::Look, "/queue"),
            get(&self.buyer, Kind::Look, "/concerts"),
            get(&self.buyer, Kind::Look, &format!("/concerts/{}/dates", self.concert)),
            get(&self.buyer, Kind::Look, &format!("/dates/{}/seats", self.date)),
        ]);
        requests.extend(
            ["/wallet", "/wallet/entries", "/reservations", "/payments", "/rewards"].map(|path| get(&self.owner, Kind::Read, path)),
        );
        at_once(requests.into_iter().map(|(kind, what, request)| async move {
            let began = Instant::now();
            let answer = Answer::to(request).await;
            let (what, given_up) = (format!("{what}: {}", answer.code()), answer.body["detail"] == GIVEN_UP);
            Asked { what, kind, status: answer.status, took: began.elapsed(), given_up }
        }))
        .await
    }
}

/// Sends a request again, under the same key, until it is answered with one of `statuses`.
async fn decided(request: impl Fn() -> RequestBuilder, statuses: &[u16]) {
    eventually("a decision", async || statuses.contains(&Answer::to(request()).await.status).then_some(())).await;
}

/// Charges of 1, each under a key of its own, by [`CALLERS`]; `answered` counts the answers.
async fn charges(owner: &Person, answered: &Arc<AtomicUsize>) -> Vec<Answer> {
    let callers = (0..CALLERS).map(|caller| {
        let (owner, answered) = (owner.clone(), answered.clone());
        async move {
            let mut answers = Vec::with_capacity(ROUNDS);
            for n in 0..ROUNDS {
                answers.push(owner.post("/wallet/charges", &format!("busy-{caller}-{n}"), json!({ "amount": 1 })).await);
                answered.fetch_add(1, Ordering::SeqCst);
            }
            answers
        }
    });
    at_once(callers).await.into_iter().flatten().collect()
}

async fn ready(server: &Server) -> Answer {
    Answer::to(server.http().get(format!("{}/health/ready", server.base))).await
}

/// Whether readiness has `check` with this result.
async fn has_check(server: &Server, check: &str, ok: bool) -> bool {
    let ready = ready(server).await;
    ready.at("checks").as_array().unwrap().iter().any(|found| found["name"] == check && found["ok"] == ok)
}

/// While charges are in flight a part hangs and goes on again, by `hang` and `go_on`. `check` is its name in readiness;
/// without one the server stays ready.
async fn a_part_hangs(server: Server, check: Option<&str>, statuses: Statuses, hang: impl AsyncFnOnce(), go_on: impl AsyncFnOnce()) {
    let (users, answered) = (Users::of(&server).await, Arc::new(AtomicUsize::new(0)));
    let wait = server.running.executors.wait;
    // Through a log the first charge also waits for the readers to start.
    decided(|| users.owner.writing("/wallet/charges", "first", &json!({ "amount": 1 })), &[201]).await;
    let meanwhile = async {
        eventually("answers", async || (answered.load(Ordering::SeqCst) >= CALLERS * ROUNDS / 4).then_some(())).await;
        hang().await;
        let hung = Instant::now();
        let first = users.ask(1).await;
        if let Some(check) = check {
            eventually("readiness names it", async || has_check(&server, check, false).await.then_some(())).await;
            let named = hung.elapsed();
            println!("named by readiness within {named:?}, after a round of requests");
            assert!(named < (NAMED_WITHIN + wait) * LOADED, "{named:?}");
        }
        // For longer than anything in memory counts as fresh.
        let second = users.ask(2).await;
        let mut asked = [first, second].into_iter().flatten().collect::<Vec<_>>();
        while hung.elapsed() < NAMED_WITHIN + wait {
            asked.extend(users.ask(2).await);
        }
        assert_eq!(ready(&server).await.status, if check.is_some() { 503 } else { 200 });
        go_on().await;
        asked
    };
    let (during, asked) = tokio::join!(charges(&users.owner, &answered), meanwhile);
    check_answers(&asked, statuses, wait);
    assert!(
        during.iter().all(|answer| [200, 201, 409].contains(&answer.status) || statuses(Kind::Charge).contains(&answer.status)),
        "{during:?}"
    );

    // Without a restart, with one effect for each key.
    let gone_on = Instant::now();
    eventually("the server goes on", async || {
        let again = charges(&users.owner, &answered).await;
        again.iter().all(|answer| answer.status == 201).then_some(())
    })
    .await;
    for n in 0..HUNG {
        decided(|| users.charge(n), &[201]).await;
    }
    for round in 1..=2 {
        decided(|| users.hold(round), &[201]).await;
        decided(|| users.import(round), &[200, 201]).await;
    }
    assert_eq!(users.owner.balance().await, (1 + CALLERS * ROUNDS + HUNG) as i64);
    let held = users.buyer.get("/reservations").await.expect(200);
    assert_eq!(held.at("items").as_array().map(Vec::len), Some(2), "{held:?}");
    eventually("ready", async || (ready(&server).await.status == 200).then_some(())).await;
    println!("everything was decided, and the server ready, {:?} after the part went on", gone_on.elapsed());
    Server::audit_and_stop(vec![server]).await;
}

fn check_answers(asked: &[Asked], statuses: Statuses, wait: Duration) {
    for kind in KINDS {
        let slowest = asked.iter().filter(|asked| asked.kind == kind).max_by_key(|asked| asked.took).expect("some");
        println!("{kind:?}: {} {} within {:?}, wait_ms {}", slowest.what, slowest.status, slowest.took, wait.as_millis());
    }
    let late: Vec<_> = asked.iter().filter(|asked| asked.took >= (wait + LATER) * LOADED).collect();
    assert!(late.is_empty(), "{late:?}");
    // A command's deadline is passed down to the store, the lock or the broker that it waits for.
    let unaware: Vec<_> = asked.iter().filter(|asked| asked.kind == Kind::Charge && asked.given_up).collect();
    assert!(unaware.is_empty(), "{unaware:?}");
    let wrong: Vec<_> = asked.iter().filter(|asked| !statuses(asked.kind).contains(&asked.status)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
