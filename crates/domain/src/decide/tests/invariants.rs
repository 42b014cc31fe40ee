//! The invariants of the design as predicates over a [`World`]: what `audit` asks of a store.

use super::world::World;
use crate::{Event, PointsKind, Reservation, ReservationChange, ReservationId, ReservationStatus, SeatKey, SeatState};
use std::collections::{BTreeMap, HashSet};

impl World {
    pub(super) fn assert_invariants(&self) {
        self.assert_seats_name_their_reservation();
        self.assert_wallets_add_up();
        self.assert_points_add_up();
        self.assert_one_effect_per_key();
        self.assert_seats_are_conserved();
        self.assert_limit();
        self.assert_amounts();
        self.assert_events_tell_the_seats();
    }

    /// I1.
    fn assert_seats_name_their_reservation(&self) {
        for seat in self.seats.values() {
            let Some(id) = seat.state.reservation() else { continue };
            let reservation = &self.reservations[&id];
            assert!(reservation.seat_keys().any(|key| key == seat.key), "I1: {:?} names {id}, which has other seats", seat.key);
            match seat.state {
                SeatState::Sold { .. } => assert_eq!(reservation.status, ReservationStatus::Confirmed, "I1: sold {:?}", seat.key),
                SeatState::Held { until, .. } => {
                    assert_eq!((reservation.status, reservation.expires_at), (ReservationStatus::Held, until), "I1: held {:?}", seat.key);
                }
                SeatState::Available => {}
            }
        }
        for reservation in self.reservations.values() {
            if reservation.occupies_at(self.now) {
                let names_it = |key| self.seats[&key].state.reservation() == Some(reservation.id);
                assert!(reservation.seat_keys().all(names_it), "I1: {} is live and lacks a seat", reservation.id);
            }
            let payments: Vec<_> = self.payments.values().filter(|payment| payment.reservation == reservation.id).collect();
            match reservation.status {
                ReservationStatus::Confirmed => {
                    assert!(matches!(payments[..], [payment] if payment.refund.is_none() && Some(payment.id) == reservation.payment));
                }
                ReservationStatus::Cancelled => assert!(matches!(payments[..], [payment] if payment.refund.is_some())),
                _ => assert!(payments.is_empty(), "I1: {} is unpaid and has a payment", reservation.id),
            }
        }
    }

    /// I2.
    fn assert_wallets_add_up(&self) {
        let mut running = BTreeMap::new();
        for entry in &self.entries {
            let (balance, seq) = running.entry(entry.user).or_insert((0, 0));
            *balance += entry.amount;
            *seq += 1;
            assert_eq!((entry.balance, entry.seq), (*balance, *seq), "I2: {entry:?}");
            assert!(*balance >= 0, "I2: below zero");
        }
        for account in self.accounts.values() {
            let (balance, seq) = running.get(&account.user).copied().unwrap_or_default();
            assert_eq!((account.balance, account.entries), (balance, seq), "I2: {}", account.user);
        }
        assert!(running.keys().all(|user| self.accounts.contains_key(user)), "I2: an entry without an account");
    }

    /// I9.
    fn assert_points_add_up(&self) {
        let mut running = BTreeMap::new();
        let (mut grants, mut takings) = (HashSet::new(), HashSet::new());
        for entry in &self.points_entries {
            let (points, seq) = running.entry(entry.user).or_insert((0, 0));
            *points += entry.points;
            *seq += 1;
            assert_eq!((entry.balance, entry.seq), (*points, *seq), "I9: {entry:?}");
            assert!(*points >= 0, "I9: below zero");
            match entry.kind {
                PointsKind::Grant => assert!(grants.insert(entry.payment), "I9: two grants"),
                PointsKind::TakeBack => assert!(takings.insert(entry.payment), "I9: two settlements"),
                PointsKind::Spend | PointsKind::Restore => {}
            }
        }
        for account in self.accounts.values() {
            let (points, seq) = running.get(&account.user).copied().unwrap_or_default();
            assert_eq!((account.points, account.points_entries), (points, seq), "I9: {}", account.user);
        }
    }

    /// I3, as far as the rows show it: nothing was written twice under one id.
    fn assert_one_effect_per_key(&self) {
        let entries: HashSet<_> = self.entries.iter().map(|entry| entry.id).collect();
        assert_eq!(entries.len(), self.entries.len(), "I3: an entry was written twice");
        let points: HashSet<_> = self.points_entries.iter().map(|entry| entry.id).collect();
        assert_eq!(points.len(), self.points_entries.len(), "I3: a points entry was written twice");
    }

    /// I6: what reservations occupy is what the seats state, so that available + live held + sold is the total.
    fn assert_seats_are_conserved(&self) {
        for date in self.dates.keys() {
            let seats = self.seats.values().filter(|seat| seat.key.date == *date);
            let (mut available, mut held, mut sold) = (0, 0, 0);
            for seat in seats {
                match seat.state {
                    SeatState::Sold { .. } => sold += 1,
                    state if state.is_free(self.now) => available += 1,
                    _ => held += 1,
                }
            }
            let of = |status| {
                let theirs = self.reservations.values().filter(|row| row.date.id == *date && row.status_at(self.now) == status);
                theirs.map(|row| row.seats.len()).sum::<usize>()
            };
            assert_eq!((held, sold), (of(ReservationStatus::Held), of(ReservationStatus::Confirmed)), "I6");
            let total = self.seats.keys().filter(|key| key.date == *date).count();
            assert_eq!(available, total - of(ReservationStatus::Held) - of(ReservationStatus::Confirmed), "I6");
        }
    }

    /// I10.
    fn assert_limit(&self) {
        let mut occupied = BTreeMap::new();
        for row in self.reservations.values().filter(|row| row.occupies_at(self.now)) {
            *occupied.entry((row.user, row.date.id)).or_insert(0) += row.seats.len();
        }
        for (whose, seats) in occupied {
            assert!(seats <= self.policy.max_seats_per_user as usize, "I10: {whose:?} has {seats}");
        }
    }

    /// I11.
    fn assert_amounts(&self) {
        for payment in self.payments.values() {
            let total = self.reservations.get(&payment.reservation).map(Reservation::total);
            assert_eq!(total, Some(payment.amount + payment.points_spent), "I11: {}", payment.id);
            assert!(payment.amount >= 0 && payment.points_spent >= 0, "I11: {}", payment.id);
        }
    }

    /// What a consumer makes of each seat's events, in order, is what is in the seat's row (I7's half that is decided
    /// here).
    fn assert_events_tell_the_seats(&self) {
        let mut written: BTreeMap<SeatKey, (ReservationId, bool)> = BTreeMap::new();
        for event in &self.events {
            let Event::Seat { change, date, seat, reservation } = event else { continue };
            let key = SeatKey { date: *date, number: *seat };
            match change {
                ReservationChange::Held => {
                    assert_eq!(written.insert(key, (*reservation, false)), None, "I7: {key:?} was not free");
                }
                ReservationChange::Confirmed => {
                    assert_eq!(written.insert(key, (*reservation, true)), Some((*reservation, false)), "I7: {key:?} was not held by it");
                }
                ReservationChange::Released | ReservationChange::Expired => {
                    assert_eq!(written.remove(&key), Some((*reservation, false)), "I7: {key:?} was not held by it");
                }
                ReservationChange::Cancelled => {
                    assert_eq!(written.remove(&key), Some((*reservation, true)), "I7: {key:?} was not sold by it")
                }
            }
        }
        for seat in self.seats.values() {
            let row = seat.state.reservation().map(|id| (id, matches!(seat.state, SeatState::Sold { .. })));
            assert_eq!(written.get(&seat.key).copied(), row, "I7: {:?}", seat.key);
        }
    }
}
