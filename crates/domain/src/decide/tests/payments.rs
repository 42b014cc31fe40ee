//! Pay and refund: states, bounds of points and money, the settlement, and the closing edge.

use super::holds::State;
use super::world::{REFUND_CLOSES_S, World, at, date, hold, user};
use crate::decide::{Decision, Outcome, Reply};
use crate::money::{Money, Points};
use crate::{
    Actor, Command, ConcertRef, EntryKind, Event, Payment, PaymentId, PointsKind, Rejection, Reservation, ReservationStatus, SeatState,
};
use chrono::TimeDelta;
use uuid::Uuid;

fn pay(reservation: &Reservation, points: Points) -> Command {
    Command::Pay { user: user(1), reservation: reservation.id, points }
}

fn refund(payment: PaymentId) -> Command {
    Command::Refund { user: user(1), payment }
}

#[test]
fn pay_by_every_state() {
    for state in State::ALL {
        let (mut world, reservation) = state.reached();
        match state.refusal() {
            Some(refusal) => assert_eq!(world.refuse(user(1), pay(&reservation, 0)), refusal, "{state:?}"),
            None => {
                assert!(matches!(world.decide(user(1), pay(&reservation, 0)), Decision::Done(Outcome::Paid { .. })));
            }
        }
    }
}

#[test]
fn pay_moves_money_points_and_seats_together() {
    let (mut world, held) = State::Held.reached();
    let (from, balance) = (world.events.len(), world.balance(user(1)));
    let Decision::Done(Outcome::Paid { payment, reservation, .. }) = world.decide(user(1), pay(&held, 0)) else { panic!("not paid") };
    // Seats at 100 and 101; ten percent of 201, rounded down.
    assert_eq!((payment.amount, payment.points_spent, payment.points_granted), (201, 0, 20));
    assert_eq!((payment.reservation, payment.user, payment.paid_at), (held.id, user(1), world.now));
    assert_eq!(payment.refund, None);
    assert_eq!((reservation.status, reservation.payment), (ReservationStatus::Confirmed, Some(payment.id)));
    assert_eq!((world.balance(user(1)), world.points(user(1))), (balance - 201, 20));
    for number in [1, 2] {
        assert_eq!(world.state(number), SeatState::Sold { reservation: held.id });
    }
    let entry = world.entries.last().unwrap();
    assert_eq!((entry.kind, entry.amount, entry.reservation, entry.payment), (EntryKind::Payment, -201, Some(held.id), Some(payment.id)));
    assert_eq!(
        world.events_since(from),
        ["reservation.confirmed 1", "reservation.confirmed 2", "reservation.confirmed [1, 2]", "payment.paid"]
    );
    world.advance(10_000_000);
    assert_eq!(world.reservations[&held.id].status_at(world.now), ReservationStatus::Confirmed, "what is sold never expires");
}

/// What payments were decided to be, in order: the last hold of the payer for the concert, or not.
fn last_holds(replies: &[Reply]) -> Vec<bool> {
    let last = |reply: &Reply| match reply.decision {
        Decision::Done(Outcome::Paid { last_hold, .. }) => Some(last_hold),
        _ => None,
    };
    replies.iter().filter_map(last).collect()
}

#[test]
fn a_payment_says_whether_another_hold_lives_on() {
    let other = |world: &mut World, of: u128| {
        let (user, choices) = (user(of), vec![vec![3]]);
        match world.decide(user, Command::HoldSeats { user, date: date(2), count: 1, choices, best: false, last: false }) {
            Decision::Done(Outcome::Held { reservation, .. }) => reservation,
            other => panic!("not held: {other:?}"),
        }
    };
    let paid = |world: &mut World, held: &Reservation| {
        let request = world.request(Actor::User(user(1)), pay(held, 0));
        let last = last_holds(&world.run(vec![request]));
        let written = world.events.iter().rev().find_map(|event| match event {
            Event::PaymentPaid { last_hold, .. } => Some(*last_hold),
            _ => None,
        });
        assert_eq!(written, last.first().copied(), "the event agrees");
        last
    };
    let (mut world, held) = State::Held.reached();
    assert_eq!(paid(&mut world, &held), [true], "the only one");

    let (mut world, held) = State::Held.reached();
    let second = other(&mut world, 1);
    assert_eq!(paid(&mut world, &held), [false], "another date of the concert");
    assert_eq!(paid(&mut world, &second), [true]);

    let (mut world, held) = State::Held.reached();
    let second = other(&mut world, 1);
    world.decide_as(Actor::System, Command::ReleaseHold { reservation: second.id });
    assert_eq!(paid(&mut world, &held), [true], "the other one was given up");

    let (mut world, held) = State::Held.reached();
    other(&mut world, 1);
    world.reservations.values_mut().filter(|row| row.id != held.id).for_each(|row| row.expires_at = world.now);
    assert_eq!(paid(&mut world, &held), [true], "the other one is over and not swept yet");

    let (mut world, held) = State::Held.reached();
    other(&mut world, 1);
    let concert = ConcertRef { id: Uuid::from_u128(0xC001).into(), name: "Sunrise".into(), venue: "Hall".into() };
    world.reservations.values_mut().filter(|row| row.id != held.id).for_each(|row| row.concert = concert.clone());
    assert_eq!(paid(&mut world, &held), [true], "the other one is another concert's");
}

#[test]
fn a_batch_knows_the_holds_that_it_makes_and_ends() {
    let (mut world, held) = State::Held.reached();
    let second = world.request(Actor::User(user(1)), hold(user(1), &[3]));
    let id = second.fresh.subject.into();
    let pays = [held.id, id].map(|reservation| Command::Pay { user: user(1), reservation, points: 0 });
    let [first_pay, second_pay] = pays.map(|command| world.request(Actor::User(user(1)), command));
    let replies = world.run(vec![second, first_pay, second_pay]);
    assert_eq!(last_holds(&replies), [false, true], "{replies:?}");
}

#[test]
fn a_reply_from_before_holds_were_noted_reads_as_the_last() {
    let (mut world, held) = State::Held.reached();
    let Decision::Done(outcome) = world.decide(user(1), pay(&held, 0)) else { panic!("not paid") };
    let mut kept = serde_json::to_value(&outcome).unwrap();
    assert_eq!(kept.as_object_mut().unwrap().remove("last_hold"), Some(true.into()));
    assert_eq!(serde_json::from_value::<Outcome>(kept).unwrap(), outcome);
}

#[test]
fn pay_spends_points_within_total_and_what_is_owned() {
    enum Expected {
        Paid { amount: Money, granted: Points, left: Points },
        OutOfRange,
        TooFew,
    }
    use Expected::{OutOfRange, Paid, TooFew};
    for (owned, points, expected) in [
        (0, 0, Paid { amount: 201, granted: 20, left: 20 }),
        (0, 1, TooFew),
        (50, 50, Paid { amount: 151, granted: 15, left: 15 }),
        (50, 51, TooFew),
        (50, 1, Paid { amount: 200, granted: 20, left: 69 }),
        (500, 201, Paid { amount: 0, granted: 0, left: 299 }),
        (500, 202, OutOfRange),
        (0, 202, OutOfRange),
        (500, -1, OutOfRange),
        (500, Points::MIN, OutOfRange),
        (500, Points::MAX, OutOfRange),
    ] {
        let (mut world, held) = State::Held.reached();
        world.accounts.get_mut(&user(1)).unwrap().points = owned;
        let name = format!("{points} of {owned}");
        match expected {
            Paid { amount, granted, left } => {
                let (lines, before) = (world.entries.len(), world.balance(user(1)));
                let payment = world.pay(user(1), held.id, points);
                assert_eq!((payment.amount, payment.points_spent, payment.points_granted), (amount, points, granted), "{name}");
                assert_eq!((world.balance(user(1)), world.points(user(1))), (before - amount, left), "{name}");
                assert_eq!(world.entries.len() - lines, usize::from(amount > 0), "no entry about nothing: {name}");
                let kinds: Vec<_> = world.points_entries.iter().map(|line| (line.kind, line.points)).collect();
                let moved = [(PointsKind::Spend, -points), (PointsKind::Grant, granted)];
                assert_eq!(kinds, moved.into_iter().filter(|(_, points)| *points != 0).collect::<Vec<_>>(), "{name}");
            }
            OutOfRange => {
                let rejection = world.refuse(user(1), pay(&held, points));
                assert!(matches!(&rejection, Rejection::AmountOutOfRange { field, .. } if field == "points"), "{name}: {rejection:?}");
            }
            TooFew => assert_eq!(world.refuse(user(1), pay(&held, points)), Rejection::InsufficientPoints, "{name}"),
        }
    }
}

#[test]
fn pay_needs_the_whole_amount() {
    for (balance, enough) in [(0, false), (200, false), (201, true), (202, true)] {
        let mut world = World::new(2);
        if balance > 0 {
            world.charge(user(1), balance);
        }
        let held = world.hold(user(1), &[1, 2]);
        if enough {
            world.pay(user(1), held.id, 0);
            assert_eq!(world.balance(user(1)), balance - 201);
        } else {
            assert_eq!(world.refuse(user(1), pay(&held, 0)), Rejection::InsufficientBalance);
            assert!(world.state(1).reservation().is_some(), "the hold stays");
        }
    }
}

#[test]
fn pay_is_possible_up_to_the_instant_of_expiry_and_after_booking_closes() {
    let (mut world, held) = State::Held.reached();
    world.now = held.expires_at - TimeDelta::microseconds(1);
    let mut later = world.clone();
    later.now = held.expires_at;
    world.pay(user(1), held.id, 0);
    assert_eq!(later.refuse(user(1), pay(&held, 0)), Rejection::HoldExpired);

    let mut world = World::new(1);
    world.charge(user(1), 1_000);
    world.now = at(super::world::BOOKING_CLOSES_S) - TimeDelta::microseconds(1);
    let held = world.hold(user(1), &[1]);
    world.advance(1);
    assert_eq!(world.refuse(user(2), hold(user(2), &[1])), Rejection::BookingClosed);
    world.pay(user(1), held.id, 0);
}

#[test]
fn pay_uses_prices_as_held() {
    let (mut world, held) = State::Held.reached();
    for seat in world.seats.values_mut() {
        seat.price = 9_999;
    }
    assert_eq!(world.pay(user(1), held.id, 0).amount, 201);
}

/// User 1 has paid for seats 1 and 2.
fn paid() -> (World, Payment) {
    let (mut world, held) = State::Held.reached();
    let payment = world.pay(user(1), held.id, 0);
    (world, payment)
}

#[test]
fn refund_undoes_the_payment() {
    let (mut world, payment) = paid();
    let (from, before) = (world.events.len(), world.balance(user(1)));
    world.advance(60);
    let Decision::Done(Outcome::Refunded { payment: refunded, reservation }) = world.decide(user(1), refund(payment.id)) else {
        panic!("not refunded")
    };
    let settled = refunded.refund.clone().unwrap();
    assert_eq!((settled.amount, settled.points_restored, settled.points_taken_back, settled.shortfall), (201, 0, 20, 0));
    assert_eq!(settled.refunded_at, world.now);
    assert_eq!(Payment { refund: None, ..refunded }, payment, "the rest of the record stays as it was");
    assert_eq!(reservation.status, ReservationStatus::Cancelled);
    assert_eq!((world.balance(user(1)), world.points(user(1))), (before + 201, 0));
    assert_eq!((world.state(1), world.state(2)), (SeatState::Available, SeatState::Available));
    assert_eq!(
        world.events_since(from),
        ["reservation.cancelled 1", "reservation.cancelled 2", "reservation.cancelled [1, 2]", "payment.refunded"]
    );
    assert_eq!(world.refuse(user(1), refund(payment.id)), Rejection::AlreadyRefunded, "once");
    world.hold(user(2), &[1, 2]);
}

#[test]
fn refund_keeps_the_closing_edge() {
    let (mut world, payment) = paid();
    world.now = at(REFUND_CLOSES_S);
    assert_eq!(world.refuse(user(1), refund(payment.id)), Rejection::RefundClosed);
    world.now -= TimeDelta::microseconds(1);
    assert!(matches!(world.decide(user(1), refund(payment.id)), Decision::Done(Outcome::Refunded { .. })));
}

#[test]
fn refund_of_anothers_payment_is_not_found() {
    let (mut world, payment) = paid();
    let theirs = Command::Refund { user: user(2), payment: payment.id };
    assert_eq!(world.refuse(user(2), theirs), Rejection::NotFound { what: "payment".into() });
}

#[test]
fn refund_settles_points_and_keeps_the_shortfall() {
    // (points owned, spent on this payment, points spent elsewhere after it) -> (money, points after)
    for (owned, spent, gone, money, points) in [
        (0, 0, 0, 201, 0),
        (0, 0, 5, 196, 0),
        (0, 0, 20, 181, 0),
        (60, 50, 0, 151, 60),
        (50, 50, 15, 151, 35),
        (201, 201, 0, 0, 201),
        (10, 10, 19, 182, 0),
    ] {
        let (mut world, held) = State::Held.reached();
        world.accounts.get_mut(&user(1)).unwrap().points = owned;
        let payment = world.pay(user(1), held.id, spent);
        world.accounts.get_mut(&user(1)).unwrap().points -= gone;
        let (lines, before) = (world.entries.len(), world.balance(user(1)));
        world.decide(user(1), refund(payment.id));
        let name = format!("owned {owned}, spent {spent}, gone {gone}");
        let settled = world.payments[&payment.id].refund.clone().unwrap();
        assert_eq!((world.balance(user(1)) - before, world.points(user(1))), (money, points), "{name}");
        assert_eq!(settled.amount, money, "{name}");
        assert_eq!(settled.amount + settled.shortfall, payment.amount, "{name}");
        assert_eq!(settled.points_restored, spent, "{name}");
        assert_eq!(world.entries.len() - lines, usize::from(money > 0), "no entry about nothing: {name}");
    }
}
