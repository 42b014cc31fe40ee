//! The pass by payment: what the journals (I2, I9) and replies (I3) state of it.

use super::claims::Claims;
use super::found::{Check, Found};
use super::row::{Effect, OfPayment, PaymentMade};
use crate::account::{EntryKind, PointsKind};
use crate::ids::{PaymentId, UserId};

#[derive(Debug, Default)]
pub(super) struct PaymentSums {
    payment: Option<PaymentMade>,
    paid: Moved,
    refunded: Moved,
    /// Entries that name the payment and have no business to.
    others: u64,
    granted: Moved,
    spent: Moved,
    restored: Moved,
    taken_back: Moved,
    /// The user last reported for entries of another's payment, in each journal.
    stranger: Option<UserId>,
    points_stranger: Option<UserId>,
    claims: Claims,
}

/// The lines of one kind: how many, and their sum.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    lines: u64,
    sum: i64,
}

impl Moved {
    fn take(&mut self, amount: i64) {
        self.lines += 1;
        self.sum = self.sum.saturating_add(amount);
    }

    /// Whether `expected` was moved by at most one line.
    fn is_once(self, expected: i64) -> bool {
        self.sum == expected && self.lines <= 1
    }
}

impl PaymentSums {
    pub(super) fn take(&mut self, row: OfPayment, payment: PaymentId, found: &mut Found) {
        let owner = self.payment.map(|payment| payment.user);
        match row {
            OfPayment::Payment(payment) => {
                found.payments += 1;
                self.payment = Some(payment);
            }
            OfPayment::Entry { user, .. } if owner != Some(user) => {
                let first = self.stranger.replace(user) != Some(user);
                found.check(Check::PaymentMovesMoneyOnce, !first, || {
                    format!("entries of user {user} name payment {payment}, which is not theirs")
                });
            }
            OfPayment::Entry { kind, amount, .. } => match kind {
                EntryKind::Payment => self.paid.take(amount),
                EntryKind::Refund => self.refunded.take(amount),
                EntryKind::Charge | EntryKind::Use => self.others += 1,
            },
            OfPayment::Points { user, .. } if owner != Some(user) => {
                let first = self.points_stranger.replace(user) != Some(user);
                found.check(Check::PaymentMovesPointsOnce, !first, || {
                    format!("points entries of user {user} name payment {payment}, which is not theirs")
                });
            }
            OfPayment::Points { kind, points, .. } => match kind {
                PointsKind::Grant => self.granted.take(points),
                PointsKind::Spend => self.spent.take(points),
                PointsKind::Restore => self.restored.take(points),
                PointsKind::TakeBack => self.taken_back.take(points),
            },
            OfPayment::Claim { claim, reservation } => {
                let happened = |made: PaymentMade| {
                    Some(made.reservation) == reservation && (claim.effect != Effect::Refunded || made.refund.is_some())
                };
                self.claims.take(claim, self.payment.is_some_and(happened), found);
            }
        }
    }

    pub(super) fn close(self, id: PaymentId, found: &mut Found) {
        let Self { paid, refunded, granted, spent, restored, taken_back, .. } = self;
        self.claims.close(id, found);
        let Some(made) = self.payment else { return };
        let refund = made.refund.unwrap_or_default();
        let money = paid.is_once(-made.amount) && refunded.is_once(refund.amount) && self.others == 0;
        found.check(Check::PaymentMovesMoneyOnce, money, || {
            let (amount, back) = (made.amount, refund.amount);
            format!("payment {id} of {amount}, refunded {back}, is entered as {} and {}", paid.sum, refunded.sum)
        });
        let points = granted.is_once(made.points_granted)
            && spent.is_once(-made.points_spent)
            && restored.is_once(refund.points_restored)
            && taken_back.is_once(-refund.points_taken_back);
        found.check(Check::PaymentMovesPointsOnce, points, || {
            format!(
                "payment {id} spent {} points and granted {}, entered as {} and {}; its refund restored {} and took {}, \
                 entered as {} and {}",
                made.points_spent,
                made.points_granted,
                -spent.sum,
                granted.sum,
                refund.points_restored,
                refund.points_taken_back,
                restored.sum,
                -taken_back.sum
            )
        });
    }
}
