//! What a command is answered.

use crate::{Payment, Rejection, Reservation, Timestamp, WalletEntry};
use serde::{Deserialize, Serialize};

/// What came of a command that was accepted: the records as they were at that instant, for as long as it is replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A charge or a use.
    Entered {
        entry: WalletEntry,
    },
    Held {
        reservation: Reservation,
        extensions_left: u32,
    },
    Extended {
        reservation: Reservation,
        extensions_left: u32,
    },
    Released {
        reservation: Reservation,
    },
    Expired {
        reservation: Reservation,
    },
    Paid {
        payment: Payment,
        reservation: Reservation,
        /// No other live hold of the payer for this concert remained when it was decided. Replies from before this
        /// was noted read so.
        #[serde(default = "noted_since")]
        last_hold: bool,
    },
    Refunded {
        payment: Payment,
        reservation: Reservation,
    },
}

fn noted_since() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Done(Outcome),
    Refused(Rejection),
    /// None of the best choices is free any more: choose again. Never stored.
    Retry,
}

impl From<Result<Outcome, Rejection>> for Decision {
    fn from(result: Result<Outcome, Rejection>) -> Self {
        match result {
            Ok(outcome) => Self::Done(outcome),
            Err(rejection) => Self::Refused(rejection),
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub decision: Decision,
    /// When it was decided: a replay keeps the instant of its first answer.
    pub decided_at: Timestamp,
    pub replayed: bool,
}
