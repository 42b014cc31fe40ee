//! The waiting room: join, poll, lengthen a turn, leave.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::Extended;
use boxoffice_ports::RoomError;

use super::answer;
use super::body::Body;
use super::caller::{User, UserInLane};
use super::lookup;
use super::params::{Id, Query};
use super::problem::{Code, Problem};
use super::queue_token::QueueToken;
use super::state::App;
use super::turn;
use super::views::QueueView;

/// Join, or find one's place: one for each user and concert, on whatever device.
#[utoipa::path(post, path = "/api/v1/concerts/{id}/queue", tag = "queue", responses(
    (status = 201, description = "A new place", body = QueueView),
    (status = 200, description = "The place one has", body = QueueView)))]
pub(crate) async fn join(
    id: Id<ConcertId>,
    app: Data<App>,
    user: UserInLane,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    body.parse_nothing()?;
    let join = async || app.room.join(id.0, user.0, user.1.as_deref().map(str::to_owned), app.ids.fresh().into()).await;
    let entered = lookup::with_room(&app, id.0, join).await?;
    let view = turn::queue_view(&app, id.0, &entered.place);
    if !entered.new {
        return answer::ok(&view);
    }
    let mut response = answer::json(StatusCode::CREATED, &view)?;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/api/v1/queue"));
    Ok(response)
}

/// One's place, with the current token; also after it has ended.
#[utoipa::path(get, path = "/api/v1/queue", tag = "queue", responses((status = 200, description = "The place", body = QueueView)))]
pub(crate) async fn get(app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    Query::none(&request)?;
    let place = match turn::place(&app, &token).await {
        Ok(Some(place)) => place,
        Ok(None) | Err(RoomError::NoRoom) => turn::forgotten(&token),
        Err(error) => return Err(error.into()),
    };
    answer::ok(&turn::queue_view_to(&app, &request, &token, &place))
}

/// A longer turn for a buyer who needs one: a bounded number of times. The token changes with it; the same token again,
/// after an answer that was lost, lengthens nothing and finds the new one.
#[utoipa::path(post, path = "/api/v1/queue/extend", tag = "queue",
    responses((status = 200, description = "The place with its longer turn", body = QueueView)))]
pub(crate) async fn extend(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    Query::none(&request)?;
    body.parse_nothing()?;
    turn::may_hold(&app, &token).await?;
    // The token names the end of the turn to lengthen: sent again, it finds the longer turn.
    let until = token.until.ok_or_else(turn::over)?;
    match app.room.extend(token.concert, token.entry, until).await? {
        Extended::To(place) => answer::ok(&turn::queue_view(&app, token.concert, &place)),
        Extended::LimitReached => Err(Problem::new(Code::ExtensionLimitExceeded, "the turn was lengthened as often as may be")),
        Extended::NotActive => Err(turn::over()),
    }
}

/// Leave: one's live holds of the concert are given back, then the place ends.
#[utoipa::path(delete, path = "/api/v1/queue", tag = "queue", responses((status = 204, description = "The place has ended")))]
pub(crate) async fn leave(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    Query::none(&request)?;
    body.parse_nothing()?;
    // In a task of its own: if the caller disconnects, leaving still completes.
    let leaving = actix_web::rt::spawn(async move {
        app.returns.all_of(user.0, token.concert).await?;
        match leave_room(&app, &token).await {
            Ok(()) | Err(RoomError::NoRoom) => Ok(()),
            Err(error) => Err(Problem::from(error)),
        }
    });
    leaving.await.map_err(Problem::internal)??;
    Ok(HttpResponse::NoContent().finish())
}

/// A place that the room has lost is restored first: otherwise an older token would restore it afterwards.
async fn leave_room(app: &App, token: &QueueToken) -> Result<(), RoomError> {
    turn::touch(app, token).await?;
    app.room.leave(token.concert, token.entry).await
}
