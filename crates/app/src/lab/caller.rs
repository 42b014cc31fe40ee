//! One command to its answer: straight to the executor port, or over HTTP like any client.
//!
//! Both say the same of an answer: applied with the id of what it made, refused, `busy`, or no answer at all. No answer
//! means unknown: the store says afterwards whether it took effect.

use std::net::SocketAddr;
use std::sync::Arc;

use boxoffice_domain::{
    Actor, Command, CommandId, DateId, Decision, Fingerprint, FreshIds, Outcome, Reply, Request, ReservationId, SeatNumber, UserId,
};
use boxoffice_ports::{ExecuteError, Ids, Receipt};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::client::{self, Connection};
use super::workload::Step;
use crate::wiring::Executors;

/// Codes of refusals that leave it open what became of the command.
const UNDECIDED: [&str; 1] = ["idempotency_in_progress"];
const BUSY: &str = "busy";

/// Somebody whose commands are sent.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) user: UserId,
    /// Bearer and queue token, for HTTP.
    pub(super) bearer: String,
    pub(super) queue_token: String,
}

/// One command to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) person: &'a Person,
    pub(super) key: &'a str,
    pub(super) step: Step,
    pub(super) date: DateId,
    pub(super) seat: SeatNumber,
    /// What the job holds.
    pub(super) held: Option<ReservationId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Made the entry, the reservation or the payment of this id.
    Applied(Uuid),
    Refused,
    Busy,
    /// Nothing is known of it.
    Failed(String),
}

/// Sends one command at a time.
pub(super) enum Caller {
    InProcess { executors: Executors, ids: Arc<dyn Ids> },
    OverHttp(Connection),
}

impl Caller {
    pub(super) async fn call(&mut self, ask: Ask<'_>) -> Answered {
        match self {
            Self::InProcess { executors, ids } => in_process(executors, ids.as_ref(), ask).await,
            Self::OverHttp(connection) => over_http(connection, ask).await,
        }
    }
}

async fn in_process(executors: &Executors, ids: &dyn Ids, ask: Ask<'_>) -> Answered {
    let user = ask.person.user;
    let (executor, command) = match (ask.step, ask.held) {
        (Step::Charge(amount), _) => (&executors.wallet, Command::ChargeWallet { user, amount }),
        (Step::Use(amount), _) => (&executors.wallet, Command::UseWallet { user, amount, memo: None }),
        (Step::Hold, _) => {
            let choices = vec![vec![ask.seat]];
            (&executors.seat, Command::HoldSeats { user, date: ask.date, count: 1, choices, best: false, last: false })
        }
        (Step::Pay, Some(reservation)) => (&executors.payment, Command::Pay { user, reservation, points: 0 }),
        (Step::Pay, None) => return Answered::Failed("there is nothing to pay".to_owned()),
    };
    let fresh = || ids.fresh();
    let request = Request {
        command_id: CommandId::derive(user, ask.key),
        actor: Actor::User(user),
        fingerprint: Some(Fingerprint(Sha256::digest(ask.key).into())),
        fresh: FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] },
        command,
    };
    match executor.execute(request).await {
        Ok(Receipt::Done(reply)) => answered(&reply),
        Ok(Receipt::Accepted(_)) => Answered::Failed("accepted, and not decided in time".to_owned()),
        Err(ExecuteError::Busy) => Answered::Busy,
        Err(error) => Answered::Failed(error.to_string()),
    }
}

fn answered(reply: &Reply) -> Answered {
    match &reply.decision {
        Decision::Done(Outcome::Entered { entry }) => Answered::Applied(entry.id.0),
        Decision::Done(Outcome::Held { reservation, .. }) => Answered::Applied(reservation.id.0),
        Decision::Done(Outcome::Paid { payment, .. }) => Answered::Applied(payment.id.0),
        Decision::Refused(_) => Answered::Refused,
        Decision::Done(_) | Decision::Retry => Answered::Failed("answered with something that was not asked for".to_owned()),
    }
}

async fn over_http(connection: &mut Connection, ask: Ask<'_>) -> Answered {
    let Some(request) = http_request(connection.address(), ask) else { return Answered::Failed("there is nothing to pay".to_owned()) };
    match connection.send(&request).await {
        Ok(answer) => read(answer.status, &answer.body),
        Err(error) => Answered::Failed(format!("no answer: {error}")),
    }
}

fn http_request(address: SocketAddr, ask: Ask<'_>) -> Option<Vec<u8>> {
    let (path, body) = match ask.step {
        Step::Charge(amount) => ("/api/v1/wallet/charges", json!({ "amount": amount })),
        Step::Use(amount) => ("/api/v1/wallet/uses", json!({ "amount": amount })),
        Step::Hold => ("/api/v1/reservations", json!({ "date_id": ask.date, "seats": [ask.seat] })),
        Step::Pay => ("/api/v1/payments", json!({ "reservation_id": ask.held? })),
    };
    let mut headers = vec![("Authorization", ask.person.bearer.as_str()), ("Idempotency-Key", ask.key)];
    if !ask.person.queue_token.is_empty() {
        headers.push(("Queue-Token", ask.person.queue_token.as_str()));
    }
    Some(client::request(address, "POST", path, &headers, Some(&body.to_string())))
}

/// Refusals that are decided, or said in place of a decision; whatever else is not a success is a failure.
fn read(status: u16, body: &[u8]) -> Answered {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    match status {
        201 => match text("id").parse() {
            Ok(id) => Answered::Applied(id),
            Err(_) => Answered::Failed("201 without an id".to_owned()),
        },
        409 if text("code") == BUSY => Answered::Busy,
        402 | 409 | 422 if !UNDECIDED.contains(&text("code")) => Answered::Refused,
        _ => Answered::Failed(format!("{status} {}", text("code"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
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
        ] {
            assert_eq!(read(status, body.as_bytes()), wanted, "{status} {body}");
        }
    }

    #[test]
    fn a_payment_takes_something_held() {
        let person = Person { user: UserId(Uuid::nil()), bearer: "Bearer b".to_owned(), queue_token: "q".to_owned() };
        let address = "127.0.0.1:80".parse().unwrap();
        let ask = Ask { person: &person, key: "k", step: Step::Pay, date: DateId(Uuid::nil()), seat: 1, held: None };
        assert_eq!(http_request(address, ask), None);
        let held = Ask { held: Some(ReservationId(Uuid::nil())), ..ask };
        let text = String::from_utf8(http_request(address, held).unwrap()).unwrap();
        for part in
            ["POST /api/v1/payments ", "Authorization: Bearer b\r\n", "Idempotency-Key: k\r\n", "Queue-Token: q\r\n", "reservation_id"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
