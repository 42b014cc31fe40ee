//! Whether the queue token lets one through.
//!
//! A token is *genuine* when a key of ours signed it for this user, and fits the thing's concert. Reading dates and
//! seats takes a turn by signature and `until` alone, without a round trip; starting a hold asks the room, because
//! that is where the number of active people is judged.
//!
//! A room may have lost its memory. Whoever then comes with a genuine token for an entry that it does not know gets
//! their place back, by what the token says ([`place`], [`touch`]): whichever of their requests comes first.

use actix_web::HttpRequest;
use boxoffice_domain::{ConcertId, Place, QueueStatus, UserId, waiting};
use boxoffice_ports::RoomError;

use super::App;
use super::problem::{Code, Problem};
use super::queue_token::{self, QueueToken};
use super::views::QueueView;

const HEADER: &str = "Queue-Token";

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

/// A token opens only its own concert's things.
pub(crate) fn for_concert(token: &QueueToken, concert: ConcertId) -> Result<(), Problem> {
    if token.concert == concert { Ok(()) } else { Err(Problem::new(Code::QueueTokenInvalid, "the token is another concert's")) }
}

/// Whether the turn is running, by the token alone.
pub(crate) async fn is_running(app: &App, token: &QueueToken) -> Result<(), Problem> {
    match token.until {
        Some(until) if app.clock.now() < until => Ok(()),
        Some(_) => Err(over()),
        None => {
            let place = place(app, token).await?;
            Err(not_yet(app, token, place))
        }
    }
}

/// Whether a hold may be started: by the token, and where the truth is.
pub(crate) async fn may_hold(app: &App, token: &QueueToken) -> Result<(), Problem> {
    if token.until.is_some_and(|until| until <= app.clock.now()) {
        return Err(over());
    }
    match touch(app, token).await? {
        Some(place) if place.status == QueueStatus::Active && token.until.is_some() => Ok(()),
        place => Err(not_yet(app, token, place)),
    }
}

/// The place of a genuine token's entry as a poll shows it; `None` for one that is over and forgotten.
pub(crate) async fn place(app: &App, token: &QueueToken) -> Result<Option<Place>, RoomError> {
    known(app, token, app.room.place(token.concert, token.entry).await?).await
}

/// The same from where the truth is.
pub(crate) async fn touch(app: &App, token: &QueueToken) -> Result<Option<Place>, RoomError> {
    known(app, token, app.room.touch(token.concert, token.entry).await?).await
}

/// An entry that the room does not know is given back to it.
async fn known(app: &App, token: &QueueToken, found: Option<Place>) -> Result<Option<Place>, RoomError> {
    match found {
        None => app.room.restore(token.concert, token.claim()).await,
        found => Ok(found),
    }
}

fn over() -> Problem {
    Problem::new(Code::QueueTokenExpired, "the turn is over; join again")
}

/// The refusal for a place that has not its turn, or whose token is older than its turn.
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
    let shows_place = matches!(place.status, QueueStatus::Waiting | QueueStatus::SoldOut | QueueStatus::Active);
    QueueView {
        concert_id: concert.0,
        entry_id: place.entry.0,
        token: queue_token::sign(&app.signing, &QueueToken::of(concert, place)),
        status: place.status.into(),
        place: shows_place.then_some(place.arrival),
        ahead: place.ahead,
        eta: place.eta.map(Into::into),
        chance: place.chance.map(|permille| f64::from(permille) / 1_000.0),
        poll_after_ms: waiting::poll_after_ms(place, app.clock.now()),
        active_until: place.active_until,
        sale_starts_at: place.sale_starts_at,
        draw: place.draw.map(Into::into),
    }
}

/// How an entry reads that is not known any more.
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
