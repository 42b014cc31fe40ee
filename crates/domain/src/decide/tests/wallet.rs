//! Charge and use: every bound, up to the ends of 64 bits.

use super::world::{World, user};
use crate::decide::{Decision, Outcome};
use crate::money::Money;
use crate::{Actor, Command, EntryKind, Event, Rejection};

enum Expected {
    Balance(Money),
    OutOfRange,
    Insufficient,
}
use Expected::{Balance, Insufficient, OutOfRange};

fn check(what: &str, expected: &Expected, command: impl Fn(Money) -> Command, bounds: (Money, Money), before: Money, amount: Money) {
    let name = format!("{what} {amount} with {before}, bounds {bounds:?}");
    let mut world = World::new(1);
    (world.policy.amount_max, world.policy.balance_max) = (Money::MAX, Money::MAX);
    if before > 0 {
        world.charge(user(1), before);
    }
    (world.policy.amount_max, world.policy.balance_max) = bounds;
    match expected {
        Balance(after) => match world.decide(user(1), command(amount)) {
            Decision::Done(Outcome::Entered { entry }) => {
                assert_eq!((entry.balance, world.balance(user(1))), (*after, *after), "{name}");
                assert_eq!(entry.amount, after - before, "{name}");
                assert_eq!(entry.seq, world.accounts[&user(1)].entries, "{name}");
                assert_eq!(world.entries.last(), Some(&entry), "{name}");
                assert!(
                    matches!(world.events.last(), Some(Event::WalletCharged { balance, .. } | Event::WalletUsed { balance, .. })
                    if balance == after),
                    "{name}"
                );
            }
            other => panic!("{name}: {other:?}"),
        },
        OutOfRange => {
            let rejection = world.refuse(user(1), command(amount));
            assert!(matches!(&rejection, Rejection::AmountOutOfRange { field, .. } if field == "amount"), "{name}: {rejection:?}");
        }
        Insufficient => assert_eq!(world.refuse(user(1), command(amount)), Rejection::InsufficientBalance, "{name}"),
    }
}

#[test]
fn charge_keeps_its_bounds() {
    let charge = |amount| Command::ChargeWallet { user: user(1), amount };
    const MAX: Money = Money::MAX;
    for (bounds, before, amount, expected) in [
        ((100, 250), 0, 1, Balance(1)),
        ((100, 250), 0, 100, Balance(100)),
        ((100, 250), 0, 101, OutOfRange),
        ((100, 250), 0, 0, OutOfRange),
        ((100, 250), 0, -1, OutOfRange),
        ((100, 250), 0, Money::MIN, OutOfRange),
        ((100, 250), 0, MAX, OutOfRange),
        ((100, 250), 150, 100, Balance(250)),
        ((100, 250), 151, 100, OutOfRange),
        ((100, 250), 250, 1, OutOfRange),
        // A refund may have lifted it there.
        ((100, 250), 300, 1, OutOfRange),
        ((MAX, MAX), 0, MAX, Balance(MAX)),
        ((MAX, MAX), MAX, 1, OutOfRange),
        ((MAX, MAX), MAX, MAX, OutOfRange),
        ((MAX, MAX), MAX - 1, 1, Balance(MAX)),
        ((MAX, MAX), 1, Money::MIN, OutOfRange),
    ] {
        check("charge", &expected, charge, bounds, before, amount);
    }
}

#[test]
fn use_takes_what_is_there_and_no_more() {
    let spend = |amount| Command::UseWallet { user: user(1), amount, memo: Some("cloakroom".into()) };
    const MAX: Money = Money::MAX;
    for (bounds, before, amount, expected) in [
        ((100, 250), 100, 1, Balance(99)),
        ((100, 250), 100, 100, Balance(0)),
        ((100, 250), 99, 100, Insufficient),
        ((100, 250), 0, 1, Insufficient),
        ((100, 250), 200, 101, OutOfRange),
        ((100, 250), 200, 0, OutOfRange),
        ((100, 250), 200, -1, OutOfRange),
        ((100, 250), 200, Money::MIN, OutOfRange),
        ((MAX, MAX), MAX, MAX, Balance(0)),
        ((MAX, MAX), MAX - 1, MAX, Insufficient),
    ] {
        check("use", &expected, spend, bounds, before, amount);
    }
}

#[test]
fn wallet_entries_say_what_happened() {
    let mut world = World::new(1);
    world.charge(user(1), 500);
    world.decide(user(1), Command::UseWallet { user: user(1), amount: 200, memo: Some("cloakroom".into()) });
    world.charge(user(2), 7);
    let lines: Vec<_> = world.entries.iter().map(|e| (e.user, e.seq, e.kind, e.amount, e.balance, e.memo.as_deref())).collect();
    assert_eq!(
        lines,
        [
            (user(1), 1, EntryKind::Charge, 500, 500, None),
            (user(1), 2, EntryKind::Use, -200, 300, Some("cloakroom")),
            (user(2), 1, EntryKind::Charge, 7, 7, None),
        ]
    );
    assert!(world.entries.iter().all(|entry| entry.created_at == world.now && entry.payment.is_none() && entry.reservation.is_none()));
}

#[test]
fn operator_charges_anothers_wallet() {
    let mut world = World::new(1);
    let decision = world.decide_as(Actor::Operator(user(9)), Command::ChargeWallet { user: user(1), amount: 50 });
    assert!(matches!(decision, Decision::Done(Outcome::Entered { .. })), "{decision:?}");
    assert_eq!((world.balance(user(1)), world.balance(user(9))), (50, 0));
}
