//! One command to its answer: through the executor port, or over HTTP like any client.
//!
//! Both give the same kinds of answer: applied with the id of what it made, refused, `busy`, turned away because too
//! many wait, or none at all. Without an answer the outcome is unknown, and the store is read afterwards. The outcome
//! of a command that was only accepted is polled until there is one, or the run ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::{
    Actor, Command, CommandId, DateId, Decision, Fingerprint, FreshIds, IdempotencyKey, Outcome, Reply, Request, ReservationId, SeatNumber,
    UserId,
};
use boxoffice_engine::{SearchError, SeatPreference, SeatView, Stats};
use boxoffice_ports::{ExecuteError, Ids, Ledger, Receipt};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{self, Connection};
use super::workload::Step;
use boxoffice_app::wiring::Executors;

/// Codes of refusals that leave the outcome of the command open.
const UNDECIDED: [&str; 1] = ["idempotency_in_progress"];
const BUSY: &str = "busy";
const OVERLOADED: &str = "overloaded";
/// How often the outcome of an accepted command is polled.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A user whose commands are sent.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) user: UserId,
    /// Bearer and queue token, for HTTP.
    pub(super) bearer: String,
    pub(super) queue_token: String,
}

/// One command to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) person: &'a Person,
    pub(super) key: &'a str,
    pub(super) step: Step,
    pub(super) date: DateId,
    pub(super) seat: SeatNumber,
    /// The job's reservation.
    pub(super) held: Option<ReservationId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Made the entry, the reservation or the payment of this id.
    Applied(Uuid),
    Refused,
    Busy,
    /// More was sent than can be served; nothing was done.
    TurnedAway,
    /// The outcome is unknown.
    Failed(String),
}

/// Sends one command at a time.
pub(super) enum Caller {
    InProcess(InProcess),
    OverHttp(Connection),
}

/// The parts of a server that a caller in its process uses.
pub(super) struct InProcess {
    pub(super) executors: Executors,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) ids: Arc<dyn Ids>,
    pub(super) seats: Arc<SeatView>,
    pub(super) stats: Arc<Stats>,
    /// How long a search for seats may take.
    pub(super) wait: Duration,
}

impl Caller {
    pub(super) async fn call(&mut self, call: Call<'_>) -> Answered {
        match self {
            Self::InProcess(server) if call.step == Step::HoldBest => best_in_process(server, call).await,
            Self::InProcess(server) => in_process(server, call).await,
            Self::OverHttp(connection) => over_http(connection, call).await,
        }
    }
}

async fn in_process(InProcess { executors, ledger, ids, .. }: &InProcess, call: Call<'_>) -> Answered {
    let user = call.person.user;
    let hold = |choices, count| Command::HoldSeats { user, date: call.date, count, choices, best: false, last: false };
    let (executor, command) = match (call.step, call.held) {
        (Step::Charge(amount), _) => (&executors.wallet, Command::ChargeWallet { user, amount }),
        (Step::Use(amount), _) => (&executors.wallet, Command::UseWallet { user, amount, memo: None }),
        (Step::Hold, _) => (&executors.seat, hold(vec![vec![call.seat]], 1)),
        (Step::HoldPair, _) => (&executors.seat, hold(vec![vec![call.seat, call.seat + 1]], 2)),
        (Step::HoldBest, _) => return Answered::Failed("best seats need a search".to_owned()),
        (Step::Pay, Some(reservation)) => (&executors.payment, Command::Pay { user, reservation, points: 0 }),
        (Step::Pay, None) => return Answered::Failed("there is nothing to pay".to_owned()),
    };
    let request = keyed(ids.as_ref(), user, call.key, command);
    let key = IdempotencyKey { user, command: request.command_id };
    outcome(executor.execute(request, executors.deadline()).await, ledger.as_ref(), key).await
}

/// Two adjacent seats: choices are tried until one is held or none is left, as over HTTP.
async fn best_in_process(server: &InProcess, call: Call<'_>) -> Answered {
    let (user, date, preference) = (call.person.user, call.date, SeatPreference { count: 2, grade: None, adjacent: true });
    let mut search = server.seats.search(date, preference, Instant::now() + server.wait);
    loop {
        let offer = match search.next().await {
            Ok(Some(offer)) => offer,
            Ok(None) => return Answered::Refused,
            Err(SearchError::TimedOut) => return Answered::TurnedAway,
            Err(SearchError::Store(error)) => return Answered::Failed(error.to_string()),
        };
        server.stats.best_offers.add(1);
        let command =
            Command::HoldSeats { user, date, count: preference.count, choices: offer.choices().to_vec(), best: true, last: false };
        let request = keyed(server.ids.as_ref(), user, call.key, command);
        let key = IdempotencyKey { user, command: request.command_id };
        match server.executors.seat.execute(request, server.executors.deadline()).await {
            Ok(Receipt::Done(Reply { decision: Decision::Retry, .. })) => {}
            receipt => return outcome(receipt, server.ledger.as_ref(), key).await,
        }
    }
}

/// A user's command under a key.
pub(super) fn keyed(ids: &dyn Ids, user: UserId, key: &str, command: Command) -> Request {
    let fresh = || ids.fresh();
    Request {
        command_id: CommandId::derive(user, key),
        actor: Actor::User(user),
        fingerprint: Some(Fingerprint(Sha256::digest(key).into())),
        fresh: FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] },
        command,
    }
}

/// The outcome of a command; of one that was only accepted, its reply is polled in the ledger.
pub(super) async fn outcome(receipt: Result<Receipt, ExecuteError>, ledger: &dyn Ledger, key: IdempotencyKey) -> Answered {
    match receipt {
        Ok(Receipt::Done(reply)) => answered(&reply),
        Ok(Receipt::Accepted(_)) => loop {
            match ledger.reply(key).await {
                Ok(Some(stored)) => return answered(&stored.reply),
                Ok(None) => tokio::time::sleep(POLL_EVERY).await,
                Err(error) => return Answered::Failed(error.to_string()),
            }
        },
        Err(ExecuteError::Busy) => Answered::Busy,
        Err(ExecuteError::Overloaded) => Answered::TurnedAway,
        Err(error) => Answered::Failed(error.to_string()),
    }
}

fn answered(reply: &Reply) -> Answered {
    match &reply.decision {
        Decision::Done(Outcome::Entered { entry }) => Answered::Applied(entry.id.0),
        Decision::Done(Outcome::Held { reservation, .. }) => Answered::Applied(reservation.id.0),
        Decision::Done(Outcome::Paid { payment, .. }) => Answered::Applied(payment.id.0),
        Decision::Refused(_) => Answered::Refused,
        Decision::Done(_) | Decision::Retry => Answered::Failed("the reply does not belong to the command".to_owned()),
    }
}

async fn over_http(connection: &mut Connection, call: Call<'_>) -> Answered {
    let Some(request) = http_request(connection.address(), call) else { return Answered::Failed("there is nothing to pay".to_owned()) };
    let no_answer = |error| Answered::Failed(format!("no answer: {error}"));
    let answer = match connection.send(&request).await {
        Ok(answer) => answer,
        Err(error) => return no_answer(error),
    };
    if answer.status != 202 {
        return read(answer.status, &serde_json::from_slice(&answer.body).unwrap_or_default());
    }
    let Some(location) = answer.location else { return Answered::Failed("202 without a location".to_owned()) };
    let poll = client::request(connection.address(), "GET", &location, &[("Authorization", call.person.bearer.as_str())], None);
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        match connection.send(&poll).await {
            Ok(answer) if answer.status == 200 => {
                let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                match value["status"].as_str() {
                    Some("pending") => {}
                    Some("done") => {
                        return read(value["response"]["status"].as_u64().unwrap_or_default() as u16, &value["response"]["body"]);
                    }
                    _ => return Answered::Failed(format!("accepted, and then {}", value["status"])),
                }
            }
            Ok(answer) => return Answered::Failed(format!("accepted, and then {}", answer.status)),
            Err(error) => return no_answer(error),
        }
    }
}

fn http_request(address: SocketAddr, call: Call<'_>) -> Option<Vec<u8>> {
    let (path, body) = match call.step {
        Step::Charge(amount) => ("/api/v1/wallet/charges", json!({ "amount": amount })),
        Step::Use(amount) => ("/api/v1/wallet/uses", json!({ "amount": amount })),
        Step::Hold => ("/api/v1/reservations", json!({ "date_id": call.date, "seats": [call.seat] })),
        Step::HoldPair => ("/api/v1/reservations", json!({ "date_id": call.date, "seats": [call.seat, call.seat + 1] })),
        Step::HoldBest => ("/api/v1/reservations", json!({ "date_id": call.date, "best": { "count": 2 } })),
        Step::Pay => ("/api/v1/payments", json!({ "reservation_id": call.held? })),
    };
    let mut headers = vec![("Authorization", call.person.bearer.as_str()), ("Idempotency-Key", call.key)];
    if !call.person.queue_token.is_empty() {
        headers.push(("Queue-Token", call.person.queue_token.as_str()));
    }
    Some(client::request(address, "POST", path, &headers, Some(&body.to_string())))
}

/// Classifies an answer: decided refusals, and those given instead of a decision; any other non-success is a failure.
fn read(status: u16, value: &Value) -> Answered {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    match status {
        201 => match text("id").parse() {
            Ok(id) => Answered::Applied(id),
            Err(_) => Answered::Failed("201 without an id".to_owned()),
        },
        409 if text("code") == BUSY => Answered::Busy,
        503 if text("code") == OVERLOADED => Answered::TurnedAway,
        402 | 409 | 422 if !UNDECIDED.contains(&text("code")) => Answered::Refused,
        _ => Answered::Failed(format!("{status} {}", text("code"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_by_status_and_code() {
        let id = Uuid::from_u128(7);
        let applied = json!({ "id": id }).to_string();
        for (status, body, wanted) in [
            (201, applied.as_str(), Answered::Applied(id)),
            (201, "{}", Answered::Failed("201 without an id".to_owned())),
            (409, r#"{"code":"seat_unavailable"}"#, Answered::Refused),
            (402, r#"{"code":"insufficient_balance"}"#, Answered::Refused),
            (422, r#"{"code":"seat_limit_exceeded"}"#, Answered::Refused),
            (409, r#"{"code":"busy"}"#, Answered::Busy),
            (409, r#"{"code":"idempotency_in_progress"}"#, Answered::Failed("409 idempotency_in_progress".to_owned())),
            (401, r#"{"code":"unauthenticated"}"#, Answered::Failed("401 unauthenticated".to_owned())),
            (503, "", Answered::Failed("503 ".to_owned())),
            (503, r#"{"code":"store_unavailable"}"#, Answered::Failed("503 store_unavailable".to_owned())),
            (503, r#"{"code":"overloaded"}"#, Answered::TurnedAway),
        ] {
            let value = serde_json::from_str(body).unwrap_or_default();
            assert_eq!(read(status, &value), wanted, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn an_accepted_command_is_polled_until_it_is_done() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let id = Uuid::from_u128(7);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |status: &str, body: Value| {
            let body = body.to_string();
            format!("HTTP/1.1 {status}\r\nLocation: /api/v1/commands/c\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let done = json!({ "status": "done", "response": { "status": 201, "body": { "id": id } } });
        let answers = [answer("202 Accepted", json!({})), answer("200 OK", json!({ "status": "pending" })), answer("200 OK", done)];
        let dead = [answer("202 Accepted", json!({})), answer("200 OK", json!({ "status": "dead" }))];
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut requests = Vec::new();
            for answer in answers.into_iter().chain(dead) {
                let mut bytes = [0; 2_048];
                let count = stream.read(&mut bytes).await.unwrap();
                requests.push(String::from_utf8_lossy(&bytes[..count]).lines().next().unwrap_or_default().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        let person = Person { user: UserId(Uuid::nil()), bearer: "Bearer b".to_owned(), queue_token: String::new() };
        let call = Call { person: &person, key: "k", step: Step::Charge(7), date: DateId(Uuid::nil()), seat: 1, held: None };
        let mut caller = Caller::OverHttp(Connection::new(address));
        assert_eq!(caller.call(call).await, Answered::Applied(id));
        assert!(matches!(caller.call(call).await, Answered::Failed(reason) if reason.contains("dead")));
        let requests = server.await.unwrap();
        let [first, again, last, ..] = &requests[..] else { panic!("{requests:?}") };
        assert!(
            first.starts_with("POST /api/v1/wallet/charges ") && last == "GET /api/v1/commands/c HTTP/1.1" && again == last,
            "{requests:?}"
        );
    }

    #[test]
    fn a_payment_needs_a_reservation() {
        let person = Person { user: UserId(Uuid::nil()), bearer: "Bearer b".to_owned(), queue_token: "q".to_owned() };
        let address = "127.0.0.1:80".parse().unwrap();
        let call = Call { person: &person, key: "k", step: Step::Pay, date: DateId(Uuid::nil()), seat: 1, held: None };
        assert_eq!(http_request(address, call), None);
        let held = Call { held: Some(ReservationId(Uuid::nil())), ..call };
        let text = String::from_utf8(http_request(address, held).unwrap()).unwrap();
        for part in
            ["POST /api/v1/payments ", "Authorization: Bearer b\r\n", "Idempotency-Key: k\r\n", "Queue-Token: q\r\n", "reservation_id"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
