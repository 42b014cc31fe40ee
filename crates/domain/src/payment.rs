//! A payment of one reservation, and its refund.

use crate::money::{Money, Points};
use crate::{PaymentId, ReservationId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Paid, or refunded whole. What was bought is in the reservation, which never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub user: UserId,
    /// Money taken from the wallet: prices as held, less points spent.
    pub amount: Money,
    pub points_spent: Points,
    pub points_granted: Points,
    pub paid_at: Timestamp,
    pub refund: Option<Refund>,
}

/// What came back. `shortfall` is the part of the granted points that was already spent and was kept from the money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub amount: Money,
    pub points_restored: Points,
    pub points_taken_back: Points,
    pub shortfall: Money,
    pub refunded_at: Timestamp,
}

impl Refund {
    /// The settlement of `payment` for a user who has `points` now.
    ///
    /// Spent points are restored first, then granted ones taken back as far as they are there; what is missing is
    /// taken from the money, never below zero.
    pub fn settle(payment: &Payment, points: Points, refunded_at: Timestamp) -> Self {
        let available = points + payment.points_spent;
        let points_taken_back = payment.points_granted.min(available);
        let shortfall = payment.points_granted - points_taken_back;
        Self {
            amount: (payment.amount - shortfall).max(0),
            points_restored: payment.points_spent,
            points_taken_back,
            shortfall,
            refunded_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use uuid::Uuid;

    fn payment(amount: Money, points_spent: Points, points_granted: Points) -> Payment {
        let id = Uuid::from_u128(7);
        Payment {
            id: id.into(),
            reservation: id.into(),
            user: id.into(),
            amount,
            points_spent,
            points_granted,
            paid_at: DateTime::UNIX_EPOCH,
            refund: None,
        }
    }

    #[test]
    fn refund_settles_points_before_money() {
        // (amount, spent, granted, points now) -> (money, restored, taken back, shortfall)
        for (paid, spent, granted, points, expected) in [
            (100, 0, 5, 5, (100, 0, 5, 0)),
            (100, 0, 5, 2, (97, 0, 2, 3)),
            (100, 0, 5, 0, (95, 0, 0, 5)),
            (100, 20, 5, 0, (100, 20, 5, 0)),
            (100, 3, 5, 0, (98, 3, 3, 2)),
            (0, 100, 0, 0, (0, 100, 0, 0)),
            (4, 0, 9, 0, (0, 0, 0, 9)),
        ] {
            let refund = Refund::settle(&payment(paid, spent, granted), points, DateTime::UNIX_EPOCH);
            assert_eq!((refund.amount, refund.points_restored, refund.points_taken_back, refund.shortfall), expected);
            let after = points + refund.points_restored - refund.points_taken_back;
            assert_eq!(after, (points + spent - granted).max(0), "points after as API.md states them");
        }
    }
}
