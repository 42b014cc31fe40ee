//! Refusals. A refusal is a result of the rule: it is stored and replayed like success, and is never an error.

use crate::SeatNumber;
use serde::{Deserialize, Serialize};

/// Why a command was refused. Serialised into stored replies, so variants are added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Rejection {
    /// `what` is the public name of the thing: `date`, `seat`, `reservation`, `payment`.
    #[error("there is no such {what}")]
    NotFound { what: String },
    #[error("the wallet does not hold the amount")]
    InsufficientBalance,
    /// `seats` are those that are taken; empty if none of the best choices was free.
    #[error("seats are not available")]
    SeatUnavailable { seats: Vec<SeatNumber> },
    #[error("the hold has expired")]
    HoldExpired,
    #[error("the hold was released")]
    HoldReleased,
    #[error("the reservation is already paid")]
    AlreadyPaid,
    #[error("the payment is already refunded")]
    AlreadyRefunded,
    /// Never stored: the key keeps its first answer.
    #[error("the idempotency key was used with another request")]
    IdempotencyKeyReused,
    #[error("at most {limit} seats of a date for each user")]
    SeatLimitExceeded { limit: u32 },
    #[error("the date is not open for booking")]
    BookingClosed,
    #[error("the time for refunds is over")]
    RefundClosed,
    /// `field` of the request's body.
    #[error("{field}: {reason}")]
    AmountOutOfRange { field: String, reason: String },
    #[error("there are not that many points")]
    InsufficientPoints,
    #[error("the hold was extended as often as it may be")]
    ExtensionLimitExceeded,
}

impl Rejection {
    pub(crate) fn not_found(what: &str) -> Self {
        Self::NotFound { what: what.to_owned() }
    }
}
