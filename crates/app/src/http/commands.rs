//! Commands that were accepted and not decided while their callers waited: 202, and what became of them.
//!
//! The id that clients get is signed and says whose command it is and until when it may be asked for, so that nothing has
//! to be remembered for it. What became of the command is its stored reply.

use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::{CommandId, IdempotencyKey, Reply, Timestamp, UserId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::App;
use super::answer;
use super::auth::User;
use super::idempotency::{Keyed, RESPOND_ASYNC};
use super::params::Query;
use super::problem::Problem;
use super::signing::SigningKeys;
use super::turn;

/// The first byte of every payload: what else the same keys sign begins with another.
const KIND: u8 = b'c';
/// Kind, user, command, end of validity.
const PAYLOAD: usize = 1 + 16 + 16 + 8;
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A command that stands in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    key: IdempotencyKey,
    /// Until then it is decided or lies with the dead letters.
    valid_until: Timestamp,
    /// Its caller asked not to wait.
    asked: bool,
}

impl Accepted {
    pub(crate) fn now(app: &App, keyed: Keyed) -> Self {
        let valid_until = app.clock.now() + app.settings.command_retention();
        Self { key: keyed.stored_under(), valid_until, asked: keyed.asks_again }
    }

    /// 202.
    pub(crate) fn response(&self, app: &App) -> Result<HttpResponse, Problem> {
        let command_id = self.sign(&app.signing);
        let location = format!("/api/v1/commands/{command_id}");
        let mut response = answer::json(StatusCode::ACCEPTED, &AcceptedView { command_id, valid_until: self.valid_until })?;
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&location).map_err(Problem::internal)?);
        if self.asked {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
        }
        Ok(response)
    }

    fn sign(&self, keys: &SigningKeys) -> String {
        let mut bytes = [0; PAYLOAD];
        bytes[0] = KIND;
        bytes[1..17].copy_from_slice(self.key.user.0.as_bytes());
        bytes[17..33].copy_from_slice(self.key.command.0.as_bytes());
        bytes[33..].copy_from_slice(&self.valid_until.timestamp_micros().to_be_bytes());
        keys.sign(&bytes)
    }

    /// `None` for what is not signed, or not by us as this.
    fn verify(keys: &SigningKeys, text: &str) -> Option<Self> {
        let bytes: [u8; PAYLOAD] = keys.verify(text)?;
        let uuid = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).ok();
        let micros = i64::from_be_bytes(bytes[33..].try_into().ok()?);
        let key = IdempotencyKey { user: UserId(uuid(1)?), command: CommandId(uuid(17)?) };
        (bytes[0] == KIND).then_some(Self { key, valid_until: DateTime::from_timestamp_micros(micros)?, asked: false })
    }
}

/// A command that will be decided.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedView {
    /// Signed; to ask by.
    command_id: String,
    /// By then it is done, or dead.
    valid_until: DateTime<Utc>,
}

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
        let response = answer::reply(app, decided).unwrap_or_else(|refusal| refusal.response(request_id));
        let status = response.status().as_u16();
        // Written just now and in one piece.
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
    // Before the look into the store: what is decided in between is not called dead.
    let now = app.clock.now();
    let stored = app.stores.ledger.reply(accepted.key).await?;
    if let Some(stored) = &stored {
        turn::ended_by(&app, &stored.reply).await;
    }
    let (status, response) = match stored {
        Some(stored) => (CommandStatus::Done, Some(ResponseView::of(&app, &stored.reply, &super::edge::request_id())?)),
        None if now < accepted.valid_until => (CommandStatus::Pending, None),
        None => (CommandStatus::Dead, None),
    };
    answer::ok(&CommandView { command_id, status, response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::queue_token;

    #[test]
    fn the_id_says_what_was_accepted_and_is_no_other_token() {
        let keys = SigningKeys::of(&[("a", 1)]);
        let key = IdempotencyKey { user: UserId(Uuid::from_u128(1)), command: CommandId(Uuid::from_u128(2)) };
        let accepted = Accepted { key, valid_until: DateTime::from_timestamp_micros(1_800_000_000_123_456).unwrap(), asked: false };
        let id = accepted.sign(&keys);
        assert_eq!(Accepted::verify(&keys, &id), Some(accepted));
        assert_eq!(Accepted::verify(&SigningKeys::of(&[("a", 2)]), &id), None);
        assert_eq!(queue_token::verify(&keys, &id), None);
        assert_eq!(Accepted::verify(&keys, &keys.sign(&[1; PAYLOAD])), None);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "it stands in a path: {id}");
    }
}
