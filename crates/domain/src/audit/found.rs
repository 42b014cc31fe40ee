//! What an audit has found so far, and how it is reported.

use std::collections::BTreeMap;

/// The most breaches one invariant is reported with.
pub const BREACHES_MAX: usize = 20;

/// One row that breaks an invariant of the design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// `I1` to `I12`.
    pub invariant: &'static str,
    /// Which row, and what is wrong with it.
    pub detail: String,
}

/// What an audit looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// By invariant.
    pub breaches: Vec<Breach>,
    /// What was counted, by name: accounts, entries, seats, reservations, payments, replies.
    pub counted: Vec<(&'static str, u64)>,
    /// Held reservations whose time is over and that no sweep has written yet (I12's backlog): no breach by itself.
    pub overdue_holds: u64,
}

/// What is looked for, in the order in which it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    /// A seat that is taken and its reservation agree on state, date, number and the end of the hold.
    SeatNamesReservation,
    /// A reservation that occupies seats is named by all of them.
    ReservationIsNamed,
    /// A reservation lists the seats that it was held for.
    ReservationListsSeats,
    /// A reservation has a payment if and only if it was bought, and the payment is refunded if it was cancelled.
    ReservationIsPaid,
    /// A payment's reservation exists and is of the same user and concert.
    PaymentHasReservation,
    /// An account's balance is the sum of its entries, which are numbered from 1.
    BalanceIsSum,
    /// Each entry begins at what the one before it left, and its sign is that of its kind.
    EntriesFollow,
    EntryHasAccount,
    /// A payment took its amount and gave its refund, each in one entry of its user.
    PaymentMovesMoneyOnce,
    EntryIdIsUnique,
    /// What a reply claims is there.
    ReplyHasEffect,
    /// No two replies claim the same effect.
    EffectIsClaimedOnce,
    /// A date has as many seats as it should, and as many of each state as its reservations claim.
    DateCountsSeats,
    SeatHasDate,
    PointsAreSum,
    PointsFollow,
    PointsHaveAccount,
    /// As [`Check::PaymentMovesMoneyOnce`], for the points that were spent, granted, restored and taken back.
    PaymentMovesPointsOnce,
    /// A user has no more seats of a date than the limit, holds that are over not counted.
    UserKeepsLimit,
    /// A payment's amount is the sum of its seats' prices, less the points spent.
    AmountIsPriceLessPoints,
}

impl Check {
    fn invariant(self) -> &'static str {
        match self {
            Self::SeatNamesReservation
            | Self::ReservationIsNamed
            | Self::ReservationListsSeats
            | Self::ReservationIsPaid
            | Self::PaymentHasReservation => "I1",
            Self::BalanceIsSum | Self::EntriesFollow | Self::EntryHasAccount | Self::PaymentMovesMoneyOnce => "I2",
            Self::EntryIdIsUnique | Self::ReplyHasEffect | Self::EffectIsClaimedOnce => "I3",
            Self::DateCountsSeats | Self::SeatHasDate => "I6",
            Self::PointsAreSum | Self::PointsFollow | Self::PointsHaveAccount | Self::PaymentMovesPointsOnce => "I9",
            Self::UserKeepsLimit => "I10",
            Self::AmountIsPriceLessPoints => "I11",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Found {
    lines: BTreeMap<Check, Vec<String>>,
    pub(super) accounts: u64,
    pub(super) entries: u64,
    pub(super) seats: u64,
    pub(super) reservations: u64,
    pub(super) payments: u64,
    pub(super) overdue_holds: u64,
}

impl Found {
    /// Notes a breach unless `check` holds, or has been reported often enough.
    pub(super) fn check(&mut self, check: Check, holds: bool, detail: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let lines = self.lines.entry(check).or_default();
        if lines.len() < BREACHES_MAX {
            lines.push(detail());
        }
    }

    pub(super) fn report(self, replies: u64) -> AuditReport {
        let mut breaches: Vec<Breach> = Vec::new();
        for (check, lines) in self.lines {
            let invariant = check.invariant();
            let reported = breaches.iter().filter(|breach| breach.invariant == invariant).count();
            breaches.extend(lines.into_iter().take(BREACHES_MAX - reported).map(|detail| Breach { invariant, detail }));
        }
        let counted = vec![
            ("accounts", self.accounts),
            ("entries", self.entries),
            ("seats", self.seats),
            ("reservations", self.reservations),
            ("payments", self.payments),
            ("replies", replies),
        ];
        AuditReport { breaches, counted, overdue_holds: self.overdue_holds }
    }
}
