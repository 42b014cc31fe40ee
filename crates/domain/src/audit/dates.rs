//! The pass by date: how many seats there are of each state (I6), and how many one user has (I10).

use super::found::{Check, Found};
use super::row::OfDate;
use crate::ids::{DateId, UserId};
use crate::reservation::ReservationStatus;
use crate::seat::SeatState;
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct DateSums {
    seats_total: Option<u64>,
    seats: u64,
    available: u64,
    held: u64,
    sold: u64,
    /// By their reservations.
    claimed_held: u64,
    claimed_sold: u64,
    /// The user whose reservations come now, and how many seats these have.
    user: Option<(UserId, u64)>,
}

impl DateSums {
    pub(super) fn take(&mut self, row: OfDate, date: DateId, now: Timestamp, limit: u32, found: &mut Found) {
        match row {
            OfDate::Date { seats_total } => self.seats_total = Some(seats_total),
            OfDate::Seat(state) => {
                self.seats += 1;
                found.seats += 1;
                match state {
                    _ if state.is_free(now) => self.available += 1,
                    SeatState::Sold { .. } => self.sold += 1,
                    _ => self.held += 1,
                }
            }
            OfDate::Reservation { user, status, expires_at, seat_count } => {
                let seats = u64::from(seat_count);
                match status {
                    ReservationStatus::Confirmed => self.claimed_sold += seats,
                    ReservationStatus::Held if expires_at > now => self.claimed_held += seats,
                    _ => return,
                }
                match &mut self.user {
                    Some((current, has)) if *current == user => *has += seats,
                    _ => {
                        self.close_user(date, limit, found);
                        self.user = Some((user, seats));
                    }
                }
            }
        }
    }

    fn close_user(&mut self, date: DateId, limit: u32, found: &mut Found) {
        if let Some((user, seats)) = self.user.take() {
            found.check(Check::UserKeepsLimit, seats <= u64::from(limit), || format!("user {user} has {seats} seats of date {date}"));
        }
    }

    pub(super) fn close(mut self, date: DateId, limit: u32, found: &mut Found) {
        self.close_user(date, limit, found);
        let Self { seats, available, held, sold, claimed_held, claimed_sold, .. } = self;
        let Some(total) = self.seats_total else {
            found.check(Check::SeatHasDate, seats == 0, || format!("date {date} is missing, it has {seats} seats"));
            return;
        };
        let counted = seats == total && held == claimed_held && sold == claimed_sold;
        found.check(Check::DateCountsSeats, counted, || {
            format!(
                "date {date} of {total} seats has {seats}: {available} available, {held} held (reservations: {claimed_held}), \
                 {sold} sold (reservations: {claimed_sold})"
            )
        });
    }
}
