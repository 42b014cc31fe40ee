//! Holding seats: the body of the request, and the commands that it becomes.
//!
//! Named seats are one command. For the best seats the seat view proposes choices until one is granted, none is free, or
//! the request's deadline has passed.

use std::collections::HashSet;

use boxoffice_domain::text::TEXT_MAX;
use boxoffice_domain::{Actor, Command, DateId, Decision, Rejection, Reply, SeatNumber, UserId};
use boxoffice_engine::SeatPreference;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::execution::{self, Ran};
use super::idempotency::Keyed;
use super::params;
use super::problem::Problem;
use super::state::App;

/// Replaces a number that is too large for a seat; seats begin at 1.
const NO_SUCH_SEAT: SeatNumber = 0;

/// Either `seats` or `best`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hold {
    pub(crate) date_id: Uuid,
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
    pub(crate) fn check(&self) -> Result<(), Problem> {
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

/// Decides a hold, by one command or several.
pub(crate) async fn hold_seats(app: &App, user: UserId, keyed: Keyed, hold: &Hold) -> Result<Ran, Problem> {
    let holding = Holding { app, user, keyed, date: DateId(hold.date_id), count: hold.count() };
    let Some((_, terms)) = app.catalogue.date(holding.date) else { return holding.on_unknown_date().await };
    let is_too_many = holding.count > app.policy.max_seats_per_user;
    let Some(best) = &hold.best else {
        let number = |seat: &i64| i32::try_from(*seat).map_or(NO_SUCH_SEAT, i32::unsigned_abs);
        // More than the limit is refused by their number alone, without loading them.
        let seats = hold.seats.iter().filter(|_| !is_too_many).map(|seats| seats.iter().map(number).collect()).collect();
        return holding.run(seats, false, false).await;
    };
    let now = app.clock.now();
    if is_too_many || now < terms.booking_opens_at || terms.booking_closes_at <= now {
        // Refused for another reason than want of seats, unless the store's clock differs.
        let ran = holding.run(Vec::new(), true, false).await?;
        if !is_retry(&ran) {
            return Ok(ran);
        }
    }
    if let Some(ran) = holding.best(best).await? {
        return Ok(ran);
    }
    // Neither decided nor stored, so the key stays free; but an earlier reply under it is repeated.
    let refused =
        || Reply { decision: Decision::Refused(Rejection::SeatUnavailable { seats: Vec::new() }), decided_at: now, replayed: false };
    Ok(Ran::Decided(execution::repeated(app, keyed).await?.unwrap_or_else(refused)))
}

struct Holding<'a> {
    app: &'a App,
    user: UserId,
    keyed: Keyed,
    date: DateId,
    count: u32,
}

impl Holding<'_> {
    async fn run(&self, choices: Vec<Vec<SeatNumber>>, best: bool, last: bool) -> Result<Ran, Problem> {
        self.run_keyed(self.keyed, choices, best, last).await
    }

    async fn run_keyed(&self, keyed: Keyed, choices: Vec<Vec<SeatNumber>>, best: bool, last: bool) -> Result<Ran, Problem> {
        let Self { app, user, date, count, .. } = *self;
        let command = Command::HoldSeats { user, date, count, choices, best, last };
        execution::run(app, app.seat.as_ref(), Actor::User(user), keyed, command).await
    }

    /// Nothing may be held before it is known which concert's token the date takes. That the date does not exist is
    /// decided and stored; that it exists after all is not.
    async fn on_unknown_date(&self) -> Result<Ran, Problem> {
        let ran = self.run_keyed(Keyed { prefers_async: false, ..self.keyed }, Vec::new(), true, false).await?;
        if is_retry(&ran) { Err(Problem::not_found()) } else { Ok(ran) }
    }

    /// `None`: no seats are left to choose from.
    async fn best(&self, best: &Best) -> Result<Option<Ran>, Problem> {
        let Self { app, date, count, keyed, .. } = *self;
        let preference = SeatPreference { count, grade: best.grade.as_deref(), adjacent: best.adjacent.unwrap_or(true) };
        let mut search = app.seats.search(date, preference, keyed.deadline.instant());
        while let Some(offer) = search.next().await? {
            app.stats.best_offers.add(1);
            // A caller that does not wait cannot be offered other seats.
            let ran = self.run(offer.choices().to_vec(), true, keyed.prefers_async).await?;
            if !is_retry(&ran) {
                return Ok(Some(ran));
            }
        }
        Ok(None)
    }
}

fn is_retry(ran: &Ran) -> bool {
    matches!(ran, Ran::Decided(Reply { decision: Decision::Retry, .. }))
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
