//! Hold, extend, release, expire.
//!
//! A hold takes all of its seats or none. A seat whose hold is over at `now` is free whether or not a sweep has been
//! there: taking it writes the event of its expiry first. The old reservation's row is left to the sweep, which frees only the
//! seats that still name it.

use crate::batch::{Policy, Tracked, WorkingSet};
use crate::{
    Actor, DateId, Event, FreshIds, Outcome, Rejection, Reservation, ReservationChange, ReservationId, ReservationStatus, SeatAtSale,
    SeatKey, SeatNumber, SeatState, UserId,
};
use chrono::TimeDelta;

pub(super) struct HoldRequest<'a> {
    pub(super) user: UserId,
    pub(super) date: DateId,
    pub(super) count: u32,
    pub(super) choices: &'a [Vec<SeatNumber>],
    pub(super) best: bool,
    pub(super) last: bool,
}

pub(super) fn hold(set: &mut WorkingSet, fresh: &FreshIds, asked: &HoldRequest<'_>, policy: &Policy) -> Result<Option<Outcome>, Rejection> {
    let now = set.now;
    let terms = set.dates.get(&asked.date).cloned().ok_or_else(|| Rejection::not_found("date"))?;
    if !terms.is_bookable(now) {
        return Err(Rejection::BookingClosed);
    }
    let limit = policy.max_seats_per_user;
    if asked.count > limit || set.occupied_seats(asked.user, asked.date) + asked.count > limit {
        return Err(Rejection::SeatLimitExceeded { limit });
    }
    let key = |number| SeatKey { date: asked.date, number };
    if asked.choices.iter().flatten().any(|&number| !set.seats.contains_key(&key(number))) {
        return Err(Rejection::not_found("seat"));
    }
    // A choice of another size, or with a seat twice, would slip past the limit; the edge builds none.
    let fits = |choice: &&Vec<SeatNumber>| {
        let mut numbers = (*choice).clone();
        numbers.sort_unstable();
        numbers.dedup();
        choice.len() == numbers.len() && numbers.len() as u32 == asked.count && asked.count > 0
    };
    let taken = |number: &SeatNumber| set.seats.get(&key(*number)).is_none_or(|seat| !seat.value.state.is_free(now));
    let Some(choice) = asked.choices.iter().filter(fits).find(|choice| !choice.iter().any(taken)) else {
        if asked.best && !asked.last {
            return Ok(None);
        }
        let seats = if asked.best { Vec::new() } else { asked.choices.iter().flatten().copied().filter(taken).collect() };
        return Err(Rejection::SeatUnavailable { seats });
    };

    let mut numbers = choice.clone();
    numbers.sort_unstable();
    let id = ReservationId(fresh.subject);
    let expires_at = now + TimeDelta::seconds(i64::from(policy.hold_ttl_s));
    let mut seats = Vec::with_capacity(numbers.len());
    for key in numbers.into_iter().map(key) {
        let Some(row) = set.seats.get_mut(&key) else { continue };
        if let Some(previous) = row.value.state.reservation() {
            set.written.events.push(Event::seat(ReservationChange::Expired, key, previous));
        }
        let seat = row.change();
        seat.state = SeatState::Held { reservation: id, until: expires_at };
        seats.push(SeatAtSale {
            number: key.number,
            section: seat.section.clone(),
            row: seat.row.clone(),
            grade: seat.grade.clone(),
            price: seat.price,
        });
        set.written.events.push(Event::seat(ReservationChange::Held, key, id));
    }
    let reservation = Reservation {
        id,
        user: asked.user,
        concert: terms.concert.clone(),
        date: terms.date.clone(),
        seats,
        status: ReservationStatus::Held,
        created_at: now,
        expires_at,
        extensions: 0,
        payment: None,
    };
    // The account's row serialises one user's holds, or two at once could each stay within the limit.
    set.account(asked.user).change();
    set.written.events.push(Event::reservation(ReservationChange::Held, &reservation));
    set.reservations.insert(id, Tracked::new(reservation.clone()));
    set.occupy(id);
    Ok(Some(Outcome::Held { reservation, extensions_left: policy.extensions_max }))
}

pub(super) fn extend(set: &mut WorkingSet, user: UserId, id: ReservationId, policy: &Policy) -> Result<Outcome, Rejection> {
    let held = live_hold(set, id, Some(user))?;
    if held.extensions >= policy.extensions_max {
        return Err(Rejection::ExtensionLimitExceeded);
    }
    let until = held.expires_at.max(set.now + TimeDelta::seconds(i64::from(policy.hold_ttl_s)));
    let keys: Vec<_> = held.seat_keys().collect();
    for key in keys {
        if let Some(row) = set.seats.get_mut(&key) {
            row.change().state = SeatState::Held { reservation: id, until };
        }
    }
    // Bumped for the same reason as by a hold: an expiring hold that is extended counts again.
    set.account(user).change();
    let reservation = change(set, id, |reservation| {
        reservation.expires_at = until;
        reservation.extensions += 1;
    })?;
    let extensions_left = policy.extensions_max - reservation.extensions;
    Ok(Outcome::Extended { reservation, extensions_left })
}

/// By its owner, or by the system when that user leaves. Releasing again changes nothing and is no error.
pub(super) fn release(set: &mut WorkingSet, actor: Actor, id: ReservationId) -> Result<Outcome, Rejection> {
    let owner = match actor {
        Actor::System => None,
        Actor::User(user) | Actor::Operator(user) => Some(user),
    };
    match live_hold(set, id, owner) {
        Ok(_) => {}
        Err(Rejection::HoldReleased) => {
            let row = set.reservations.get(&id).ok_or_else(|| Rejection::not_found("reservation"))?;
            return Ok(Outcome::Released { reservation: row.value.clone() });
        }
        Err(rejection) => return Err(rejection),
    }
    let reservation = change(set, id, |reservation| reservation.status = ReservationStatus::Released)?;
    give_back(set, &reservation, ReservationChange::Released);
    Ok(Outcome::Released { reservation })
}

/// Writes down an expiry that has already taken effect. One that is not due is refused as not found, so that a sweep
/// may ask about anything.
pub(super) fn expire(set: &mut WorkingSet, id: ReservationId) -> Result<Outcome, Rejection> {
    let row = set.reservations.get(&id).ok_or_else(|| Rejection::not_found("reservation"))?;
    if row.value.status != ReservationStatus::Held || row.value.expires_at > set.now {
        return Err(Rejection::not_found("reservation"));
    }
    let reservation = change(set, id, |reservation| reservation.status = ReservationStatus::Expired)?;
    give_back(set, &reservation, ReservationChange::Expired);
    Ok(Outcome::Expired { reservation })
}

/// The hold of `owner` (any user's if `None`) if it lives at `now` and all of its seats still name it; else the
/// refusal that its state calls for. Another user's is not found.
pub(super) fn live_hold(set: &WorkingSet, id: ReservationId, owner: Option<UserId>) -> Result<&Reservation, Rejection> {
    let row = set.reservations.get(&id).ok_or_else(|| Rejection::not_found("reservation"))?;
    let reservation = &row.value;
    if owner.is_some_and(|owner| owner != reservation.user) {
        return Err(Rejection::not_found("reservation"));
    }
    match reservation.status_at(set.now) {
        ReservationStatus::Held => {}
        ReservationStatus::Confirmed => return Err(Rejection::AlreadyPaid),
        ReservationStatus::Released => return Err(Rejection::HoldReleased),
        ReservationStatus::Expired => return Err(Rejection::HoldExpired),
        ReservationStatus::Cancelled => return Err(Rejection::AlreadyRefunded),
    }
    let names_it = |key| set.seats.get(&key).is_some_and(|seat| seat.value.state.reservation() == Some(id));
    if !reservation.seat_keys().all(names_it) {
        return Err(Rejection::HoldExpired);
    }
    Ok(reservation)
}

/// Changes a loaded reservation and keeps the count of the user's seats in step.
pub(super) fn change(set: &mut WorkingSet, id: ReservationId, how: impl FnOnce(&mut Reservation)) -> Result<Reservation, Rejection> {
    let row = set.reservations.get_mut(&id).ok_or_else(|| Rejection::not_found("reservation"))?;
    how(row.change());
    let reservation = row.value.clone();
    set.occupy(id);
    Ok(reservation)
}

/// Frees the seats that still name `reservation`, and writes the events.
pub(super) fn give_back(set: &mut WorkingSet, reservation: &Reservation, why: ReservationChange) {
    for key in reservation.seat_keys() {
        if let Some(row) = set.seats.get_mut(&key)
            && row.value.state.reservation() == Some(reservation.id)
        {
            row.change().state = SeatState::Available;
            set.written.events.push(Event::seat(why, key, reservation.id));
        }
    }
    set.written.events.push(Event::reservation(why, reservation));
}
