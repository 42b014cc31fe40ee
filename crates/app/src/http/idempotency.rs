//! The idempotency key of a write, and the fingerprint of its request.
//!
//! The fingerprint covers the parsed body, serialised again. Two bodies with the same meaning have the same fingerprint,
//! with any spaces and any order of keys; an absent field is the same as null.

use std::io;

use actix_web::HttpRequest;
use boxoffice_domain::{CommandId, Fingerprint, IdempotencyKey, UserId};
use boxoffice_ports::Deadline;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::in_time;
use super::problem::{Code, Problem};

pub(super) const HEADER: &str = "Idempotency-Key";
const PREFER: &str = "Prefer";
pub(crate) const RESPOND_ASYNC: &str = "respond-async";
/// The longest key, characters.
pub(super) const KEY_MAX: usize = 255;

/// A write under its idempotency key, and how its caller wants to get the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keyed {
    /// The reply is stored under it.
    pub(crate) key: IdempotencyKey,
    pub(crate) fingerprint: Fingerprint,
    /// `Prefer: respond-async`: the caller polls instead of waiting, where the strategy keeps commands in a log.
    pub(crate) prefers_async: bool,
    /// The request's.
    pub(crate) deadline: Deadline,
}

impl Keyed {
    /// With the body as it was parsed.
    pub(crate) fn new(key: IdempotencyKey, request: &HttpRequest, body: &impl Serialize) -> Result<Self, Problem> {
        let fingerprint = fingerprint(request.method().as_str(), request.path(), body)?;
        Ok(Self { key, fingerprint, prefers_async: prefers_async(request), deadline: in_time::of(request) })
    }
}

/// The key of a request, before its body is parsed.
pub(crate) fn key(request: &HttpRequest, user: UserId) -> Result<IdempotencyKey, Problem> {
    Ok(IdempotencyKey { user, command: CommandId::derive(user, header(request)?) })
}

fn header(request: &HttpRequest) -> Result<&str, Problem> {
    let mut values = request.headers().get_all(HEADER);
    let value =
        values.next().ok_or_else(|| Problem::new(Code::IdempotencyKeyRequired, "send an Idempotency-Key of 1 to 255 characters"))?;
    if values.next().is_some() {
        return Err(Problem::field(HEADER, "must be sent once"));
    }
    parse(value.as_bytes()).ok_or_else(|| Problem::field(HEADER, "must be 1 to 255 characters from 0x21 to 0x7E"))
}

/// Whether a `Prefer` header (RFC 7240) names `respond-async`; unknown preferences are ignored.
pub(crate) fn prefers_async(request: &HttpRequest) -> bool {
    let values = request.headers().get_all(PREFER).filter_map(|value| value.to_str().ok());
    // Parameters follow a semicolon; a value would follow an equals sign, and this preference has none.
    values.flat_map(|value| value.split(',')).any(|preference| {
        let name = preference.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(RESPOND_ASYNC)
    })
}

/// The key without its quotes, which are optional.
pub(super) fn parse(bytes: &[u8]) -> Option<&str> {
    let key = match bytes {
        [b'"', key @ .., b'"'] => key,
        key => key,
    };
    let is_valid = (1..=KEY_MAX).contains(&key.len()) && key.iter().all(|byte| (0x21..=0x7E).contains(byte));
    std::str::from_utf8(key).ok().filter(|_| is_valid)
}

fn fingerprint(method: &str, path: &str, body: &impl Serialize) -> Result<Fingerprint, Problem> {
    // Neither a method nor a path contains a line break.
    let mut hash = Hash(Sha256::new().chain_update(method).chain_update(b"\n").chain_update(path).chain_update(b"\n"));
    serde_json::to_writer(&mut hash, body).map_err(Problem::internal)?;
    Ok(Fingerprint(hash.0.finalize().into()))
}

struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use serde_json::json;
    use uuid::Uuid;

    #[test]
    fn key_is_1_to_255_visible_characters_with_optional_quotes() {
        let long = "k".repeat(256);
        for (header, key) in [
            ("k", Some("k")),
            ("\"k\"", Some("k")),
            ("\"", Some("\"")),
            ("!~", Some("!~")),
            (&long[..255], Some(&long[..255])),
            (&long, None),
            ("", None),
            ("\"\"", None),
            ("a b", None),
            ("a\tb", None),
            ("é", None),
        ] {
            assert_eq!(parse(header.as_bytes()), key, "{header}");
        }
    }

    #[test]
    fn respond_async_is_found_among_other_preferences() {
        for (header, prefers) in [
            ("respond-async", true),
            ("Respond-Async", true),
            ("wait=10, respond-async; foo=bar", true),
            ("return=minimal", false),
            ("respond-asynchronously", false),
            ("", false),
        ] {
            assert_eq!(prefers_async(&TestRequest::default().insert_header((PREFER, header)).to_http_request()), prefers, "{header}");
        }
        let twice = TestRequest::default().append_header((PREFER, "wait=3")).append_header((PREFER, "respond-async"));
        assert!(prefers_async(&twice.to_http_request()));
    }

    #[test]
    fn key_is_required_once() {
        let user = UserId(Uuid::from_u128(1));
        let code = |request: TestRequest| super::key(&request.to_http_request(), user).map_err(|problem| problem.code());
        assert_eq!(code(TestRequest::default()), Err(Code::IdempotencyKeyRequired));
        assert_eq!(code(TestRequest::default().insert_header((HEADER, "a b"))), Err(Code::InvalidRequest));
        assert_eq!(code(TestRequest::default().append_header((HEADER, "a")).append_header((HEADER, "b"))), Err(Code::InvalidRequest));
        let bare = code(TestRequest::default().insert_header((HEADER, "k"))).unwrap();
        assert_eq!(code(TestRequest::default().insert_header((HEADER, "\"k\""))), Ok(bare));
    }

    #[test]
    fn fingerprint_is_of_method_path_and_body() {
        let of = |method: &str, path: &str, amount: i64| fingerprint(method, path, &json!({"amount": amount})).unwrap();
        let one = of("POST", "/a", 1);
        assert_eq!(one, of("POST", "/a", 1));
        for other in [of("PUT", "/a", 1), of("POST", "/b", 1), of("POST", "/a", 2)] {
            assert_ne!(one, other);
        }
    }
}
