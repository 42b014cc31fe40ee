//! What the public surface shows of the domain, field for field. Views borrow what they show and are serialised once.
//!
//! A view is made of a record and an instant, never of a clock: a replay is rendered at the instant it was decided, so
//! that it repeats its first answer byte for byte.

mod admission;
mod payment;
mod queue;
mod records;
mod reservation;
mod seat_map;
mod wallet;

use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use admission::{AdmissionView, ModeView, PerIntervalView};
pub(crate) use payment::PaymentView;
pub(crate) use queue::{QueueFrame, QueueView};
pub(crate) use records::{ConcertRefView, DateRefView, SeatAtSaleView};
pub(crate) use reservation::{ReservationStatusSchema, ReservationView};
pub(crate) use seat_map::{SeatMap, SeatView};
pub(crate) use wallet::{RewardView, Rewards, WalletEntryView, WalletView};

/// One page of a list, newest first unless the list says otherwise.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// For `?cursor=`; null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// A list that is always whole.
#[derive(Serialize, ToSchema)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

#[cfg(test)]
mod tests;
