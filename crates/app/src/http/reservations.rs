//! Reservations: hold seats, read reservations, extend, release.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::{Actor, Command, DateId, Reservation, ReservationId, Timestamp, UserId};

use super::answer;
use super::body::Body;
use super::caller::User;
use super::execution;
use super::holding::{Hold, hold_seats};
use super::idempotency::{self, Keyed};
use super::params::{self, Id, IdCursor, Paging, Query};
use super::problem::Problem;
use super::state::App;
use super::turn;
use super::views::{List, ReservationView};

type ReservationCursor = IdCursor<b'r'>;

fn parse(request: &HttpRequest, user: UserId, body: &Body) -> Result<(Keyed, Hold), Problem> {
    Query::none(request)?;
    let key = idempotency::key(request, user)?;
    let hold: Hold = body.parse()?;
    hold.check()?;
    Ok((Keyed::new(key, request, &hold)?, hold))
}

/// Hold seats for a while: all of them, or none.
#[utoipa::path(post, path = "/api/v1/reservations", tag = "reservations", request_body = Hold,
    responses((status = 201, description = "The seats are held", body = ReservationView)))]
pub(crate) async fn create(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    let parsed = parse(&request, user.0, &body);
    if let Ok((_, hold)) = &parsed
        && let Some((concert, _)) = app.catalogue.find_date(DateId(hold.date_id)).await?
    {
        turn::for_concert(&token, concert.concert.id)?;
    }
    if let Err(refusal) = turn::may_hold(&app, &token).await {
        // A stored reply outlives the turn.
        if let Ok((keyed, _)) = &parsed
            && let Some(stored) = execution::stored(&app, *keyed).await?
        {
            return execution::reply(&app, &stored);
        }
        return Err(refusal);
    }
    let (keyed, hold) = parsed?;
    let ran = hold_seats(&app, user.0, keyed, &hold).await?;
    execution::answer(&app, &ran)
}

fn view<'a>(app: &'a App, reservation: &'a Reservation, now: Timestamp) -> ReservationView<'a> {
    let extensions_left = app.policy.extensions_max.saturating_sub(reservation.extensions);
    ReservationView::at(reservation, now, extensions_left, &app.settings.money.currency)
}

/// One's reservations, newest first.
#[utoipa::path(get, path = "/api/v1/reservations", tag = "reservations",
    responses((status = 200, description = "A page of reservations", body = List<ReservationView>)))]
pub(crate) async fn list(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<ReservationCursor>::of(&request)?;
    let page = app.stores.queries.reservations(user.0, paging.after.map(|after| after.0.into()), paging.limit).await?;
    let now = app.stores.queries.now().await?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|reservation| params::encode::<ReservationCursor>(&IdCursor(reservation.id.0)));
    answer::ok(&List { items: page.items.iter().map(|reservation| view(&app, reservation, now)).collect(), next_cursor })
}

/// One of one's reservations.
#[utoipa::path(get, path = "/api/v1/reservations/{id}", tag = "reservations",
    responses((status = 200, description = "The reservation", body = ReservationView)))]
pub(crate) async fn get(id: Id<ReservationId>, app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let reservation = app.stores.queries.reservation(user.0, id.0).await?.ok_or_else(Problem::not_found)?;
    let now = app.stores.queries.now().await?;
    answer::ok(&view(&app, &reservation, now))
}

/// Hold on for longer.
#[utoipa::path(post, path = "/api/v1/reservations/{id}/extend", tag = "reservations",
    responses((status = 200, description = "The reservation with its new end", body = ReservationView)))]
pub(crate) async fn extend(
    id: Id<ReservationId>,
    app: Data<App>,
    user: User,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    turn::for_hold(&app, &token, id.0).await?;
    Query::none(&request)?;
    let keyed = Keyed::new(idempotency::key(&request, user.0)?, &request, &body.parse_nothing()?)?;
    let command = Command::ExtendHold { user: user.0, reservation: id.0 };
    execution::execute(&app, app.seat.as_ref(), Actor::User(user.0), keyed, command).await
}

/// Give a hold up. The turn stays, so that one may choose again; releasing again is no error.
#[utoipa::path(delete, path = "/api/v1/reservations/{id}", tag = "reservations",
    responses((status = 204, description = "The seats are free again")))]
pub(crate) async fn release(
    id: Id<ReservationId>,
    app: Data<App>,
    user: User,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    body.parse_nothing()?;
    let command = Command::ReleaseHold { reservation: id.0 };
    let ran = execution::run_unkeyed(&app, user.0, &request, command).await?;
    execution::answer(&app, &ran)
}
