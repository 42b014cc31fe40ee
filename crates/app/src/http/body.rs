//! Request bodies: bounded, JSON or empty, and parsed with the path of a value that does not fit.
//!
//! *Bounds.* A body costs the bytes that have arrived, and little more: no room is reserved for the announced length. The
//! bytes of unfinished bodies are bounded for each user, for each address and in all ([`super::limits`]). Time-outs are
//! the connection's ([`super::connections`]).

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Data};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::{FutureExt as _, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connections::{ConnectionHandle, ConnectionPermit, RequestFault};
use super::in_time;
use super::limits::BodyBytes;
use super::problem::{Code, Problem};
use super::state::App;
use crate::json::{self, JsonFault};

/// A whole body of an allowed size and type. It is not parsed yet: earlier refusals in the order are the handler's.
pub(crate) struct Body {
    bytes: Bytes,
    /// Its bytes count until it is dropped, unless it arrived at once.
    _counted: Option<BodyBytes>,
}

/// A buffer grows by a quarter of its bytes, and by this at least, bytes.
const STEP: usize = 8 << 10;

/// The body of a request that takes none: empty, `null`, or an object without members.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

impl FromRequest for Body {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let allowed = allowed_size(request);
        let app = request.app_data::<Data<App>>().cloned();
        let connection = request.conn_data::<ConnectionHandle>().cloned();
        let wrong_type = wrong_type(request);
        let (payload, arriving) = (payload.take(), in_time::body_arrives(request));
        Box::pin(async move {
            let max = allowed?;
            let app = app.ok_or_else(|| Problem::internal("no application data"))?;
            let body = Arriving { app, connection, max, first: Bytes::new(), rest: BytesMut::new(), counted: None };
            let body = body.read(payload, wrong_type).await?;
            arriving.done();
            Ok(body)
        })
    }
}

/// A body that is being read.
struct Arriving {
    app: Data<App>,
    connection: Option<ConnectionHandle>,
    max: usize,
    /// Most bodies arrive in one piece, which is kept as it is.
    first: Bytes,
    /// All bytes, once there is more than one piece.
    rest: BytesMut,
    counted: Option<BodyBytes>,
}

impl Arriving {
    async fn read(mut self, mut payload: Payload, mut wrong_type: Option<Problem>) -> Result<Body, Problem> {
        loop {
            let next = match payload.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.count_waiting()?;
                    payload.next().await
                }
            };
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|_| self.cut_off())?;
            if chunk.is_empty() {
                continue;
            }
            // Without a body no type can be wrong.
            if let Some(refusal) = wrong_type.take() {
                return Err(refusal);
            }
            self.take(chunk)?;
        }
        let Self { first, rest, counted, .. } = self;
        Ok(Body { bytes: if rest.is_empty() { first } else { rest.freeze() }, _counted: counted })
    }

    /// Counts the bytes that have arrived, before more are awaited.
    fn count_waiting(&mut self) -> Result<(), Problem> {
        // The first piece shares the connection's buffer, and would keep it in memory.
        self.move_first();
        if !self.rest.is_empty() {
            let Self { app, connection, counted, rest, .. } = self;
            counted.get_or_insert_with(|| count(app, connection.as_ref())).grow_to(rest.capacity())?;
        }
        Ok(())
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), Problem> {
        if self.first.len().max(self.rest.len()) + chunk.len() > self.max {
            return Err(too_large(self.max));
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = chunk;
            return Ok(());
        }
        self.move_first();
        append(&mut self.rest, &chunk);
        match &mut self.counted {
            Some(counted) => counted.grow_to(self.rest.capacity()),
            None => Ok(()),
        }
    }

    fn move_first(&mut self) {
        if !self.first.is_empty() {
            append(&mut self.rest, &std::mem::take(&mut self.first));
        }
    }

    fn cut_off(&self) -> Problem {
        match self.connection.as_ref().and_then(ConnectionHandle::fault) {
            Some(RequestFault::BodyLate) => Problem::body_late(),
            _ => Problem::new(Code::InvalidRequest, "the body ended too early"),
        }
    }
}

/// Appends a chunk, with room for little more.
fn append(to: &mut BytesMut, chunk: &[u8]) {
    let needed = to.len() + chunk.len();
    if needed > to.capacity() {
        // A buffer grows by doubling, which would cost up to twice the bytes that arrived.
        let mut grown = BytesMut::with_capacity(needed.max(to.len() + (to.len() / 4).max(STEP)));
        grown.extend_from_slice(to);
        *to = grown;
    }
    to.extend_from_slice(chunk);
}

fn count(app: &App, connection: Option<&ConnectionHandle>) -> BodyBytes {
    let address = connection.and_then(|connection| connection.with_permit(ConnectionPermit::address).flatten());
    app.limits.body(connection.and_then(ConnectionHandle::user), address)
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("at most {max} bytes"))
}

/// The size that is allowed, unless a larger one is announced.
fn allowed_size(request: &HttpRequest) -> Result<usize, Problem> {
    let app = request.app_data::<Data<App>>().ok_or_else(|| Problem::internal("no application data"))?;
    let max = app.settings.http.max_body_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max as u64) { Err(too_large(max)) } else { Ok(max) }
}

/// The refusal of a body that is not plain JSON.
fn wrong_type(request: &HttpRequest) -> Option<Problem> {
    let coding = request.headers().get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Some(Problem::new(Code::UnsupportedMediaType, "send the body without Content-Encoding"));
    }
    if request.content_type().eq_ignore_ascii_case("application/json") {
        return None;
    }
    Some(Problem::new(Code::UnsupportedMediaType, "send Content-Type: application/json"))
}

impl Body {
    /// Its contents, all fields known and of the right type.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.bytes.is_empty() {
            return Err(Problem::new(Code::InvalidRequest, "a body is required"));
        }
        parse(&self.bytes)
    }

    /// For a request that takes no body.
    pub(crate) fn parse_nothing(&self) -> Result<Nothing, Problem> {
        if self.bytes.is_empty() { Ok(Nothing {}) } else { parse::<Option<_>>(&self.bytes).map(Option::unwrap_or_default) }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    json::read(bytes).map_err(|fault| match fault {
        JsonFault::Syntax(reason) => Problem::new(Code::InvalidRequest, format!("the body is not JSON: {reason}")),
        JsonFault::Value(fault) if fault.field.is_empty() => Problem::field("body", fault.reason),
        JsonFault::Value(fault) => Problem::field(fault.field, fault.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
    use serde_json::Value;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        amount: i64,
        best: Option<Inner>,
        seats: Option<Vec<u32>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        count: i64,
    }

    fn fault(body: &str) -> Value {
        let response = parse::<Sample>(body.as_bytes()).unwrap_err().response("r");
        assert_eq!(response.status(), 400, "{body}");
        serde_json::from_slice(&response.into_body().try_into_bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_body_costs_little_more_than_the_bytes_that_arrived() {
        let mut body = BytesMut::new();
        for chunk in std::iter::repeat_n(&[b'x'; 1_000][..], 1_048) {
            append(&mut body, chunk);
            assert!(body.capacity() <= body.len() + (body.len() / 4).max(STEP), "{} for {}", body.capacity(), body.len());
        }
        assert_eq!(body.len(), 1_048_000);
    }

    #[test]
    fn faults_name_the_field() {
        for (body, field) in [
            (r#"{"amount": "1"}"#, "amount"),
            (r#"{"amount": 1.5}"#, "amount"),
            (r#"{"amount": 9223372036854775808}"#, "amount"),
            (r#"{"amount": null}"#, "amount"),
            (r#"{}"#, "amount"),
            (r#"{"amount": 1, "amount": 2}"#, "amount"),
            (r#"{"amount": 1, "extra": 2}"#, "extra"),
            (r#"{"amount": 1, "best": {}}"#, "best.count"),
            (r#"{"amount": 1, "best": {"count": "x"}}"#, "best.count"),
            (r#"{"amount": 1, "best": {"count": 1, "more": 2}}"#, "best.more"),
            (r#"{"amount": 1, "seats": [1, -2]}"#, "seats[1]"),
            (r#"[1]"#, "body"),
        ] {
            let document = fault(body);
            assert_eq!(document["errors"][0]["field"], field, "{body}: {document}");
            assert!(document["errors"][0]["reason"].as_str().is_some_and(|reason| !reason.contains("line")), "{document}");
        }
    }

    #[test]
    fn malformed_json_has_no_field_at_fault() {
        for body in ["{", "nonsense", "{\"amount\": 1} x", "\u{0}"] {
            let document = fault(body);
            assert_eq!((document["code"].as_str(), document.get("errors")), (Some("invalid_request"), None), "{body}");
        }
    }
}
