//! A command that is in a log and not decided yet: the answer 202, and the signed id in it.
//!
//! The id names the command's user, the command and the end of its validity, so that no state is kept for it.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use boxoffice_domain::{CommandId, IdempotencyKey, Timestamp, UserId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::idempotency::{Keyed, RESPOND_ASYNC};
use super::problem::Problem;
use super::signing::SigningKeys;
use super::state::App;

/// The first byte of every payload; other payloads under the same keys begin with another.
const KIND: u8 = b'c';
/// Kind, user, command, end of validity.
const PAYLOAD: usize = 1 + 16 + 16 + 8;
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A command in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(super) key: IdempotencyKey,
    /// By then it is decided or a dead letter.
    pub(super) valid_until: Timestamp,
    /// Its caller preferred not to wait.
    prefers_async: bool,
}

impl Accepted {
    pub(crate) fn now(app: &App, keyed: Keyed) -> Self {
        let valid_until = app.clock.now() + app.settings.command_retention();
        Self { key: keyed.key, valid_until, prefers_async: keyed.prefers_async }
    }

    /// 202.
    pub(crate) fn response(&self, app: &App) -> Result<HttpResponse, Problem> {
        let command_id = self.sign(&app.signing);
        let location = format!("/api/v1/commands/{command_id}");
        let mut response = answer::json(StatusCode::ACCEPTED, &AcceptedView { command_id, valid_until: self.valid_until })?;
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&location).map_err(Problem::internal)?);
        if self.prefers_async {
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

    /// `None` for a text that our keys have not signed, or not as such an id.
    pub(super) fn verify(keys: &SigningKeys, text: &str) -> Option<Self> {
        let bytes: [u8; PAYLOAD] = keys.verify(text)?;
        let uuid = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).ok();
        let micros = i64::from_be_bytes(bytes[33..].try_into().ok()?);
        let key = IdempotencyKey { user: UserId(uuid(1)?), command: CommandId(uuid(17)?) };
        (bytes[0] == KIND).then_some(Self { key, valid_until: DateTime::from_timestamp_micros(micros)?, prefers_async: false })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::queue_token;

    #[test]
    fn the_id_names_the_accepted_command_and_is_no_other_token() {
        let keys = SigningKeys::of(&[("a", 1)]);
        let key = IdempotencyKey { user: UserId(Uuid::from_u128(1)), command: CommandId(Uuid::from_u128(2)) };
        let accepted = Accepted { key, valid_until: DateTime::from_timestamp_micros(1_800_000_000_123_456).unwrap(), prefers_async: false };
        let id = accepted.sign(&keys);
        assert_eq!(Accepted::verify(&keys, &id), Some(accepted));
        assert_eq!(Accepted::verify(&SigningKeys::of(&[("a", 2)]), &id), None);
        assert_eq!(queue_token::verify(&keys, &id), None);
        assert_eq!(Accepted::verify(&keys, &keys.sign(&[1; PAYLOAD])), None);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "it fits in a path: {id}");
    }
}
