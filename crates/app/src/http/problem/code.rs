//! The codes of problems, with their statuses and titles: the public surface lists them.

macro_rules! codes {
    ($($name:ident $text:literal $status:literal $title:literal)*) => {
        /// The kind of a problem, for machines. Each has one status.
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

            pub(super) fn title(self) -> &'static str {
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
    QueueClosed "queue_closed" 409 "The waiting room is closed to new entries"
    SeatUnavailable "seat_unavailable" 409 "A seat is not available"
    HoldExpired "hold_expired" 409 "The hold has expired"
    HoldReleased "hold_released" 409 "The hold was released"
    AlreadyPaid "already_paid" 409 "Already paid"
    AlreadyRefunded "already_refunded" 409 "Already refunded"
    CatalogConflict "catalog_conflict" 409 "The document changes seats that are held or sold"
    Busy "busy" 409 "The lock is held by another command"
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
    Overloaded "overloaded" 503 "The server is overloaded"
    StoreUnavailable "store_unavailable" 503 "The store is unavailable"
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::StatusCode;

    #[test]
    fn codes_are_distinct_and_their_statuses_exist() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            assert!(StatusCode::from_u16(code.status()).is_ok());
        }
    }
}
