//! Reservations: hold seats, look, extend, give up.

use std::collections::HashSet;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::text::TEXT_MAX;
use boxoffice_domain::{Actor, Command, DateId, Decision, Rejection, Reply, Reservation, ReservationId, SeatNumber, Timestamp, UserId};
use boxoffice_engine::Wish;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::App;
use super::answer::{self, Ran};
use super::auth::User;
use super::body::Body;
use super::idempotency::{self, Keyed};
use super::params::{self, Id, Key, Paging, Query};
use super::problem::Problem;
use super::turn;
use super::views::{List, ReservationView};

type ReservationCursor = Key<b'r'>;

/// Stands for a number that no seat can have, because it does not fit one; seats begin at 1.
const NO_SUCH_SEAT: SeatNumber = 0;

/// Either `seats` or `best`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    date_id: Uuid,
    /// Numbers of seats, all or none.
    #[schema(value_type = Option<Vec<u32>>, min_items = 1, example = json!([12, 13]))]
    seats: Option<Vec<i64>>,
    best: Option<Best>,
}

/// The best seats that are free: higher price first, then lower number. That none can be had is answered without being
/// stored: the same key may be sent again.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    #[schema(minimum = 1, example = 2)]
    count: i64,
    /// Only of this grade.
    #[schema(max_length = 200)]
    grade: Option<String>,
    /// Consecutive numbers of the same section, row and grade; true when absent.
    adjacent: Option<bool>,
}

impl Hold {
    fn check(&self) -> Result<(), Problem> {
        match (&self.seats, &self.best) {
            (Some(_), Some(_)) | (None, None) => Err(Problem::field("seats", "send either seats or best")),
            (None, Some(best)) if best.count < 1 => Err(Problem::field("best.count", "must be at least 1")),
            (None, Some(best)) => params::text("best.grade", best.grade.as_deref(), TEXT_MAX),
            (Some(seats), None) if seats.is_empty() => Err(Problem::field("seats", "must not be empty")),
            (Some(seats), None) => {
                let mut seen = HashSet::with_capacity(seats.len());
                for (at, seat) in seats.iter().enumerate() {
                    if *seat < 1 {
                        return Err(Problem::field(format!("seats[{at}]"), "must be at least 1"));
                    }
                    if !seen.insert(seat) {
                        return Err(Problem::field(format!("seats[{at}]"), "must be named once"));
                    }
                }
                Ok(())
            }
        }
    }

    fn count(&self) -> u32 {
        let count = match (&self.seats, &self.best) {
            (Some(seats), _) => u32::try_from(seats.len()).ok(),
            (None, Some(best)) => u32::try_from(best.count).ok(),
            (None, None) => None,
        };
        count.unwrap_or(u32::MAX)
    }
}

fn parse(request: &HttpRequest, user: UserId, body: &Body) -> Result<(Keyed, Hold), Problem> {
    Query::none(request)?;
    let key = idempotency::Key::of(request, user)?;
    let hold: Hold = body.parse()?;
    hold.check()?;
    Ok((key.over(request, &hold)?, hold))
}

/// Hold seats for a while: all of them, or none.
#[utoipa::path(post, path = "/api/v1/reservations", tag = "reservations", request_body = Hold,
    responses((status = 201, description = "The seats are held", body = ReservationView)))]
pub(crate) async fn create(app: Data<App>, user: User, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    let parsed = parse(&request, user.0, &body);
    if let Ok((_, hold)) = &parsed
        && let Some((concert, _)) = app.shows.find_date(DateId(hold.date_id)).await?
    {
        turn::for_concert(&token, concert.concert.id)?;
    }
    if let Err(refusal) = turn::may_hold(&app, &token).await {
        // A stored reply outlives the turn.
        if let Ok((keyed, _)) = &parsed
            && let Some(stored) = answer::stored(&app, *keyed).await?
        {
            return answer::reply(&app, &stored);
        }
        return Err(refusal);
    }
    let (keyed, hold) = parsed?;
    let ran = decide(&app, user.0, keyed, &hold).await?;
    answer::ran(&app, &ran)
}

async fn decide(app: &App, user: UserId, keyed: Keyed, hold: &Hold) -> Result<Ran, Problem> {
    let (date, count) = (DateId(hold.date_id), hold.count());
    let run = async |choices, best, last| {
        let command = Command::HoldSeats { user, date, count, choices, best, last };
        answer::run(app, app.seat.as_ref(), Actor::User(user), keyed, command).await
    };
    let Some((_, terms)) = app.shows.date(date) else {
        // Nothing may be held here before it is known which concert's token it takes: not there is decided and stored,
        // there after all is not.
        let keyed = Keyed { asks_again: false, ..keyed };
        let command = Command::HoldSeats { user, date, count, choices: Vec::new(), best: true, last: false };
        let ran = answer::run(app, app.seat.as_ref(), Actor::User(user), keyed, command).await?;
        return if is_retry(&ran) { Err(Problem::not_found()) } else { Ok(ran) };
    };
    let too_many = count > app.policy.max_seats_per_user;
    let Some(best) = &hold.best else {
        let number = |seat: &i64| i32::try_from(*seat).map_or(NO_SUCH_SEAT, i32::unsigned_abs);
        // More than the limit is refused by their number alone, without loading them.
        let seats = hold.seats.iter().filter(|_| !too_many).map(|seats| seats.iter().map(number).collect()).collect();
        return run(seats, false, false).await;
    };
    let now = app.clock.now();
    if too_many || now < terms.booking_opens_at || terms.booking_closes_at <= now {
        // Refused for another reason than want of seats, unless the store's clock says otherwise.
        let ran = run(Vec::new(), true, false).await?;
        if !is_retry(&ran) {
            return Ok(ran);
        }
    }
    let wish = Wish { count, grade: best.grade.as_deref(), adjacent: best.adjacent.unwrap_or(true) };
    let mut search = app.seats.search(date, wish, keyed.deadline.instant());
    while let Some(offer) = search.next().await? {
        app.stats.best_offers.add(1);
        // Where the caller does not wait there is nobody to choose again.
        let ran = run(offer.choices().to_vec(), true, keyed.asks_again).await?;
        if !is_retry(&ran) {
            return Ok(ran);
        }
    }
    // Not decided and not stored, so the key stays free; but what it brought before is repeated.
    let refused =
        || Reply { decision: Decision::Refused(Rejection::SeatUnavailable { seats: Vec::new() }), decided_at: now, replayed: false };
    Ok(Ran::Decided(answer::repeated(app, keyed).await?.unwrap_or_else(refused)))
}

fn is_retry(ran: &Ran) -> bool {
    matches!(ran, Ran::Decided(Reply { decision: Decision::Retry, .. }))
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
    let next_cursor = last.map(|reservation| params::encode(&Key::<b'r'>(reservation.id.0)));
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
    let keyed = idempotency::Key::of(&request, user.0)?.over(&request, &body.parse_nothing()?)?;
    let command = Command::ExtendHold { user: user.0, reservation: id.0 };
    let ran = answer::run(&app, app.seat.as_ref(), Actor::User(user.0), keyed, command).await?;
    answer::ran(&app, &ran)
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
    let ran = answer::run_unkeyed(&app, user.0, &request, command).await?;
    answer::ran(&app, &ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hold(mut body: Value) -> Hold {
        body["date_id"] = json!(Uuid::nil());
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_hold_names_seats_or_best_and_each_seat_once() {
        for good in [json!({"seats": [1]}), json!({"seats": [2, 1, i64::MAX]}), json!({"best": {"count": 1}})] {
            assert!(hold(good.clone()).check().is_ok(), "{good}");
        }
        for bad in [
            json!({}),
            json!({"seats": [1], "best": {"count": 1}}),
            json!({"seats": []}),
            json!({"seats": [0]}),
            json!({"seats": [-1]}),
            json!({"seats": [3, 3]}),
            json!({"best": {"count": 0}}),
        ] {
            assert!(hold(bad.clone()).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_count_beyond_what_fits_is_still_too_many() {
        assert_eq!(hold(json!({"best": {"count": i64::MAX}})).count(), u32::MAX);
        assert_eq!(hold(json!({"seats": [5, 6, 7]})).count(), 3);
    }
}
