//! The pass by reservation: its seats and its payment agree with it (I1, I11), and what replies claim of it (I3).

use super::claims::Claims;
use super::found::{Check, Found};
use super::row::{OfReservation, PaidFor, ReservationMade, SeatNaming};
use crate::ids::ReservationId;
use crate::reservation::ReservationStatus;
use crate::seat::SeatNumber;
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct ReservationSums {
    reservation: Option<ReservationMade>,
    /// How many of its seats name it, in the state that its status asks for.
    named: u32,
    payments: u64,
    claims: Claims,
}

impl ReservationSums {
    pub(super) fn take(&mut self, row: OfReservation, id: ReservationId, now: Timestamp, found: &mut Found) {
        match row {
            OfReservation::Reservation(reservation) => {
                found.reservations += 1;
                found.overdue_holds += u64::from(reservation.status == ReservationStatus::Held && reservation.expires_at <= now);
                check_list(&reservation, id, found);
                self.reservation = Some(reservation);
            }
            OfReservation::Payment(paid) => {
                self.payments += 1;
                check_payment(self.reservation.as_ref(), id, &paid, found);
            }
            OfReservation::Seat(seat) => self.take_seat(seat, id, found),
            OfReservation::Claim(claim) => self.claims.take(claim, self.reservation.is_some(), found),
        }
    }

    fn take_seat(&mut self, SeatNaming { seat, held_until }: SeatNaming, id: ReservationId, found: &mut Found) {
        let reservation = self.reservation.as_ref();
        let agrees = reservation.is_some_and(|reservation| {
            let status = match held_until {
                Some(until) => reservation.status == ReservationStatus::Held && reservation.expires_at == until,
                None => reservation.status == ReservationStatus::Confirmed,
            };
            let is_its_own = reservation.date == seat.date && reservation.seats.contains(&seat.number);
            let expects_sold = reservation.status == ReservationStatus::Confirmed;
            self.named += u32::from(is_its_own && held_until.is_none() == expects_sold);
            status && is_its_own
        });
        found.check(Check::SeatNamesReservation, agrees, || {
            let state = if held_until.is_some() { "held" } else { "sold" };
            let status = reservation.map_or("missing", |reservation| status_name(reservation.status));
            format!("seat {} of date {} is {state} by reservation {id}, which is {status}", seat.number, seat.date)
        });
    }

    pub(super) fn close(self, id: ReservationId, now: Timestamp, found: &mut Found) {
        self.claims.close(id, found);
        let Some(reservation) = self.reservation else { return };
        let (status, seats, named) = (status_name(reservation.status), reservation.seat_count, self.named);
        let occupies = match reservation.status {
            ReservationStatus::Confirmed => true,
            ReservationStatus::Held => reservation.expires_at > now,
            _ => false,
        };
        found.check(Check::ReservationIsNamed, !occupies || named == seats, || {
            format!("{status} reservation {id} of {seats} seats is named by {named}")
        });
        let is_paid = self.payments > 0 || !was_bought(reservation.status);
        found.check(Check::ReservationIsPaid, is_paid, || format!("{status} reservation {id} has no payment"));
    }
}

fn check_list(reservation: &ReservationMade, id: ReservationId, found: &mut Found) {
    let held_for = || reservation.held_for.iter().map(|(number, _)| *number);
    found.check(Check::ReservationListsSeats, held_for().eq(reservation.seats.iter().copied()), || {
        format!("reservation {id} lists seats {} and was held for {}", list(reservation.seats.iter().copied()), list(held_for()))
    });
}

fn check_payment(reservation: Option<&ReservationMade>, id: ReservationId, paid: &PaidFor, found: &mut Found) {
    let payment = paid.payment;
    let is_theirs = reservation.is_some_and(|made| made.user == paid.user && made.concert == paid.concert);
    found.check(Check::PaymentHasReservation, is_theirs, || {
        let fault = if reservation.is_none() { ", which is missing" } else { " of another user or concert" };
        format!("payment {payment} names reservation {id}{fault}")
    });
    let Some(reservation) = reservation else { return };
    let status = reservation.status;
    let agrees = was_bought(status) && reservation.payment == Some(payment) && paid.refunded == (status == ReservationStatus::Cancelled);
    found.check(Check::ReservationIsPaid, agrees, || {
        let state = if paid.refunded { "refunded" } else { "paid" };
        format!("{} reservation {id} has payment {payment}, {state}", status_name(status))
    });
    let total = reservation.held_for.iter().fold(0, |sum: i64, (_, price)| sum.saturating_add(*price));
    found.check(Check::AmountIsPriceLessPoints, paid.amount == total.saturating_sub(paid.points_spent), || {
        format!("payment {payment} of {} money and {} points is for seats of {total}", paid.amount, paid.points_spent)
    });
}

fn was_bought(status: ReservationStatus) -> bool {
    matches!(status, ReservationStatus::Confirmed | ReservationStatus::Cancelled)
}

fn status_name(status: ReservationStatus) -> &'static str {
    match status {
        ReservationStatus::Held => "held",
        ReservationStatus::Confirmed => "confirmed",
        ReservationStatus::Released => "released",
        ReservationStatus::Expired => "expired",
        ReservationStatus::Cancelled => "cancelled",
    }
}

fn list(seats: impl Iterator<Item = SeatNumber>) -> String {
    let numbers: Vec<_> = seats.map(|number| number.to_string()).collect();
    format!("{{{}}}", numbers.join(","))
}
