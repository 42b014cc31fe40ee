//! Headers of our own answers, and the id of a request.

use actix_web::http::header::{HeaderName, HeaderValue};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Marks an answer that repeats an earlier one.
pub(crate) const REPLAYED: (HeaderName, HeaderValue) = (HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));

/// 128 random bits in lower-case hex.
pub(super) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
