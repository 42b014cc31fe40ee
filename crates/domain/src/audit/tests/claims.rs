//! Replies agree with what is there (I3).

use super::*;

#[test]
fn an_entry_has_an_id_of_its_own() {
    let again = Row::OfEntry(entry_id(4), OfEntry::Entry { user: BEN, seq: 1, amount: 1 });
    assert_eq!(found_beside(again, |_| true), one("I3", format!("2 entries share the id {}", entry_id(4))));
}

#[test]
fn what_a_reply_claims_has_happened() {
    let undone = |user: UserId, command: u128, effect: &str| {
        let command = CommandId(Uuid::from_u128(command));
        one("I3", format!("the reply of command {command} of user {user} says {effect}, which did not happen"))
    };
    for harm in [
        (|user, _, _| *user = Some(BEN)) as fn(&mut Option<UserId>, &mut Option<i64>, &mut Option<i64>),
        |_, seq, _| *seq = None,
        |_, _, amount| *amount = Some(201),
    ] {
        let found = found_after(|row| match row {
            Row::OfEntry(_, OfEntry::Claim { user, seq, amount, .. }) => {
                harm(user, seq, amount);
                true
            }
            _ => false,
        });
        assert_eq!(found, undone(ANN, 1, "entered"));
    }
    for effect in Effect::ALL {
        let (row, behind): (Row, fn(&Row) -> bool) = match effect {
            Effect::Entered => {
                let claim = OfEntry::Claim { claim: claim(BEN, 8, effect), user: Some(BEN), seq: Some(1), amount: Some(1) };
                (Row::OfEntry(UNKNOWN.into(), claim), |_| true)
            }
            Effect::Paid | Effect::Refunded => {
                let claim = OfPayment::Claim { claim: claim(BEN, 8, effect), reservation: Some(BOUGHT) };
                (Row::OfPayment(UNKNOWN.into(), claim), |row| matches!(row, Row::OfPayment(..)))
            }
            _ => {
                let claim = OfReservation::Claim(claim(BEN, 8, effect));
                (Row::OfReservation(UNKNOWN.into(), claim), |row| matches!(row, Row::OfReservation(..)))
            }
        };
        assert_eq!(found_beside(row, behind), undone(BEN, 8, effect.name()));
    }
    let behind = |row: &Row| matches!(row, Row::OfPayment(PAID, _));
    let refunded = OfPayment::Claim { claim: claim(ANN, 8, Effect::Refunded), reservation: Some(BOUGHT) };
    assert_eq!(found_beside(Row::OfPayment(PAID, refunded), behind), undone(ANN, 8, "refunded"), "it is paid, and not refunded");
    let other = found_after(|row| match row {
        Row::OfPayment(PAID, OfPayment::Claim { reservation, .. }) => {
            *reservation = Some(HELD);
            true
        }
        _ => false,
    });
    assert_eq!(other, undone(ANN, 2, "paid"));
}

#[test]
fn an_effect_is_claimed_by_one_reply() {
    let twice = |effect: &str, record: &dyn std::fmt::Display| one("I3", format!("2 replies claim {effect} {record}"));
    let reservation = OfReservation::Claim(claim(BEN, 8, Effect::Held));
    let behind = |row: &Row| matches!(row, Row::OfReservation(BOUGHT, _));
    assert_eq!(found_beside(Row::OfReservation(BOUGHT, reservation), behind), twice("held", &BOUGHT));
    for (effect, name) in [(Effect::Paid, "paid"), (Effect::Refunded, "refunded")] {
        let payment = OfPayment::Claim { claim: claim(BEN, 8, effect), reservation: Some(RETURNED) };
        let behind = |row: &Row| matches!(row, Row::OfPayment(REFUNDED, _));
        assert_eq!(found_beside(Row::OfPayment(REFUNDED, payment), behind), twice(name, &REFUNDED));
    }
    let entered = OfEntry::Claim { claim: claim(BEN, 8, Effect::Entered), user: Some(ANN), seq: Some(1), amount: Some(200) };
    let behind = |row: &Row| matches!(row, Row::OfEntry(_, OfEntry::Claim { .. }));
    assert_eq!(found_beside(Row::OfEntry(entry_id(1), entered), behind), twice("entered", &entry_id(1)));
}
