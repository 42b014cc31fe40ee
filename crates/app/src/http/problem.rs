//! Every error as a problem document (RFC 9457).
//!
//! A [`Problem`] is what handlers return. It has no request id yet: only [`super::edge`] knows it, so the body is
//! written there. The cause inside the server is kept as `source` for the log and never shown. [`mapping`] turns
//! refusals and failures into problems.

mod code;
mod document;
mod mapping;

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use boxoffice_domain::SeatNumber;
use boxoffice_ports::Source;

pub(crate) use code::Code;
pub(crate) use document::{FieldError, ProblemDocument};

use super::headers::REPLAYED;
use super::views::QueueView;

/// How long a client waits before it retries after a transient failure, seconds.
const RETRY_AFTER_S: u64 = 1;

/// An error on its way out.
pub(crate) struct Problem(Box<Inner>);

struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    seats: Option<Vec<SeatNumber>>,
    queue: Option<QueueView>,
    retry_after_s: Option<u64>,
    allow: Option<String>,
    replayed: bool,
    source: Option<Source>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after_s = match code {
            Code::Busy | Code::IdempotencyInProgress | Code::TooManyRequests | Code::Overloaded | Code::StoreUnavailable => {
                Some(RETRY_AFTER_S)
            }
            _ => None,
        };
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            seats: None,
            queue: None,
            retry_after_s,
            allow: None,
            replayed: false,
            source: None,
        }))
    }

    /// The path names nothing, or nothing that is the caller's.
    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "there is nothing here under this path")
    }

    pub(crate) fn method_not_allowed(allow: impl Into<String>) -> Self {
        let mut problem = Self::new(Code::MethodNotAllowed, "this path has other methods");
        problem.0.allow = Some(allow.into());
        problem
    }

    pub(crate) fn unauthenticated(detail: &'static str) -> Self {
        Self::new(Code::Unauthenticated, detail)
    }

    /// 400 for one field.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), reason: reason.into() }])
    }

    /// 400 for several fields.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(Code::InvalidRequest, "a field is not valid");
        problem.0.errors = errors;
        problem
    }

    /// 500, with the cause for the log.
    pub(crate) fn internal(source: impl Into<Source>) -> Self {
        Self::new(Code::Internal, "a defect of the server; it has been logged").caused_by(source)
    }

    pub(crate) fn retry_after_s(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds.max(1));
        self
    }

    pub(crate) fn with_queue(mut self, queue: QueueView) -> Self {
        self.0.queue = Some(queue);
        self
    }

    /// For a body that did not arrive within its deadline.
    pub(crate) fn body_late() -> Self {
        Self::new(Code::RequestTimeout, "the body did not come in time")
    }

    fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The cause inside the server, for the log.
    pub(crate) fn source(&self) -> Option<&Source> {
        self.0.source.as_ref()
    }

    /// The answer, with the request's id in it.
    pub(crate) fn response(&self, request_id: &str) -> HttpResponse {
        let inner = &*self.0;
        let mut response = HttpResponse::build(self.status_code());
        response.content_type("application/problem+json");
        if let Some(seconds) = inner.retry_after_s {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(allow) = &inner.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if inner.code == Code::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if inner.replayed {
            response.insert_header(REPLAYED);
        }
        response.body(serde_json::to_vec(&self.document(request_id)).unwrap_or_default())
    }

    fn document<'a>(&'a self, request_id: &'a str) -> ProblemDocument<'a> {
        let inner = &*self.0;
        ProblemDocument {
            kind: format!("urn:boxoffice:problem:{}", inner.code.as_str()),
            title: inner.code.title(),
            status: self.status_code().as_u16(),
            detail: &inner.detail,
            code: inner.code.as_str(),
            request_id,
            errors: &inner.errors,
            seats: inner.seats.as_deref(),
            queue: inner.queue.as_ref(),
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({}: {})", self.0.code.as_str(), self.0.detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Empty: the edge writes the body, because it knows the request's id.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
    use boxoffice_domain::Rejection;
    use boxoffice_ports::{ExecuteError, LedgerError, RoomError, StoreError};
    use serde_json::{Value, json};

    fn document(problem: &Problem) -> (HttpResponse, Value) {
        let response = problem.response("r-1");
        let (response, body) = response.into_parts();
        let bytes = body.try_into_bytes().unwrap();
        (response.set_body(BoxBody::new(())), serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn problem_has_all_members_and_none_that_does_not_apply() {
        let (response, body) = document(&Problem::not_found());
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        let expected = json!({"type": "urn:boxoffice:problem:not_found", "title": "Not found", "status": 404,
            "detail": "there is nothing here under this path", "code": "not_found", "request_id": "r-1"});
        assert_eq!(body, expected);
    }

    #[test]
    fn refusals_have_the_codes_and_members_of_the_public_surface() {
        for (rejection, status, code) in [
            (Rejection::NotFound { what: "seat".into() }, 404, "not_found"),
            (Rejection::InsufficientBalance, 402, "insufficient_balance"),
            (Rejection::SeatUnavailable { seats: vec![3] }, 409, "seat_unavailable"),
            (Rejection::HoldExpired, 409, "hold_expired"),
            (Rejection::HoldReleased, 409, "hold_released"),
            (Rejection::AlreadyPaid, 409, "already_paid"),
            (Rejection::AlreadyRefunded, 409, "already_refunded"),
            (Rejection::IdempotencyKeyReused, 422, "idempotency_key_reused"),
            (Rejection::SeatLimitExceeded { limit: 4 }, 422, "seat_limit_exceeded"),
            (Rejection::BookingClosed, 422, "booking_closed"),
            (Rejection::RefundClosed, 422, "refund_closed"),
            (Rejection::AmountOutOfRange { field: "amount".into(), reason: "too much".into() }, 422, "amount_out_of_range"),
            (Rejection::InsufficientPoints, 422, "insufficient_points"),
            (Rejection::ExtensionLimitExceeded, 422, "extension_limit_exceeded"),
        ] {
            let (response, body) = document(&Problem::refused(&rejection, true));
            assert_eq!((response.status().as_u16(), body["code"].as_str().unwrap()), (status, code));
            assert_eq!(response.headers().get("idempotency-replayed").unwrap(), "true");
            assert_eq!(body.get("seats"), (code == "seat_unavailable").then_some(&json!([3])), "{code}");
            assert_eq!(body.get("errors").is_some(), code == "amount_out_of_range", "{code}");
        }
    }

    #[test]
    fn the_member_seats_is_there_even_when_it_is_empty() {
        let (_, body) = document(&Problem::refused(&Rejection::SeatUnavailable { seats: vec![] }, false));
        assert_eq!(body["seats"], json!([]));
    }

    #[test]
    fn transient_failures_carry_retry_after() {
        let source = || Source::from("gone");
        for (problem, status, code) in [
            (Problem::from(ExecuteError::Overloaded), 503, "overloaded"),
            (Problem::from(ExecuteError::Busy), 409, "busy"),
            (Problem::from(ExecuteError::InProgress), 409, "idempotency_in_progress"),
            (Problem::from(ExecuteError::Unavailable(source())), 503, "store_unavailable"),
            (Problem::from(StoreError::Unavailable(source())), 503, "store_unavailable"),
            (Problem::from(RoomError::Unavailable(source())), 503, "store_unavailable"),
            (Problem::from(LedgerError::LockTimeout), 503, "store_unavailable"),
        ] {
            let (response, body) = document(&problem);
            assert_eq!((response.status().as_u16(), body["code"].as_str().unwrap()), (status, code));
            assert_eq!(response.headers().get("retry-after").unwrap(), "1", "{code}");
        }
    }

    #[test]
    fn a_defect_does_not_show_its_cause() {
        let problem = Problem::from(ExecuteError::Internal(Source::from("secret table name")));
        let (response, body) = document(&problem);
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("secret"), "{body}");
        assert_eq!(problem.source().unwrap().to_string(), "secret table name");
    }

    #[test]
    fn a_401_names_the_scheme_and_a_405_the_methods() {
        let (response, _) = document(&Problem::unauthenticated("no"));
        assert_eq!(response.headers().get("www-authenticate").unwrap(), "Bearer");
        let (response, _) = document(&Problem::method_not_allowed("GET, POST"));
        assert_eq!(response.headers().get("allow").unwrap(), "GET, POST");
    }
}
