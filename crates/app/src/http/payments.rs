//! Payments: pay a hold, read payments, refund one.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::money::Points;
use boxoffice_domain::{Actor, Command, PaymentId, ReservationId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::body::Body;
use super::caller::User;
use super::execution::{self, Ran};
use super::idempotency::{self, Keyed};
use super::params::{self, Id, IdCursor, Paging, Query};
use super::problem::Problem;
use super::state::App;
use super::turn;
use super::views::{List, PaymentView};

type PaymentCursor = IdCursor<b'p'>;

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pay {
    reservation_id: Uuid,
    /// Points to spend in place of money.
    #[schema(minimum = 1)]
    points: Option<Points>,
}

/// Pay a live hold from the wallet.
#[utoipa::path(post, path = "/api/v1/payments", tag = "payments", request_body = Pay,
    responses((status = 201, description = "Paid: the seats are sold, with a ticket each", body = PaymentView)))]
pub(crate) async fn create(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    Query::none(&request)?;
    let key = idempotency::key(&request, user.0)?;
    let pay: Pay = body.parse()?;
    if pay.points.is_some_and(|points| points < 1) {
        return Err(Problem::field("points", "must be at least 1"));
    }
    let keyed = Keyed::new(key, &request, &pay)?;
    let reservation = ReservationId(pay.reservation_id);
    turn::for_hold(&app, &token, reservation).await?;
    let command = Command::Pay { user: user.0, reservation, points: pay.points.unwrap_or(0) };
    let ran = execution::run(&app, app.payment.as_ref(), Actor::User(user.0), keyed, command).await?;
    if let Ran::Decided(reply) = &ran {
        turn::ended_by(&app, reply).await;
    }
    execution::answer(&app, &ran)
}

/// One's payments, newest first.
#[utoipa::path(get, path = "/api/v1/payments", tag = "payments",
    responses((status = 200, description = "A page of payments", body = List<PaymentView>)))]
pub(crate) async fn list(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<PaymentCursor>::of(&request)?;
    let page = app.stores.queries.payments(user.0, paging.after.map(|after| after.0.into()), paging.limit).await?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|row| params::encode::<PaymentCursor>(&IdCursor(row.payment.id.0)));
    let currency = &app.settings.money.currency;
    let items = page.items.iter().map(|row| PaymentView::new(&row.payment, &row.reservation, currency, &app.tickets)).collect();
    answer::ok(&List { items, next_cursor })
}

/// One of one's payments.
#[utoipa::path(get, path = "/api/v1/payments/{id}", tag = "payments",
    responses((status = 200, description = "The payment, with its tickets", body = PaymentView)))]
pub(crate) async fn get(id: Id<PaymentId>, app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let row = app.stores.queries.payment(user.0, id.0).await?.ok_or_else(Problem::not_found)?;
    answer::ok(&PaymentView::new(&row.payment, &row.reservation, &app.settings.money.currency, &app.tickets))
}

/// Give a payment back, whole.
#[utoipa::path(post, path = "/api/v1/payments/{id}/refund", tag = "payments",
    responses((status = 200, description = "The payment, refunded", body = PaymentView)))]
pub(crate) async fn refund(
    id: Id<PaymentId>,
    app: Data<App>,
    user: User,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let keyed = Keyed::new(idempotency::key(&request, user.0)?, &request, &body.parse_nothing()?)?;
    let command = Command::Refund { user: user.0, payment: id.0 };
    execution::execute(&app, app.payment.as_ref(), Actor::User(user.0), keyed, command).await
}
