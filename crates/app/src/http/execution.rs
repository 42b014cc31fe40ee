//! From a command to its answer: one request to an executor, and the decision rendered as it was decided.
//!
//! A replay is rendered from the same outcome at the same instant as its first answer, so both bodies are equal.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::{
    Actor, Command, CommandId, Decision, Fingerprint, FreshIds, IdempotencyKey, Outcome, Rejection, Reply, Request, UserId,
};
use boxoffice_ports::{ExecuteError, Executor, Receipt};

use super::accepted::Accepted;
use super::answer::json_with;
use super::headers::REPLAYED;
use super::idempotency::{self, Keyed};
use super::in_time;
use super::problem::Problem;
use super::state::App;
use super::views::{PaymentView, ReservationView, WalletEntryView};

fn fresh_ids(app: &App) -> FreshIds {
    let fresh = || app.ids.fresh();
    FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] }
}

/// The state of a command when its caller stops waiting.
#[derive(Debug)]
pub(crate) enum Ran {
    Decided(Reply),
    /// It was appended to a log and will be decided.
    Accepted(Accepted),
}

/// Runs a keyed command of a user, or of an operator, for as long as its caller waits.
pub(crate) async fn run(app: &App, executor: &dyn Executor, actor: Actor, keyed: Keyed, command: Command) -> Result<Ran, Problem> {
    let request = Request { command_id: keyed.key.command, actor, fingerprint: Some(keyed.fingerprint), fresh: fresh_ids(app), command };
    submit(app, executor, keyed, request).await
}

/// The same for a command on seats that needs no key, because repeating it changes nothing. Its reply is stored only
/// where its caller may have to poll for it.
pub(crate) async fn run_unkeyed(app: &App, user: UserId, request: &HttpRequest, command: Command) -> Result<Ran, Problem> {
    let (command_id, fingerprint) = (CommandId(app.ids.fresh()), Fingerprint([0; 32]));
    let key = IdempotencyKey { user, command: command_id };
    let keyed = Keyed { key, fingerprint, prefers_async: idempotency::prefers_async(request), deadline: in_time::of(request) };
    let fingerprint = app.settings.strategy.seat.keeps_a_log().then_some(fingerprint);
    let request = Request { command_id, actor: Actor::User(user), fingerprint, fresh: fresh_ids(app), command };
    submit(app, app.seat.as_ref(), keyed, request).await
}

async fn submit(app: &App, executor: &dyn Executor, keyed: Keyed, request: Request) -> Result<Ran, Problem> {
    if executor.would_reject(&request) {
        return Err(ExecuteError::Overloaded.into());
    }
    let receipt = match keyed.prefers_async {
        true => executor.submit(request, keyed.deadline).await?,
        false => executor.execute(request, keyed.deadline).await?,
    };
    Ok(match receipt {
        Receipt::Done(reply) => Ran::Decided(reply),
        Receipt::Accepted(_) => Ran::Accepted(Accepted::now(app, keyed)),
    })
}

/// The stored reply of a keyed write, if there is one for the same request.
pub(crate) async fn stored(app: &App, keyed: Keyed) -> Result<Option<Reply>, Problem> {
    let stored = app.stores.ledger.reply(keyed.key).await?;
    Ok(stored.filter(|stored| stored.fingerprint == keyed.fingerprint).map(|stored| stored.reply))
}

/// The answer to a keyed write that need not be decided any more: its stored reply, or that its key was used for
/// another request.
pub(crate) async fn repeated(app: &App, keyed: Keyed) -> Result<Option<Reply>, Problem> {
    let stored = app.stores.ledger.reply(keyed.key).await?;
    Ok(stored.map(|stored| match stored.fingerprint == keyed.fingerprint {
        true => stored.reply,
        false => Reply { decision: Decision::Refused(Rejection::IdempotencyKeyReused), replayed: false, ..stored.reply },
    }))
}

/// Runs a keyed command and answers with its outcome.
pub(crate) async fn execute(
    app: &App,
    executor: &dyn Executor,
    actor: Actor,
    keyed: Keyed,
    command: Command,
) -> Result<HttpResponse, Problem> {
    answer(app, &run(app, executor, actor, keyed, command).await?)
}

/// The answer to a command.
pub(crate) fn answer(app: &App, ran: &Ran) -> Result<HttpResponse, Problem> {
    match ran {
        Ran::Decided(decided) => reply(app, decided),
        Ran::Accepted(accepted) => accepted.response(app),
    }
}

/// A reply as an answer.
pub(crate) fn reply(app: &App, reply: &Reply) -> Result<HttpResponse, Problem> {
    let outcome = match &reply.decision {
        Decision::Done(outcome) => outcome,
        Decision::Refused(rejection) => return Err(Problem::refused(rejection, reply.replayed)),
        Decision::Retry => return Err(Problem::internal("a command was left undecided")),
    };
    let status = match outcome {
        Outcome::Entered { .. } | Outcome::Held { .. } | Outcome::Paid { .. } => StatusCode::CREATED,
        Outcome::Extended { .. } | Outcome::Refunded { .. } => StatusCode::OK,
        Outcome::Released { .. } | Outcome::Expired { .. } => StatusCode::NO_CONTENT,
    };
    let mut response = HttpResponse::build(status);
    if reply.replayed {
        response.insert_header(REPLAYED);
    }
    let currency = &app.settings.money.currency;
    match outcome {
        Outcome::Entered { entry } => json_with(&mut response, &WalletEntryView::from(entry)),
        Outcome::Held { reservation, extensions_left } => {
            response.insert_header((header::LOCATION, format!("/api/v1/reservations/{}", reservation.id)));
            json_with(&mut response, &ReservationView::at(reservation, reply.decided_at, *extensions_left, currency))
        }
        Outcome::Extended { reservation, extensions_left } => {
            json_with(&mut response, &ReservationView::at(reservation, reply.decided_at, *extensions_left, currency))
        }
        Outcome::Paid { payment, reservation, .. } => {
            response.insert_header((header::LOCATION, format!("/api/v1/payments/{}", payment.id)));
            json_with(&mut response, &PaymentView::new(payment, reservation, currency, &app.tickets))
        }
        Outcome::Refunded { payment, reservation } => {
            json_with(&mut response, &PaymentView::new(payment, reservation, currency, &app.tickets))
        }
        Outcome::Released { .. } | Outcome::Expired { .. } => Ok(response.finish()),
    }
}
