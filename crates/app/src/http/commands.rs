//! What became of a command that was accepted and not decided while its caller waited: its stored reply.

use actix_web::body::MessageBody;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::Reply;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::accepted::Accepted;
use super::answer;
use super::caller::User;
use super::execution;
use super::headers::request_id;
use super::params::Query;
use super::problem::Problem;
use super::state::App;
use super::turn;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CommandStatus {
    /// Not decided yet.
    Pending,
    Done,
    /// It was not decided in time and will not be.
    Dead,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CommandView {
    command_id: String,
    status: CommandStatus,
    /// Once done: as it would have been answered.
    response: Option<ResponseView>,
}

#[derive(Serialize, ToSchema)]
struct ResponseView {
    #[schema(example = 201)]
    status: u16,
    /// Null where there is none.
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
}

impl ResponseView {
    fn of(app: &App, decided: &Reply, request_id: &str) -> Result<Self, Problem> {
        let response = execution::reply(app, decided).unwrap_or_else(|refusal| refusal.response(request_id));
        let status = response.status().as_u16();
        // Serialised just now, in one piece.
        let body = response.into_body().try_into_bytes().map_err(|_| Problem::internal("an answer has no bytes"))?;
        let body = (!body.is_empty()).then(|| serde_json::from_slice(&body)).transpose().map_err(Problem::internal)?;
        Ok(Self { status, body })
    }
}

/// What became of a command that was accepted.
#[utoipa::path(get, path = "/api/v1/commands/{command_id}", tag = "commands",
    params(("command_id" = String, Path, description = "As the 202 gave it")),
    responses((status = 200, description = "Where it stands, with its outcome once it is done", body = CommandView)))]
pub(crate) async fn get(command_id: Path<String>, app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let command_id = command_id.into_inner();
    let accepted = Accepted::verify(&app.signing, &command_id).filter(|accepted| accepted.key.user == user.0);
    let accepted = accepted.ok_or_else(Problem::not_found)?;
    Query::none(&request)?;
    // Before the store is read: a command that is decided in between is not reported dead.
    let now = app.clock.now();
    let stored = app.stores.ledger.reply(accepted.key).await?;
    if let Some(stored) = &stored {
        turn::ended_by(&app, &stored.reply).await;
    }
    let (status, response) = match stored {
        Some(stored) => (CommandStatus::Done, Some(ResponseView::of(&app, &stored.reply, &request_id())?)),
        None if now < accepted.valid_until => (CommandStatus::Pending, None),
        None => (CommandStatus::Dead, None),
    };
    answer::ok(&CommandView { command_id, status, response })
}
