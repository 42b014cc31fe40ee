//! Every error as a problem document (RFC 9457), and the one place that maps refusals and failures to it.
//!
//! A [`Problem`] is what handlers return; it has no request id yet, because only [`super::edge`] knows it, which is
//! why the body is written there. What went wrong inside is kept as `source` for the log and never shown.

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use boxoffice_domain::concert::Fault;
use boxoffice_domain::{Rejection, SeatNumber};
use boxoffice_engine::{NotReturned, SearchError};
use boxoffice_ports::{CatalogError, ExecuteError, LedgerError, RoomError, Source, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::views::QueueView;

/// How long to wait before trying again what failed for a passing reason, seconds.
const RETRY_AFTER_S: u64 = 1;

macro_rules! codes {
    ($($name:ident $text:literal $status:literal $title:literal)*) => {
        /// What is wrong, for machines. Each has one status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Code { $($name),* }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Code] = &[$(Code::$name),*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            pub(crate) fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" 400 "The request is not valid"
    IdempotencyKeyRequired "idempotency_key_required" 400 "An Idempotency-Key is required"
    Unauthenticated "unauthenticated" 401 "A valid bearer token is required"
    InsufficientBalance "insufficient_balance" 402 "The balance is too low"
    Forbidden "forbidden" 403 "Not allowed"
    DevModeOff "dev_mode_off" 403 "Development mode is off"
    SelfChargeOff "self_charge_off" 403 "Users may not charge their own wallets"
    QueueTokenRequired "queue_token_required" 403 "A queue token is required"
    QueueTokenInvalid "queue_token_invalid" 403 "The queue token is not valid here"
    QueueTokenExpired "queue_token_expired" 403 "The turn is over"
    QueueWaiting "queue_waiting" 403 "The turn has not come yet"
    NotFound "not_found" 404 "Not found"
    MethodNotAllowed "method_not_allowed" 405 "Method not allowed"
    RequestTimeout "request_timeout" 408 "The request did not come in time"
    QueueClosed "queue_closed" 409 "The waiting room takes nobody new"
    SeatUnavailable "seat_unavailable" 409 "A seat is not available"
    HoldExpired "hold_expired" 409 "The hold has expired"
    HoldReleased "hold_released" 409 "The hold was released"
    AlreadyPaid "already_paid" 409 "Already paid"
    AlreadyRefunded "already_refunded" 409 "Already refunded"
    CatalogConflict "catalog_conflict" 409 "The document changes seats that are held or sold"
    Busy "busy" 409 "Somebody else is at it"
    IdempotencyInProgress "idempotency_in_progress" 409 "The same request is still being decided"
    BodyTooLarge "body_too_large" 413 "The body is too large"
    UnsupportedMediaType "unsupported_media_type" 415 "The body must be application/json"
    IdempotencyKeyReused "idempotency_key_reused" 422 "The Idempotency-Key was used for another request"
    SeatLimitExceeded "seat_limit_exceeded" 422 "Too many seats"
    BookingClosed "booking_closed" 422 "The date is not open for booking"
    RefundClosed "refund_closed" 422 "The time for refunds is over"
    AmountOutOfRange "amount_out_of_range" 422 "The amount is out of range"
    InsufficientPoints "insufficient_points" 422 "Not that many points"
    ExtensionLimitExceeded "extension_limit_exceeded" 422 "The hold cannot be extended again"
    TooManyRequests "too_many_requests" 429 "Too many requests"
    HeadTooLarge "head_too_large" 431 "The request line and the headers are too long"
    Internal "internal" 500 "Internal error"
    Overloaded "overloaded" 503 "More is asked than can be served"
    StoreUnavailable "store_unavailable" 503 "The store is unavailable"
}

/// One field that is at fault; `field` is a path such as `best.count`, or the name of a header or query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) reason: String,
}

impl From<Fault> for FieldError {
    fn from(fault: Fault) -> Self {
        Self { field: fault.field, reason: fault.reason }
    }
}

/// An error on its way out.
pub(crate) struct Problem(Box<Parts>);

struct Parts {
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
        Self(Box::new(Parts {
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

    /// The path names nothing, or nothing of the caller's.
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

    /// A refusal as it was decided.
    pub(crate) fn refused(rejection: &Rejection, replayed: bool) -> Self {
        let mut problem = Self::new(code_of(rejection), rejection.to_string());
        problem.0.replayed = replayed;
        match rejection {
            Rejection::SeatUnavailable { seats } => problem.0.seats = Some(seats.clone()),
            Rejection::AmountOutOfRange { field, reason } => {
                problem.0.errors = vec![FieldError { field: field.clone(), reason: reason.clone() }];
            }
            _ => {}
        }
        problem
    }

    fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// What went wrong inside, for the log.
    pub(crate) fn source(&self) -> Option<&Source> {
        self.0.source.as_ref()
    }

    /// The answer, with the request's id in it.
    pub(crate) fn response(&self, request_id: &str) -> HttpResponse {
        let parts = &*self.0;
        let status = self.status_code();
        let document = ProblemDocument {
            kind: format!("urn:boxoffice:problem:{}", parts.code.as_str()),
            title: parts.code.title(),
            status: status.as_u16(),
            detail: &parts.detail,
            code: parts.code.as_str(),
            request_id,
            errors: &parts.errors,
            seats: parts.seats.as_deref(),
            queue: parts.queue.as_ref(),
        };
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json");
        if let Some(seconds) = parts.retry_after_s {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(allow) = &parts.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if parts.code == Code::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if parts.replayed {
            response.insert_header(super::idempotency::REPLAYED);
        }
        response.body(serde_json::to_vec(&document).unwrap_or_default())
    }
}

/// An error, always as `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// A URN made of the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:boxoffice:problem:not_found")]
    kind: String,
    title: &'a str,
    status: u16,
    /// For people; may change.
    detail: &'a str,
    /// For machines.
    #[schema(example = "not_found")]
    code: &'a str,
    /// The same as the `X-Request-Id` header.
    request_id: &'a str,
    /// Where fields are at fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Option<Vec<FieldError>>, required = false)]
    errors: &'a [FieldError],
    /// For `seat_unavailable`: the seats somebody else has; empty when none of the best was to be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u32>>, required = false)]
    seats: Option<&'a [SeatNumber]>,
    /// For `queue_waiting`: the place, with the current token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QueueView>, required = false)]
    queue: Option<&'a QueueView>,
}

fn code_of(rejection: &Rejection) -> Code {
    match rejection {
        Rejection::NotFound { .. } => Code::NotFound,
        Rejection::InsufficientBalance => Code::InsufficientBalance,
        Rejection::SeatUnavailable { .. } => Code::SeatUnavailable,
        Rejection::HoldExpired => Code::HoldExpired,
        Rejection::HoldReleased => Code::HoldReleased,
        Rejection::AlreadyPaid => Code::AlreadyPaid,
        Rejection::AlreadyRefunded => Code::AlreadyRefunded,
        Rejection::IdempotencyKeyReused => Code::IdempotencyKeyReused,
        Rejection::SeatLimitExceeded { .. } => Code::SeatLimitExceeded,
        Rejection::BookingClosed => Code::BookingClosed,
        Rejection::RefundClosed => Code::RefundClosed,
        Rejection::AmountOutOfRange { .. } => Code::AmountOutOfRange,
        Rejection::InsufficientPoints => Code::InsufficientPoints,
        Rejection::ExtensionLimitExceeded => Code::ExtensionLimitExceeded,
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

fn unavailable(source: Source) -> Problem {
    Problem::new(Code::StoreUnavailable, "the store cannot be reached; try again").caused_by(source)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => unavailable(source),
            StoreError::Broken(source) => Self::internal(source),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(source) => Self::internal(source),
            LedgerError::Unavailable(source) | LedgerError::Retryable(source) => unavailable(source),
            LedgerError::Conflict | LedgerError::LockTimeout => unavailable(error.into()),
        }
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Overloaded => Self::new(Code::Overloaded, "more commands are waiting than can be served; nothing was done"),
            ExecuteError::Busy => Self::new(Code::Busy, "somebody else holds the lock; nothing was done"),
            ExecuteError::InProgress => Self::new(Code::IdempotencyInProgress, "ask again with the same key"),
            ExecuteError::Unavailable(source) => unavailable(source),
            ExecuteError::Internal(source) => Self::internal(source),
        }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Store(error) => error.into(),
            SearchError::TimedOut => Self::new(Code::Overloaded, "others were quicker as long as could be waited; nothing was done"),
        }
    }
}

impl From<NotReturned> for Problem {
    fn from(error: NotReturned) -> Self {
        match error {
            NotReturned::Store(error) => error.into(),
            NotReturned::Ledger(error) => error.into(),
        }
    }
}

impl From<RoomError> for Problem {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::NoRoom => Self::not_found(),
            RoomError::Closed => Self::new(Code::QueueClosed, "the waiting room is draining: who waits is still admitted"),
            RoomError::Unavailable(source) => unavailable(source),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Conflict { field, seat } => {
                let mut problem = Self::new(Code::CatalogConflict, "nothing was written");
                problem.0.errors = vec![FieldError { field, reason: format!("seat {seat} is held or sold") }];
                problem
            }
            CatalogError::Unavailable(source) => unavailable(source),
            CatalogError::Broken(source) => Self::internal(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
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
    fn seats_are_told_even_when_there_are_none() {
        let (_, body) = document(&Problem::refused(&Rejection::SeatUnavailable { seats: vec![] }, false));
        assert_eq!(body["seats"], json!([]));
    }

    #[test]
    fn passing_failures_say_when_to_try_again() {
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
    fn defects_keep_their_cause_to_themselves() {
        let problem = Problem::from(ExecuteError::Internal(Source::from("secret table name")));
        let (response, body) = document(&problem);
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("secret"), "{body}");
        assert_eq!(problem.source().unwrap().to_string(), "secret table name");
    }

    #[test]
    fn who_is_not_known_is_told_how_to_be() {
        let (response, _) = document(&Problem::unauthenticated("no"));
        assert_eq!(response.headers().get("www-authenticate").unwrap(), "Bearer");
        let (response, _) = document(&Problem::method_not_allowed("GET, POST"));
        assert_eq!(response.headers().get("allow").unwrap(), "GET, POST");
    }

    #[test]
    fn codes_are_distinct_and_their_statuses_exist() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            assert!(StatusCode::from_u16(code.status()).is_ok());
        }
    }
}
