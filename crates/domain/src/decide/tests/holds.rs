//! Hold, extend, release, expire: every command against every state of the reservation, and the edges of time.

use super::world::{BOOKING_CLOSES_S, BOOKING_OPENS_S, HOLD_TTL_S, LIMIT, World, at, date, hold, seat, user};
use crate::decide::{Decision, Outcome, decide_batch};
use crate::{
    Actor, Batch, Command, CommandId, Event, IdempotencyKey, Rejection, Reservation, ReservationChange, ReservationId, ReservationStatus,
    Roots, SeatNumber, SeatState, Timestamp, WorkingSet,
};
use chrono::TimeDelta;
use std::sync::Arc;

fn missing(what: &str) -> Rejection {
    Rejection::NotFound { what: what.into() }
}

fn best(count: u32, choices: &[&[SeatNumber]], last: bool) -> Command {
    let choices = choices.iter().map(|choice| choice.to_vec()).collect();
    Command::HoldSeats { user: user(1), date: date(1), count, choices, best: true, last }
}

#[test]
fn hold_takes_all_seats_or_none() {
    let mut world = World::new(5);
    let reservation = world.hold(user(1), &[3, 1]);
    assert_eq!(reservation.seats.iter().map(|seat| (seat.number, seat.price)).collect::<Vec<_>>(), [(1, 100), (3, 102)]);
    assert_eq!((reservation.user, reservation.status, reservation.payment), (user(1), ReservationStatus::Held, None));
    assert_eq!(reservation.expires_at, world.now + TimeDelta::seconds(HOLD_TTL_S));
    assert_eq!(world.state(1), SeatState::Held { reservation: reservation.id, until: reservation.expires_at });
    assert_eq!(world.events_since(0), ["reservation.held 1", "reservation.held 3", "reservation.held [1, 3]"]);

    assert_eq!(world.refuse(user(2), hold(user(2), &[2, 3, 1])), Rejection::SeatUnavailable { seats: vec![3, 1] });
    assert_eq!(world.refuse(user(1), hold(user(1), &[3])), Rejection::SeatUnavailable { seats: vec![3] }, "own ones too");
    assert_eq!(world.state(2), SeatState::Available);
}

#[test]
fn hold_of_a_sold_seat_is_refused() {
    let mut world = World::new(2);
    world.charge(user(1), 1_000);
    let held = world.hold(user(1), &[1]);
    world.pay(user(1), held.id, 0);
    world.advance(10 * HOLD_TTL_S);
    assert_eq!(world.refuse(user(2), hold(user(2), &[1, 2])), Rejection::SeatUnavailable { seats: vec![1] });
}

#[test]
fn hold_of_what_does_not_exist_is_not_found() {
    let mut world = World::new(2);
    assert_eq!(world.refuse(user(1), hold(user(1), &[1, 3])), missing("seat"));
    let elsewhere = Command::HoldSeats { user: user(1), date: date(7), count: 1, choices: vec![vec![1]], best: false, last: false };
    assert_eq!(world.refuse(user(1), elsewhere), missing("date"));
}

#[test]
fn hold_keeps_the_booking_window() {
    let us = TimeDelta::microseconds(1);
    for (now, open) in [
        (at(BOOKING_OPENS_S) - us, false),
        (at(BOOKING_OPENS_S), true),
        (at(BOOKING_CLOSES_S) - us, true),
        (at(BOOKING_CLOSES_S), false),
        (at(0), false),
        (Timestamp::MIN_UTC, false),
    ] {
        let mut world = World::new(1);
        world.now = now;
        if open {
            world.hold(user(1), &[1]);
        } else {
            assert_eq!(world.refuse(user(1), hold(user(1), &[1])), Rejection::BookingClosed, "{now}");
        }
    }
}

#[test]
fn hold_limit_counts_live_and_sold_seats_of_the_date() {
    let exceeded = Rejection::SeatLimitExceeded { limit: LIMIT };
    let mut world = World::new(9);
    assert_eq!(world.refuse(user(1), hold(user(1), &[1, 2, 3, 4, 5])), exceeded);
    assert_eq!(world.refuse(user(1), best(5, &[], false)), exceeded, "judged by the count, without choices");
    assert_eq!(world.refuse(user(1), best(u32::MAX, &[], false)), exceeded);

    world.charge(user(1), 1_000);
    let sold = world.hold(user(1), &[1, 2]);
    let payment = world.pay(user(1), sold.id, 0);
    world.hold(user(1), &[3]);
    assert_eq!(world.refuse(user(1), best(u32::MAX, &[], false)), exceeded, "a sum beyond every number too");
    assert_eq!(world.refuse(user(1), hold(user(1), &[4, 5])), exceeded);
    let live = world.hold(user(1), &[4]);
    assert_eq!(world.refuse(user(1), hold(user(1), &[5])), exceeded);
    world.hold(user(2), &[5]);
    let other_date =
        Command::HoldSeats { user: user(1), date: date(2), count: 4, choices: vec![vec![1, 2, 3, 4]], best: false, last: false };
    assert!(matches!(world.decide(user(1), other_date), Decision::Done(_)), "each date has its own limit");

    world.decide(user(1), Command::ReleaseHold { reservation: live.id });
    let again = world.hold(user(1), &[6]);
    world.now = again.expires_at;
    assert_eq!(world.refuse(user(1), hold(user(1), &[6, 7, 8])), exceeded, "sold ones count for good");
    world.hold(user(1), &[6, 7]);
    world.decide(user(1), Command::Refund { user: user(1), payment: payment.id });
    world.hold(user(1), &[8, 9]);
}

#[test]
fn hold_limit_counts_what_the_same_batch_did() {
    let mut world = World::new(9);
    let requests: Vec<_> = [[1, 2], [3, 4], [5, 6]].iter().map(|seats| world.request(Actor::User(user(1)), hold(user(1), seats))).collect();
    let first = ReservationId(requests[0].fresh.subject);
    let release = world.request(Actor::User(user(1)), Command::ReleaseHold { reservation: first });
    let third_again = world.request(Actor::User(user(1)), hold(user(1), &[5, 6]));
    let done: Vec<_> = world.run([requests, vec![release, third_again]].concat()).iter().map(|r| r.decision.clone()).collect();
    assert!(matches!(done[..2], [Decision::Done(_), Decision::Done(_)]));
    assert_eq!(done[2], Decision::Refused(Rejection::SeatLimitExceeded { limit: LIMIT }));
    assert!(matches!(done[3..], [Decision::Done(_), Decision::Done(_)]), "{done:?}");
}

#[test]
fn hold_of_a_choice_that_does_not_fit_is_refused() {
    for (count, choice) in [(1, &[1, 1][..]), (2, &[1, 1]), (1, &[1, 2]), (2, &[1]), (0, &[])] {
        let mut world = World::new(9);
        let choices = vec![choice.to_vec()];
        let named = Command::HoldSeats { user: user(1), date: date(1), count, choices, best: false, last: false };
        for command in [named, best(count, &[choice], true)] {
            assert_eq!(world.refuse(user(1), command), Rejection::SeatUnavailable { seats: vec![] }, "{count} of {choice:?}");
        }
    }
}

/// Two holds at once under versions that name different seats conflict in the account alone.
#[test]
fn hold_and_extend_write_the_account() {
    let (mut world, reservation) = State::Held.reached();
    for command in [hold(user(1), &[3]), Command::ExtendHold { user: user(1), reservation: reservation.id }] {
        let requests = vec![world.request(Actor::User(user(1)), command.clone())];
        let mut set = world.load(&Roots::of(&requests));
        let replies = decide_batch(&mut set, &Batch::new(requests, Arc::new(world.policy.clone())));
        assert!(matches!(replies[0].decision, Decision::Done(_)), "{replies:?}");
        assert!(set.accounts[&user(1)].dirty, "{command:?}");
        assert!(!set.accounts.keys().any(|other| *other != user(1)));
    }
}

/// Each kind of change is one that a store must write.
#[test]
fn working_set_knows_whether_it_changed() {
    let (world, reservation) = State::Held.reached();
    type Change = fn(&mut WorkingSet);
    let changes: [Change; 6] = [
        |_| {},
        |set| {
            set.accounts.values_mut().for_each(|row| {
                row.change();
            })
        },
        |set| {
            set.seats.values_mut().for_each(|row| {
                row.change();
            })
        },
        |set| {
            set.reservations.values_mut().for_each(|row| {
                row.change();
            })
        },
        |set| set.written.events.push(Event::seat(ReservationChange::Held, seat(1), ReservationId(uuid::Uuid::nil()))),
        |set| set.written.replies.push(IdempotencyKey { user: user(1), command: CommandId(uuid::Uuid::nil()) }),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let roots = Roots { reservations: [reservation.id].into(), accounts: [user(1)].into(), ..Roots::default() };
        let mut set = world.load(&roots);
        change(&mut set);
        assert_eq!(set.is_unchanged(), at == 0, "change {at}");
    }
}

#[test]
fn hold_takes_over_expired_seats_and_tells_both() {
    let mut world = World::new(3);
    let old = world.hold(user(1), &[1, 2]);
    world.now = old.expires_at - TimeDelta::microseconds(1);
    assert_eq!(world.refuse(user(2), hold(user(2), &[2])), Rejection::SeatUnavailable { seats: vec![2] });
    world.now = old.expires_at;
    let from = world.events.len();
    let new = world.hold(user(2), &[2]);
    assert_eq!(world.events_since(from), ["reservation.expired 2", "reservation.held 2", "reservation.held [2]"]);
    assert_eq!(world.state(2).reservation(), Some(new.id));
    assert_eq!(world.state(1).reservation(), Some(old.id));
    assert_eq!(world.reservations[&old.id].status, ReservationStatus::Held, "the old row is left to the sweep");
    assert_eq!(world.reservations[&old.id].status_at(world.now), ReservationStatus::Expired);
}

#[test]
fn expire_frees_only_seats_that_still_name_it() {
    let mut world = World::new(3);
    let old = world.hold(user(1), &[1, 2]);
    world.now = old.expires_at;
    let new = world.hold(user(2), &[2]);
    let from = world.events.len();
    let expire = Command::ExpireHold { reservation: old.id };
    let Decision::Done(Outcome::Expired { reservation }) = world.decide_as(Actor::System, expire.clone()) else { panic!("not expired") };
    assert_eq!(reservation.status, ReservationStatus::Expired);
    assert_eq!(world.events_since(from), ["reservation.expired 1", "reservation.expired [1, 2]"]);
    assert_eq!(world.state(1), SeatState::Available);
    assert_eq!(world.state(2), SeatState::Held { reservation: new.id, until: new.expires_at });
    assert_eq!(world.refuse_as(Actor::System, expire), missing("reservation"), "once");
}

#[test]
fn expire_of_what_is_not_due_changes_nothing() {
    for state in State::ALL {
        let (mut world, reservation) = state.reached();
        let rejected = world.decide_as(Actor::System, Command::ExpireHold { reservation: reservation.id });
        match state {
            State::Overdue => assert!(matches!(rejected, Decision::Done(Outcome::Expired { .. }))),
            _ => assert_eq!(rejected, Decision::Refused(missing("reservation")), "{state:?}"),
        }
    }
    let (mut world, reservation) = State::Held.reached();
    world.now = reservation.expires_at - TimeDelta::microseconds(1);
    assert_eq!(world.refuse_as(Actor::System, Command::ExpireHold { reservation: reservation.id }), missing("reservation"));
}

#[test]
fn best_takes_the_first_choice_that_is_free() {
    let mut world = World::new(9);
    world.hold(user(2), &[2]);
    let Decision::Done(Outcome::Held { reservation, .. }) = world.decide(user(1), best(2, &[&[1, 2], &[4, 5], &[7, 8]], false)) else {
        panic!("not held")
    };
    assert_eq!(reservation.seats.iter().map(|seat| seat.number).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn best_without_a_free_choice_is_retried_and_the_last_time_refused() {
    let mut world = World::new(3);
    world.hold(user(2), &[2]);
    let before = world.clone();
    let request = world.keyed(user(1), "k", 1, best(2, &[&[1, 2], &[2, 3]], false));
    assert_eq!(world.run(vec![request])[0].decision, Decision::Retry);
    assert!(world.replies.is_empty(), "never stored");
    assert_eq!((world.seats.clone(), &world.events), (before.seats, &before.events));
    assert_eq!(world.decide(user(1), best(2, &[], false)), Decision::Retry);
    for choices in [&[&[1, 2][..], &[2, 3]][..], &[]] {
        assert_eq!(world.refuse(user(1), best(2, choices, true)), Rejection::SeatUnavailable { seats: vec![] });
    }
}

/// Where a reservation may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Held,
    /// Its time is over and no sweep has been there.
    Overdue,
    Expired,
    Released,
    Confirmed,
    Cancelled,
}

impl State {
    pub(super) const ALL: [Self; 6] = [Self::Held, Self::Overdue, Self::Expired, Self::Released, Self::Confirmed, Self::Cancelled];

    /// A world where user 1, with money left, has a reservation of seats 1 and 2 in this state.
    pub(super) fn reached(self) -> (World, Reservation) {
        let mut world = World::new(4);
        let owner = user(1);
        world.charge(owner, 10_000);
        world.charge(user(2), 10_000);
        let reservation = world.hold(owner, &[1, 2]);
        let id = reservation.id;
        match self {
            Self::Held => {}
            Self::Overdue => world.now = reservation.expires_at,
            Self::Expired => {
                world.now = reservation.expires_at;
                world.decide_as(Actor::System, Command::ExpireHold { reservation: id });
            }
            Self::Released => {
                world.decide(owner, Command::ReleaseHold { reservation: id });
            }
            Self::Confirmed | Self::Cancelled => {
                let payment = world.pay(owner, id, 0);
                if self == Self::Cancelled {
                    world.decide(owner, Command::Refund { user: owner, payment: payment.id });
                }
            }
        }
        let expected = match self {
            Self::Held | Self::Overdue => ReservationStatus::Held,
            Self::Expired => ReservationStatus::Expired,
            Self::Released => ReservationStatus::Released,
            Self::Confirmed => ReservationStatus::Confirmed,
            Self::Cancelled => ReservationStatus::Cancelled,
        };
        let reservation = world.reservations[&id].clone();
        assert_eq!(reservation.status, expected);
        (world, reservation)
    }

    /// How pay, extend and release refuse it.
    pub(super) fn refusal(self) -> Option<Rejection> {
        match self {
            Self::Held => None,
            Self::Overdue | Self::Expired => Some(Rejection::HoldExpired),
            Self::Released => Some(Rejection::HoldReleased),
            Self::Confirmed => Some(Rejection::AlreadyPaid),
            Self::Cancelled => Some(Rejection::AlreadyRefunded),
        }
    }
}

#[test]
fn extend_by_every_state() {
    for state in State::ALL {
        let (mut world, before) = state.reached();
        let extend = Command::ExtendHold { user: user(1), reservation: before.id };
        if let Some(refusal) = state.refusal() {
            assert_eq!(world.refuse(user(1), extend), refusal, "{state:?}");
            continue;
        }
        world.advance(HOLD_TTL_S - 1);
        let Decision::Done(Outcome::Extended { reservation, extensions_left }) = world.decide(user(1), extend.clone()) else {
            panic!("not extended")
        };
        assert_eq!((reservation.extensions, extensions_left), (1, 0));
        assert_eq!(reservation.expires_at, world.now + TimeDelta::seconds(HOLD_TTL_S));
        for number in [1, 2] {
            assert_eq!(world.state(number), SeatState::Held { reservation: before.id, until: reservation.expires_at });
        }
        assert_eq!(world.refuse(user(1), extend), Rejection::ExtensionLimitExceeded);
        world.now = before.expires_at;
        assert_eq!(world.refuse(user(2), hold(user(2), &[1])), Rejection::SeatUnavailable { seats: vec![1] });
    }
}

#[test]
fn extend_never_shortens() {
    let (mut world, before) = State::Held.reached();
    world.policy.hold_ttl_s = 1;
    let decision = world.decide(user(1), Command::ExtendHold { user: user(1), reservation: before.id });
    assert!(matches!(decision, Decision::Done(Outcome::Extended { reservation, .. }) if reservation.expires_at == before.expires_at));
}

#[test]
fn release_by_every_state() {
    for state in State::ALL {
        let (mut world, reservation) = state.reached();
        let release = Command::ReleaseHold { reservation: reservation.id };
        match state {
            State::Held => {
                let from = world.events.len();
                let decision = world.decide(user(1), release.clone());
                assert!(matches!(decision, Decision::Done(Outcome::Released { .. })), "{decision:?}");
                assert_eq!(world.events_since(from), ["reservation.released 1", "reservation.released 2", "reservation.released [1, 2]"]);
                assert_eq!((world.state(1), world.state(2)), (SeatState::Available, SeatState::Available));
            }
            State::Released => {
                let before = world.seats.clone();
                let from = world.events.len();
                let decision = world.decide(user(1), release.clone());
                assert!(matches!(decision, Decision::Done(Outcome::Released { .. })), "releasing again is no error: {decision:?}");
                assert_eq!((world.seats.clone(), world.events.len()), (before, from), "and changes nothing");
            }
            _ => assert_eq!(Some(world.refuse(user(1), release.clone())), state.refusal(), "{state:?}"),
        }
    }
}

#[test]
fn release_by_the_system_frees_any_users_hold() {
    let (mut world, reservation) = State::Held.reached();
    let decision = world.decide_as(Actor::System, Command::ReleaseHold { reservation: reservation.id });
    assert!(matches!(decision, Decision::Done(Outcome::Released { .. })), "{decision:?}");
    assert_eq!(world.state(1), SeatState::Available);
    world.hold(user(2), &[1, 2]);
}

#[test]
fn no_user_touches_anothers_reservation() {
    for state in State::ALL {
        let (mut world, reservation) = state.reached();
        let (other, id) = (user(2), reservation.id);
        for command in [
            Command::ExtendHold { user: other, reservation: id },
            Command::ReleaseHold { reservation: id },
            Command::Pay { user: other, reservation: id, points: 0 },
        ] {
            assert_eq!(world.refuse(other, command.clone()), missing("reservation"), "{state:?} {command:?}");
        }
        assert_eq!(world.refuse_as(Actor::Operator(other), Command::ReleaseHold { reservation: id }), missing("reservation"));
    }
}

#[test]
fn what_does_not_exist_is_not_found() {
    let mut world = World::new(1);
    let nothing = ReservationId(world.fresh_id());
    for command in [
        Command::ExtendHold { user: user(1), reservation: nothing },
        Command::ReleaseHold { reservation: nothing },
        Command::ExpireHold { reservation: nothing },
        Command::Pay { user: user(1), reservation: nothing, points: 0 },
    ] {
        assert_eq!(world.refuse(user(1), command), missing("reservation"));
    }
    let nothing = world.fresh_id().into();
    assert_eq!(world.refuse(user(1), Command::Refund { user: user(1), payment: nothing }), missing("payment"));
}

#[test]
fn a_hold_whose_seat_names_another_is_over() {
    let (mut world, reservation) = State::Held.reached();
    // No decision leads here; a store that was tampered with must not sell a seat twice.
    world.seats.get_mut(&seat(2)).unwrap().state = SeatState::Sold { reservation: ReservationId(uuid::Uuid::nil()) };
    assert_eq!(world.refuse(user(1), Command::Pay { user: user(1), reservation: reservation.id, points: 0 }), Rejection::HoldExpired);
}
