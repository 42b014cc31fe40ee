//! A ticket's code, checked by an operator.

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::{ReservationStatus, SeatAtSale};
use boxoffice_ports::PaymentRow;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::caller::Operator;
use super::params::Query;
use super::problem::Problem;
use super::state::App;
use super::views::{ConcertRefView, DateRefView, ReservationStatusSchema, SeatAtSaleView};

#[derive(Serialize, ToSchema)]
#[schema(as = CheckedTicket)]
pub(crate) struct CheckedTicketView<'a> {
    code: String,
    concert: ConcertRefView<'a>,
    date: DateRefView,
    seat: SeatAtSaleView<'a>,
    reservation_id: Uuid,
    /// `confirmed` opens the door; `cancelled` was refunded.
    #[schema(value_type = ReservationStatusSchema)]
    status: ReservationStatus,
    payment_id: Uuid,
    paid_at: DateTime<Utc>,
}

/// What a ticket's code belongs to. Case, hyphens and spaces do not matter.
#[utoipa::path(get, path = "/api/v1/admin/tickets/{code}", tag = "admin",
    params(("code" = String, Path, description = "The code of a ticket", max_length = 64, example = "1H3K7Q2M8Z9YD3M0E4T7QXWK")),
    responses((status = 200, description = "Its seat, and the status of the seat's reservation", body = CheckedTicketView)))]
pub(crate) async fn get(code: web::Path<String>, app: Data<App>, _: Operator, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let (row, number) = app.tickets.find(app.stores.queries.as_ref(), &code).await?.ok_or_else(Problem::not_found)?;
    let PaymentRow { payment, reservation } = &row;
    let now = app.stores.queries.now().await?;
    let seat = reservation.seats.iter().find(|seat: &&SeatAtSale| seat.number == number).ok_or_else(Problem::not_found)?;
    answer::ok(&CheckedTicketView {
        code: app.tickets.code(payment.id, number),
        concert: (&reservation.concert).into(),
        date: (&reservation.date).into(),
        seat: seat.into(),
        reservation_id: reservation.id.0,
        status: reservation.status_at(now),
        payment_id: payment.id.0,
        paid_at: payment.paid_at,
    })
}
