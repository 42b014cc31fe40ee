//! What a queue token permits.
//!
//! A token is *genuine* when a key of ours signed it for this user; it opens only its own concert's resources. Reading
//! dates and seats checks the turn by signature and `until` alone, without a round trip. Starting a hold goes to the room,
//! because the room bounds the number of active entries.
//!
//! A room may have lost its state. The first request with a genuine token for an entry that the room does not know
//! restores the place from the token ([`place`], [`touch`]).

use actix_web::HttpRequest;
use boxoffice_domain::{ConcertId, Place, QueueStatus, Reply, ReservationId, Timestamp, UserId};
use boxoffice_engine::TurnEnd;
use boxoffice_ports::RoomError;

use super::lookup;
use super::problem::{Code, Problem};
use super::queue_token::{self, QueueToken};
use super::state::App;
use super::views::QueueView;

const HEADER: &str = "Queue-Token";

/// The token of a stream: in the header or, because a browser cannot set it there, in the query. It alone permits to
/// subscribe.
pub(crate) fn of_stream(app: &App, request: &HttpRequest, in_query: Option<&str>) -> Result<QueueToken, Problem> {
    let invalid = |detail| Problem::new(Code::QueueTokenInvalid, detail);
    let mut values = request.headers().get_all(HEADER).map(|value| value.to_str().unwrap_or_default()).chain(in_query);
    let Some(text) = values.next() else {
        return Err(Problem::new(Code::QueueTokenRequired, "send the token of your place: the header Queue-Token, or ?token="));
    };
    if values.next().is_some() {
        return Err(invalid("send one token"));
    }
    queue_token::verify(&app.signing, text.trim()).ok_or_else(|| invalid("the token is not genuine"))
}

/// The request's token, if it is genuine and this user's.
pub(crate) fn genuine(app: &App, request: &HttpRequest, user: UserId) -> Result<QueueToken, Problem> {
    let required = || Problem::new(Code::QueueTokenRequired, "send the header Queue-Token with the token of your place");
    let mut values = request.headers().get_all(HEADER);
    let text = values.next().ok_or_else(required)?;
    if values.next().is_some() {
        return Err(Problem::new(Code::QueueTokenInvalid, "send one Queue-Token"));
    }
    let token = text.to_str().ok().and_then(|text| queue_token::verify(&app.signing, text.trim()));
    token.filter(|token| token.user == user).ok_or_else(|| Problem::new(Code::QueueTokenInvalid, "the token is not one of yours"))
}

/// Refuses a token of another concert.
pub(crate) fn for_concert(token: &QueueToken, concert: ConcertId) -> Result<(), Problem> {
    if token.concert == concert { Ok(()) } else { Err(Problem::new(Code::QueueTokenInvalid, "the token is another concert's")) }
}

/// The same for a hold of this user. A hold that does not exist is refused by the decision.
pub(crate) async fn for_hold(app: &App, token: &QueueToken, reservation: ReservationId) -> Result<(), Problem> {
    let concert = match app.holds.concert_of(token.user, reservation) {
        Some(concert) => Some(concert),
        None => app.stores.queries.reservation(token.user, reservation).await?.map(|found| found.concert.id),
    };
    concert.map_or(Ok(()), |concert| for_concert(token, concert))
}

/// Whether the turn is running, by the token alone.
pub(crate) async fn is_running(app: &App, token: &QueueToken) -> Result<(), Problem> {
    match token.until {
        Some(until) if room_time(app, token) < until => Ok(()),
        Some(_) => Err(over()),
        None => {
            let place = place(app, token).await?;
            Err(not_yet(app, token, place))
        }
    }
}

/// Whether a hold may be started: by the token, and by the room's current state.
pub(crate) async fn may_hold(app: &App, token: &QueueToken) -> Result<(), Problem> {
    if token.until.is_some_and(|until| until <= room_time(app, token)) {
        return Err(over());
    }
    match touch(app, token).await? {
        Some(place) if place.status == QueueStatus::Active && token.until.is_some() => Ok(()),
        place => Err(not_yet(app, token, place)),
    }
}

/// An answer that ends a turn waits until the room has recorded it, so that the turn has ended on every instance, but no
/// longer than `admission.room_wait_ms`. A replay does the same: the instance that decided may be gone.
pub(crate) async fn ended_by(app: &App, reply: &Reply) {
    if let Some(end) = TurnEnd::of_reply(reply) {
        app.turns.ended_in_time(end).await;
    }
}

/// A turn ends by the clock of the room that gave it, where there is one.
fn room_time(app: &App, token: &QueueToken) -> Timestamp {
    app.rooms.look(token.concert, |_, now| now).unwrap_or_else(|_| app.clock.now())
}

/// The place of a genuine token's entry as a poll shows it; `None` for an entry that has ended and is removed.
pub(crate) async fn place(app: &App, token: &QueueToken) -> Result<Option<Place>, RoomError> {
    let found = lookup::with_room(app, token.concert, async || app.room.place(token.concert, token.entry).await).await?;
    restored(app, token, found).await
}

/// The same, with every change that any instance has acknowledged before.
pub(crate) async fn touch(app: &App, token: &QueueToken) -> Result<Option<Place>, RoomError> {
    let found = lookup::with_room(app, token.concert, async || app.room.touch(token.concert, token.entry).await).await?;
    restored(app, token, found).await
}

/// Restores an entry that the room does not know.
async fn restored(app: &App, token: &QueueToken, found: Option<Place>) -> Result<Option<Place>, RoomError> {
    match found {
        None => app.room.restore(token.concert, token.claim()).await,
        found => Ok(found),
    }
}

pub(crate) fn over() -> Problem {
    Problem::new(Code::QueueTokenExpired, "the turn is over; join again")
}

/// The refusal for a place whose turn has not come, or whose token is older than its turn.
fn not_yet(app: &App, token: &QueueToken, place: Option<Place>) -> Problem {
    match place {
        Some(place) if !place.status.is_ended() => {
            let view = queue_view(app, token.concert, &place);
            Problem::new(Code::QueueWaiting, "the turn has not come yet, or came after this token was given").with_queue(view)
        }
        _ => over(),
    }
}

/// A place as it is shown, with its current token.
pub(crate) fn queue_view(app: &App, concert: ConcertId, place: &Place) -> QueueView {
    let token = queue_token::sign(&app.signing, &QueueToken::of(concert, place));
    QueueView::new(concert, place, token, app.clock.now())
}

/// The same for a request that carries `token`: it stays the current one while its contents hold and its key still signs.
pub(crate) fn queue_view_to(app: &App, request: &HttpRequest, token: &QueueToken, place: &Place) -> QueueView {
    let current = QueueToken::of(token.concert, place);
    let shown = request.headers().get(HEADER).and_then(|text| text.to_str().ok()).map(str::trim);
    let text = match shown.filter(|text| current == *token && app.signing.is_current(text)) {
        Some(text) => text.to_owned(),
        None => queue_token::sign(&app.signing, &current),
    };
    QueueView::new(token.concert, place, text, app.clock.now())
}

/// The place of an entry that the room has removed.
pub(crate) fn forgotten(token: &QueueToken) -> Place {
    Place {
        entry: token.entry,
        user: token.user,
        lane: token.lane,
        status: QueueStatus::Expired,
        arrival: token.arrival,
        ahead: None,
        active_until: None,
        eta: None,
        chance: None,
        sale_starts_at: None,
        draw: None,
    }
}
