//! Payments, with their tickets and their refund.

use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{Payment, Reservation, SeatAtSale, SeatNumber};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::records::{ConcertRefView, DateRefView, SeatAtSaleView};
use crate::http::ticket_codes::TicketCodes;

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PaymentStatus {
    Paid,
    Refunded,
}

/// What opens the door for one seat.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(crate) struct TicketView {
    seat: SeatNumber,
    #[schema(example = "1H3K7Q2M8Z9YD3M0E4T7QXWK")]
    code: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Refund)]
pub(crate) struct RefundView {
    /// Money that came back.
    amount: Money,
    points_restored: Points,
    points_taken_back: Points,
    /// Granted points that were spent already, kept from the money.
    shortfall: Money,
    refunded_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
pub(crate) struct PaymentView<'a> {
    id: Uuid,
    reservation_id: Uuid,
    status: PaymentStatus,
    concert: ConcertRefView<'a>,
    date: DateRefView,
    seats: Vec<SeatAtSaleView<'a>>,
    /// Money taken: prices as held, less points spent.
    amount: Money,
    #[schema(example = "KRW")]
    currency: &'a str,
    points_spent: Points,
    points_granted: Points,
    tickets: Vec<TicketView>,
    paid_at: DateTime<Utc>,
    refund: Option<RefundView>,
}

impl<'a> PaymentView<'a> {
    pub(crate) fn new(payment: &Payment, reservation: &'a Reservation, currency: &'a str, tickets: &TicketCodes) -> Self {
        let ticket = |seat: &SeatAtSale| TicketView { seat: seat.number, code: tickets.code(payment.id, seat.number) };
        Self {
            id: payment.id.0,
            reservation_id: payment.reservation.0,
            status: if payment.refund.is_some() { PaymentStatus::Refunded } else { PaymentStatus::Paid },
            concert: (&reservation.concert).into(),
            date: (&reservation.date).into(),
            seats: reservation.seats.iter().map(Into::into).collect(),
            amount: payment.amount,
            currency,
            points_spent: payment.points_spent,
            points_granted: payment.points_granted,
            tickets: reservation.seats.iter().map(ticket).collect(),
            paid_at: payment.paid_at,
            refund: payment.refund.as_ref().map(|refund| RefundView {
                amount: refund.amount,
                points_restored: refund.points_restored,
                points_taken_back: refund.points_taken_back,
                shortfall: refund.shortfall,
                refunded_at: refund.refunded_at,
            }),
        }
    }
}
