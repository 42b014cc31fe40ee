//! The problem document (RFC 9457) as clients see it.

use boxoffice_domain::SeatNumber;
use boxoffice_domain::concert::Fault;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::views::QueueView;

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

/// An error, always as `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// A URN made of the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:boxoffice:problem:not_found")]
    pub(super) kind: String,
    pub(super) title: &'a str,
    pub(super) status: u16,
    /// For people; may change.
    pub(super) detail: &'a str,
    /// For machines.
    #[schema(example = "not_found")]
    pub(super) code: &'a str,
    /// The same as the `X-Request-Id` header.
    pub(super) request_id: &'a str,
    /// Where fields are at fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Option<Vec<FieldError>>, required = false)]
    pub(super) errors: &'a [FieldError],
    /// For `seat_unavailable`: the seats that another buyer has; empty when no best seats were free.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u32>>, required = false)]
    pub(super) seats: Option<&'a [SeatNumber]>,
    /// For `queue_waiting`: the place, with the current token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<QueueView>, required = false)]
    pub(super) queue: Option<&'a QueueView>,
}
