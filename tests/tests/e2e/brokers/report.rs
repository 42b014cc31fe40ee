//! The state that a listener makes of events alone: repetitions are skipped by their ids, all others applied in the order
//! in which they first came.

use boxoffice_domain::{DateId, Event, PaymentId, ReservationChange, ReservationId, SeatNumber, UserId};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A seat that is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Held(ReservationId),
    Sold(ReservationId),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wallet {
    pub(super) balance: i64,
    pub(super) points: i64,
}

/// The money of a payment, and of its refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sale {
    pub(super) amount: i64,
    pub(super) refunded: Option<i64>,
}

/// See the module's opening.
#[derive(Default)]
pub(super) struct Report {
    seen: HashSet<String>,
    pub(super) repeated: usize,
    pub(super) seats: BTreeMap<(DateId, SeatNumber), Taken>,
    pub(super) reservations: BTreeMap<ReservationId, ReservationChange>,
    pub(super) wallets: HashMap<UserId, Wallet>,
    pub(super) payments: BTreeMap<PaymentId, Sale>,
}

impl Report {
    pub(super) fn of<'a>(events: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut report = Self::default();
        for event in events {
            report.apply(event);
        }
        report
    }

    /// How many events there were, each counted once.
    pub(super) fn events(&self) -> usize {
        self.seen.len()
    }

    fn apply(&mut self, message: &Value) {
        let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("no {name} in {message}"));
        let event = Event::deserialize(&message["data"]).unwrap_or_else(|error| panic!("{error}: {message}"));
        assert_eq!((text("specversion"), text("source"), text("type")), ("1.0", "/boxoffice", event.kind()), "{message}");
        assert!(DateTime::parse_from_rfc3339(text("time")).is_ok(), "{message}");
        if !self.seen.insert(text("id").to_owned()) {
            self.repeated += 1;
            return;
        }
        match event {
            Event::Seat { change, date, seat, reservation } => self.seat((date, seat), change, reservation),
            Event::Reservation { change, reservation, .. } => {
                let before = self.reservations.insert(reservation, change);
                let is_possible = match change {
                    ReservationChange::Held => before.is_none(),
                    ReservationChange::Cancelled => before == Some(ReservationChange::Confirmed),
                    _ => before == Some(ReservationChange::Held),
                };
                assert!(is_possible, "{reservation}: {change:?} after {before:?}");
            }
            Event::PaymentPaid { payment, user, amount, points_spent, points_granted, .. } => {
                self.book(user, -amount, points_granted - points_spent);
                assert_eq!(self.payments.insert(payment, Sale { amount, refunded: None }), None, "{payment} is paid twice");
            }
            Event::PaymentRefunded { payment, user, amount, points_restored, points_taken_back, .. } => {
                self.book(user, amount, points_restored - points_taken_back);
                let sale = self.payments.get_mut(&payment).unwrap_or_else(|| panic!("{payment} is refunded before it is paid"));
                assert_eq!(sale.refunded.replace(amount), None, "{payment} is refunded twice");
            }
            Event::WalletCharged { user, amount, balance, .. } => self.moved(user, amount, balance),
            Event::WalletUsed { user, amount, balance, .. } => self.moved(user, -amount, balance),
        }
    }

    fn seat(&mut self, seat: (DateId, SeatNumber), change: ReservationChange, by: ReservationId) {
        let before = match change {
            ReservationChange::Held => self.seats.insert(seat, Taken::Held(by)),
            ReservationChange::Confirmed => self.seats.insert(seat, Taken::Sold(by)),
            _ => self.seats.remove(&seat),
        };
        let is_possible = match change {
            ReservationChange::Held => before.is_none(),
            ReservationChange::Cancelled => before == Some(Taken::Sold(by)),
            _ => before == Some(Taken::Held(by)),
        };
        assert!(is_possible, "seat {seat:?}: {change:?} by {by} after {before:?}");
    }

    fn book(&mut self, user: UserId, money: i64, points: i64) {
        let wallet = self.wallets.entry(user).or_default();
        wallet.balance += money;
        wallet.points += points;
    }

    /// A wallet's own events carry the balance after them, which shows that none before is missing or out of order.
    fn moved(&mut self, user: UserId, money: i64, balance: i64) {
        self.book(user, money, 0);
        assert_eq!(self.wallets[&user].balance, balance, "the wallet of {user}");
    }
}
