//! Accounts and payments agree with the journals (I2, I9).

use super::*;

#[test]
fn an_account_is_the_sum_of_its_journals() {
    let account = |change: fn(&mut Account)| {
        found_after(|row| match row {
            Row::OfUser(ANN, OfUser::Account(account)) => {
                change(account);
                true
            }
            _ => false,
        })
    };
    let wallet = |text: &str| one("I2", format!("account {ANN} holds {text} entries, which sum to 100 in 4"));
    assert_eq!(account(|account| account.balance += 1), wallet("101 after 4"));
    assert_eq!(account(|account| account.entries += 1), wallet("100 after 5"));
    let points = |text: &str| one("I9", format!("account {ANN} has {text} entries, which sum to 10 in 5"));
    assert_eq!(account(|account| account.points += 1), points("11 points after 5"));
    assert_eq!(account(|account| account.points_entries += 1), points("10 points after 6"));
    let renumbered = found_after(|row| match row {
        Row::OfUser(ANN, OfUser::Entry { seq: seq @ 4, .. }) => {
            *seq = 5;
            true
        }
        _ => false,
    });
    assert_eq!(renumbered, wallet("100 after 4"));
}

#[test]
fn each_line_of_a_journal_follows_the_one_before_it() {
    let wallet = found_after(|row| match row {
        Row::OfUser(ANN, OfUser::Entry { seq: 4, balance, .. }) => {
            *balance += 1;
            true
        }
        _ => false,
    });
    assert_eq!(wallet, one("I2", format!("entry 4 of user {ANN} begins at 6, the one before it left 5")));
    let points = found_after(|row| match row {
        Row::OfUser(ANN, OfUser::Points { seq: 5, balance, .. }) => {
            *balance += 1;
            true
        }
        _ => false,
    });
    assert_eq!(points, one("I9", format!("points entry 5 of user {ANN} begins at 20, the one before it left 19")));
    let kind = found_after(|row| match row {
        Row::OfUser(ANN, OfUser::Entry { seq: 4, kind, .. }) => {
            *kind = EntryKind::Use;
            true
        }
        _ => false,
    });
    assert_eq!(kind, one("I2", format!("entry 4 of user {ANN} moves 95 and leaves 100, against its kind")));
    let kind = found_after(|row| match row {
        Row::OfUser(ANN, OfUser::Points { seq: 4, kind, .. }) => {
            *kind = PointsKind::TakeBack;
            true
        }
        _ => false,
    });
    assert_eq!(kind, one("I9", format!("points entry 4 of user {ANN} moves 5 and leaves 19, against its kind")));
}

#[test]
fn each_line_of_a_journal_has_an_account() {
    let cy = UserId(Uuid::from_u128(0xA3));
    let behind = |row: &Row| is_of_user(row, BEN);
    let entry = OfUser::Entry { seq: 1, kind: EntryKind::Charge, amount: 1, balance: 1 };
    assert_eq!(found_beside(of_user(cy, entry), behind), one("I2", format!("entry 1 of user {cy} has no account")));
    let points = OfUser::Points { seq: 1, kind: PointsKind::Grant, points: 1, balance: 1 };
    assert_eq!(found_beside(of_user(cy, points), behind), one("I9", format!("points entry 1 of user {cy} has no account")));
}

#[test]
fn a_payment_moves_money_once_and_in_its_users_wallet() {
    let paid = |sums: &str| one("I2", format!("payment {PAID} of 100, refunded 0, is entered as {sums}"));
    let entry = |harm: fn(&mut UserId, &mut EntryKind, &mut i64)| {
        found_after(|row| match row {
            Row::OfPayment(PAID, OfPayment::Entry { user, kind, amount }) => {
                harm(user, kind, amount);
                true
            }
            _ => false,
        })
    };
    assert_eq!(entry(|_, _, amount| *amount = -99), paid("-99 and 0"));
    assert_eq!(entry(|_, kind, _| *kind = EntryKind::Refund), paid("0 and -100"));
    let strange = |user| ("I2", format!("entries of user {user} name payment {PAID}, which is not theirs"));
    assert_eq!(entry(|user, _, _| *user = BEN), [strange(BEN), paid("0 and 0").remove(0)]);
    let behind = |row: &Row| matches!(row, Row::OfPayment(PAID, OfPayment::Entry { .. }));
    let again = |user, kind, amount| found_beside(Row::OfPayment(PAID, OfPayment::Entry { user, kind, amount }), behind);
    assert_eq!(again(ANN, EntryKind::Charge, 7), paid("-100 and 0"), "a charge is of no payment");
    assert_eq!(again(ANN, EntryKind::Payment, 0), paid("-100 and 0"), "twice, though the sum is right");
    assert_eq!(again(BEN, EntryKind::Use, -1), [strange(BEN)]);
    let unknown = OfPayment::Entry { user: ANN, kind: EntryKind::Payment, amount: -1 };
    let unknown = found_beside(Row::OfPayment(UNKNOWN.into(), unknown), |row| matches!(row, Row::OfPayment(..)));
    assert_eq!(unknown, one("I2", format!("entries of user {ANN} name payment {UNKNOWN}, which is not theirs")));
}

#[test]
fn a_payment_moves_points_once_and_in_its_users_journal() {
    const KINDS: [(PointsKind, &str); 4] = [
        (PointsKind::Grant, "5 and 10; its refund restored 5 and took 9, entered as 5 and 9"),
        (PointsKind::Spend, "4 and 9; its refund restored 5 and took 9, entered as 5 and 9"),
        (PointsKind::Restore, "5 and 9; its refund restored 5 and took 9, entered as 6 and 9"),
        (PointsKind::TakeBack, "5 and 9; its refund restored 5 and took 9, entered as 5 and 8"),
    ];
    for (moved, sums) in KINDS {
        let found = found_after(|row| match row {
            Row::OfPayment(REFUNDED, OfPayment::Points { kind, points, .. }) if *kind == moved => {
                *points += 1;
                true
            }
            _ => false,
        });
        assert_eq!(found, one("I9", format!("payment {REFUNDED} spent 5 points and granted 9, entered as {sums}")), "{moved:?}");
    }
    let behind = |row: &Row| matches!(row, Row::OfPayment(REFUNDED, OfPayment::Points { .. }));
    let stranger = OfPayment::Points { user: BEN, kind: PointsKind::Grant, points: 1 };
    let strange = format!("points entries of user {BEN} name payment {REFUNDED}, which is not theirs");
    assert_eq!(found_beside(Row::OfPayment(REFUNDED, stranger), behind), one("I9", strange));
}
