//! Pay and refund: money, points and seats move together, in one decision.

use super::holds::{change, give_back, live_hold};
use super::wallet::{Cause, enter, out_of_range};
use crate::batch::{Policy, Tracked, WorkingSet};
use crate::money::{Points, percent_of};
use crate::{
    EntryKind, Event, FreshIds, Outcome, Payment, PaymentId, PointsEntry, PointsKind, Refund, Rejection, ReservationChange, ReservationId,
    ReservationStatus, SeatState, UserId,
};
use uuid::Uuid;

pub(super) fn pay(
    set: &mut WorkingSet,
    fresh: &FreshIds,
    user: UserId,
    id: ReservationId,
    points: Points,
    policy: &Policy,
) -> Result<Outcome, Rejection> {
    let held = live_hold(set, id, Some(user))?;
    let total = held.total();
    if !(0..=total).contains(&points) {
        return Err(out_of_range("points", format!("must be from 0 to the total, {total}")));
    }
    let keys: Vec<_> = held.seat_keys().collect();
    let amount = total - points;
    let account = &set.account(user).value;
    if account.points < points {
        return Err(Rejection::InsufficientPoints);
    }
    if account.balance < amount {
        return Err(Rejection::InsufficientBalance);
    }

    let payment = PaymentId(fresh.subject);
    if amount > 0 {
        enter(set, fresh, user, EntryKind::Payment, -amount, Cause { reservation: Some(id), payment: Some(payment), memo: None });
    }
    let points_granted = percent_of(amount, policy.reward_percent);
    move_points(set, fresh.points[0], user, PointsKind::Spend, -points, payment);
    move_points(set, fresh.points[1], user, PointsKind::Grant, points_granted, payment);
    for key in keys {
        if let Some(row) = set.seats.get_mut(&key) {
            row.change().state = SeatState::Sold { reservation: id };
            set.written.events.push(Event::seat(ReservationChange::Confirmed, key, id));
        }
    }
    let reservation = change(set, id, |reservation| {
        reservation.status = ReservationStatus::Confirmed;
        reservation.payment = Some(payment);
    })?;
    let payment =
        Payment { id: payment, reservation: id, user, amount, points_spent: points, points_granted, paid_at: set.now, refund: None };
    set.written.events.push(Event::reservation(ReservationChange::Confirmed, &reservation));
    let last_hold = !set.has_live_hold(user, reservation.concert.id);
    set.written.events.push(Event::PaymentPaid {
        payment: payment.id,
        reservation: id,
        user,
        concert: reservation.concert.id,
        amount,
        points_spent: points,
        points_granted,
        last_hold,
    });
    set.payments.insert(payment.id, Tracked::new(payment.clone()));
    Ok(Outcome::Paid { payment, reservation, last_hold })
}

pub(super) fn refund(set: &mut WorkingSet, fresh: &FreshIds, user: UserId, id: PaymentId) -> Result<Outcome, Rejection> {
    let missing = || Rejection::not_found("payment");
    let payment = set.payments.get(&id).map(|row| &row.value).filter(|payment| payment.user == user).ok_or_else(missing)?.clone();
    if payment.refund.is_some() {
        return Err(Rejection::AlreadyRefunded);
    }
    let reservation = set.reservations.get(&payment.reservation).ok_or_else(missing)?;
    let terms = set.dates.get(&reservation.value.date.id).ok_or_else(missing)?;
    if terms.refund_closes_at <= set.now {
        return Err(Rejection::RefundClosed);
    }

    let refund = Refund::settle(&payment, set.account(user).value.points, set.now);
    if refund.amount > 0 {
        enter(
            set,
            fresh,
            user,
            EntryKind::Refund,
            refund.amount,
            Cause { reservation: Some(payment.reservation), payment: Some(id), memo: None },
        );
    }
    move_points(set, fresh.points[0], user, PointsKind::Restore, refund.points_restored, id);
    move_points(set, fresh.points[1], user, PointsKind::TakeBack, -refund.points_taken_back, id);
    let reservation = change(set, payment.reservation, |reservation| reservation.status = ReservationStatus::Cancelled)?;
    give_back(set, &reservation, ReservationChange::Cancelled);
    set.written.events.push(Event::PaymentRefunded {
        payment: id,
        reservation: reservation.id,
        user,
        concert: reservation.concert.id,
        amount: refund.amount,
        points_restored: refund.points_restored,
        points_taken_back: refund.points_taken_back,
    });
    let row = set.payments.get_mut(&id).ok_or_else(missing)?;
    row.change().refund = Some(refund);
    let payment = row.value.clone();
    Ok(Outcome::Refunded { payment, reservation })
}

/// Changes the user's points and writes the journal's line; does nothing for zero points.
fn move_points(set: &mut WorkingSet, id: Uuid, user: UserId, kind: PointsKind, points: Points, payment: PaymentId) {
    if points == 0 {
        return;
    }
    let created_at = set.now;
    let account = set.account(user).change();
    account.points += points;
    account.points_entries += 1;
    debug_assert!(account.points >= 0);
    let entry =
        PointsEntry { id: id.into(), user, seq: account.points_entries, kind, points, balance: account.points, payment, created_at };
    set.written.points_entries.push(entry);
}
