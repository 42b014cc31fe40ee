//! Seats, reservations, dates and payments agree (I1, I6, I10, I11).

use super::*;

#[test]
fn a_seat_and_its_reservation_agree() {
    // The date does not count what this pass reads: each pass sees its own rows.
    let seat = |change: fn(&mut SeatNaming)| {
        found_after(|row| match row {
            Row::OfReservation(HELD, OfReservation::Seat(seat)) => {
                change(seat);
                true
            }
            _ => false,
        })
    };
    let unnamed = ("I1", format!("held reservation {HELD} of 1 seats is named by 0"));
    let of = |text: &str| ("I1", format!("seat {text} by reservation {HELD}, which is held"));
    assert_eq!(seat(|seat| seat.held_until = Some(at(61))), [of(&format!("3 of date {DATE} is held"))]);
    assert_eq!(seat(|seat| seat.held_until = None), [of(&format!("3 of date {DATE} is sold")), unnamed.clone()]);
    assert_eq!(seat(|seat| seat.seat.number = 5), [of(&format!("5 of date {DATE} is held")), unnamed.clone()]);
    let other = seat(|seat| seat.seat.date = UNKNOWN.into());
    assert_eq!(other, [of(&format!("3 of date {UNKNOWN} is held")), unnamed.clone()]);
    let lost = found(|row| match row {
        Row::OfReservation(OVER, OfReservation::Reservation(_)) => None,
        row => Some(row),
    });
    assert_eq!(lost, one("I1", format!("seat 4 of date {DATE} is held by reservation {OVER}, which is missing")));
}

#[test]
fn a_reservation_is_named_by_its_seats_while_it_occupies_them() {
    let unnamed = |id| {
        found(|row| match row {
            Row::OfReservation(of, OfReservation::Seat(_)) if of == id => None,
            row => Some(row),
        })
    };
    assert_eq!(unnamed(BOUGHT), one("I1", format!("confirmed reservation {BOUGHT} of 1 seats is named by 0")));
    assert_eq!(unnamed(HELD), one("I1", format!("held reservation {HELD} of 1 seats is named by 0")));
    assert!(unnamed(OVER).is_empty(), "a hold that is over owns nothing");
}

#[test]
fn a_reservation_lists_what_it_was_held_for() {
    let listed = found_after(|row| match row {
        Row::OfReservation(RETURNED, OfReservation::Reservation(made)) => {
            made.seats = vec![2, 9];
            true
        }
        _ => false,
    });
    assert_eq!(listed, one("I1", format!("reservation {RETURNED} lists seats {{2,9}} and was held for {{2}}")));
}

#[test]
fn what_was_bought_is_paid_and_nothing_else() {
    let unpaid = found(|row| match row {
        Row::OfReservation(BOUGHT, OfReservation::Payment(_)) => None,
        row => Some(row),
    });
    assert_eq!(unpaid, one("I1", format!("confirmed reservation {BOUGHT} has no payment")));
    let of = |change: fn(&mut ReservationMade)| {
        found_after(|row| match row {
            Row::OfReservation(RETURNED, OfReservation::Reservation(made)) => {
                change(made);
                true
            }
            _ => false,
        })
    };
    let refunded = |status: &str| ("I1", format!("{status} reservation {RETURNED} has payment {REFUNDED}, refunded"));
    let unnamed = ("I1", format!("confirmed reservation {RETURNED} of 1 seats is named by 0"));
    assert_eq!(of(|made| made.status = ReservationStatus::Confirmed), [unnamed, refunded("confirmed")]);
    assert_eq!(of(|made| made.status = ReservationStatus::Released), [refunded("released")]);
    assert_eq!(of(|made| made.payment = None), [refunded("cancelled")]);
    assert_eq!(
        of(|made| made.user = BEN),
        one("I1", format!("payment {REFUNDED} names reservation {RETURNED} of another user or concert"))
    );
    let homeless = found(|row| match row {
        Row::OfReservation(RETURNED, OfReservation::Reservation(_)) => None,
        row => Some(row),
    });
    assert_eq!(homeless, one("I1", format!("payment {REFUNDED} names reservation {RETURNED}, which is missing")));
}

#[test]
fn a_date_has_the_seats_that_it_and_its_reservations_count() {
    let date = |harm: fn(&mut OfDate) -> bool| {
        found_after(|row| match row {
            Row::OfDate(_, row) => harm(row),
            _ => false,
        })
    };
    let counted = |text: &str| one("I6", format!("date {DATE} of {text}"));
    let total = date(|row| match row {
        OfDate::Date { seats_total } => {
            *seats_total = 6;
            true
        }
        _ => false,
    });
    assert_eq!(total, counted("6 seats has 5: 3 available, 1 held (reservations: 1), 1 sold (reservations: 1)"));
    let freed = date(|row| match row {
        OfDate::Seat(state @ SeatState::Sold { .. }) => {
            *state = SeatState::Available;
            true
        }
        _ => false,
    });
    assert_eq!(freed, counted("5 seats has 5: 4 available, 1 held (reservations: 1), 0 sold (reservations: 1)"));
    let released = date(|row| match row {
        OfDate::Reservation { user: BEN, status, .. } => {
            *status = ReservationStatus::Released;
            true
        }
        _ => false,
    });
    assert_eq!(released, counted("5 seats has 5: 3 available, 1 held (reservations: 0), 1 sold (reservations: 1)"));
    let homeless = found(|row| match row {
        Row::OfDate(_, OfDate::Date { .. }) => None,
        row => Some(row),
    });
    assert_eq!(homeless, one("I6", format!("date {DATE} is missing, it has 5 seats")));
}

#[test]
fn a_user_keeps_the_limit_of_seats_that_count() {
    let more = |user: UserId, status, expires_at| {
        let behind = |row: &Row| matches!(row, Row::OfDate(_, OfDate::Reservation { user: of, .. }) if *of == user);
        let row = OfDate::Reservation { user, status, expires_at, seat_count: 2 };
        let found = found_beside(Row::OfDate(DATE, row), behind);
        found.into_iter().filter(|(invariant, _)| *invariant == "I10").collect::<Vec<_>>()
    };
    let over = |user| one("I10", format!("user {user} has 3 seats of date {DATE}"));
    assert_eq!(more(ANN, ReservationStatus::Held, at(1)), over(ANN));
    assert_eq!(more(BEN, ReservationStatus::Confirmed, at(0)), over(BEN));
    assert!(more(BEN, ReservationStatus::Held, at(0)).is_empty(), "a hold that is over counts no more");
}

#[test]
fn an_amount_is_the_price_less_points() {
    let paid = found_after(|row| match row {
        Row::OfReservation(RETURNED, OfReservation::Payment(paid)) => {
            paid.points_spent += 1;
            true
        }
        _ => false,
    });
    assert_eq!(paid, one("I11", format!("payment {REFUNDED} of 95 money and 6 points is for seats of 100")));
}
