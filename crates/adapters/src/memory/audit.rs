//! The audit over these tables, under one hold of the mutex. The invariants are [`boxoffice_domain::audit`]'s.
//!
//! Each pass is a list of rows that is sorted: the tables are in memory as well.

use async_trait::async_trait;
use boxoffice_domain::audit::{
    OfDate, OfEntry, OfPayment, OfReservation, OfUser, PaidFor, PaymentMade, Refunded, ReservationMade, Row, SeatNaming,
};
use boxoffice_domain::{DateId, Payment, PaymentId, Reservation, ReservationId, SeatKey, SeatState, UserId};
use boxoffice_ports::{Audit, AuditReport, StoreError};
use uuid::Uuid;

use super::MemoryStore;
use super::tables::Tables;

#[async_trait]
impl Audit for MemoryStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let (tables, now) = self.tables_now()?;
        let mut audit = boxoffice_domain::audit::Audit::new(now, max_seats_per_user);
        for pass in [by_user, by_payment, by_reservation, by_date, by_entry] {
            let mut rows = pass(&tables);
            // Stable: rows of one key stay in the order in which the pass lists them.
            rows.sort_by_key(|(key, _)| *key);
            rows.into_iter().for_each(|(_, row)| audit.take(row));
        }
        Ok(audit.finish(tables.replies.len() as u64))
    }
}

type Keyed = (Uuid, Row);

fn by_user(tables: &Tables) -> Vec<Keyed> {
    let row = |(user, row): (UserId, _)| (user.0, Row::OfUser(user, row));
    let accounts = tables.accounts.iter().map(|(user, row)| (*user, OfUser::Account(row.value.clone())));
    let entries = tables.entries.values().flatten();
    let entries = entries.map(|of| (of.user, OfUser::Entry { seq: of.seq, kind: of.kind, amount: of.amount, balance: of.balance }));
    let points = tables.points_entries.values().flatten();
    let points = points.map(|of| (of.user, OfUser::Points { seq: of.seq, kind: of.kind, points: of.points, balance: of.balance }));
    accounts.chain(entries).chain(points).map(row).collect()
}

fn by_payment(tables: &Tables) -> Vec<Keyed> {
    let row = |(payment, row): (PaymentId, _)| (payment.0, Row::OfPayment(payment, row));
    let payments = tables.payments.values().map(|row| (row.value.id, OfPayment::Payment(payment_made(&row.value))));
    let entries = tables.entries.values().flatten();
    let entries = entries.filter_map(|of| Some((of.payment?, OfPayment::Entry { user: of.user, kind: of.kind, amount: of.amount })));
    let points = tables.points_entries.values().flatten();
    let points = points.map(|of| (of.payment, OfPayment::Points { user: of.user, kind: of.kind, points: of.points }));
    let rows = payments.chain(entries).chain(points).map(row);
    rows.chain(claims(tables, |row| if let Row::OfPayment(id, _) = row { Some(id.0) } else { None })).collect()
}

fn by_reservation(tables: &Tables) -> Vec<Keyed> {
    let row = |(reservation, row): (ReservationId, _)| (reservation.0, Row::OfReservation(reservation, row));
    let reservations = tables.reservations.values().map(|row| (row.value.id, OfReservation::Reservation(reservation_made(&row.value))));
    let payments = tables.payments.values().map(|row| (row.value.reservation, OfReservation::Payment(paid_for(&row.value, tables))));
    let seats = seats(tables).filter_map(|(seat, state)| {
        let held_until = if let SeatState::Held { until, .. } = state { Some(until) } else { None };
        Some((state.reservation()?, OfReservation::Seat(SeatNaming { seat, held_until })))
    });
    let rows = reservations.chain(payments).chain(seats).map(row);
    rows.chain(claims(tables, |row| if let Row::OfReservation(id, _) = row { Some(id.0) } else { None })).collect()
}

fn by_date(tables: &Tables) -> Vec<Keyed> {
    let row = |(date, row): (DateId, _)| (date.0, Row::OfDate(date, row));
    // How many seats a date should have is not kept here apart from the seats.
    let dates = tables.dates.keys().map(|date| {
        let seats_total = tables.seats.get(date).map_or(0, |seats| seats.len() as u64);
        (*date, OfDate::Date { seats_total })
    });
    let seats = seats(tables).map(|(seat, state)| (seat.date, OfDate::Seat(state)));
    let mut reservations: Vec<_> = tables.reservations.values().map(|row| &row.value).collect();
    reservations.sort_by_key(|of| of.user);
    let reservations = reservations.into_iter().map(|of| {
        let (user, status, expires_at, seat_count) = (of.user, of.status, of.expires_at, of.seats.len() as u32);
        (of.date.id, OfDate::Reservation { user, status, expires_at, seat_count })
    });
    dates.chain(seats).chain(reservations).map(row).collect()
}

fn by_entry(tables: &Tables) -> Vec<Keyed> {
    let entries = tables.entries.values().flatten();
    let entries = entries.map(|of| (of.id.0, Row::OfEntry(of.id, OfEntry::Entry { user: of.user, seq: of.seq, amount: of.amount })));
    let mut rows: Vec<_> = entries.chain(claims(tables, |row| if let Row::OfEntry(id, _) = row { Some(id.0) } else { None })).collect();
    rows.sort_by_key(|(_, row)| match row {
        Row::OfEntry(_, OfEntry::Entry { user, seq, .. }) => (Some(*user), Some(*seq), false),
        Row::OfEntry(_, OfEntry::Claim { user, seq, .. }) => (*user, *seq, true),
        _ => (None, None, false),
    });
    rows
}

/// What replies of success claim, where the pass has a key for it.
fn claims(tables: &Tables, key: impl Fn(&Row) -> Option<Uuid>) -> impl Iterator<Item = Keyed> {
    tables.replies.iter().filter_map(move |(by, reply)| {
        let row = Row::claim(by.user, by.command, reply.result.as_ref().ok()?);
        Some((key(&row)?, row))
    })
}

fn seats(tables: &Tables) -> impl Iterator<Item = (SeatKey, SeatState)> {
    let of_date = tables.seats.iter();
    of_date.flat_map(|(date, seats)| seats.iter().map(|(number, row)| (SeatKey { date: *date, number: *number }, row.value.state)))
}

fn payment_made(payment: &Payment) -> PaymentMade {
    let Payment { user, reservation, amount, points_spent, points_granted, .. } = *payment;
    let refund = payment.refund.as_ref().map(|refund| Refunded {
        amount: refund.amount,
        points_restored: refund.points_restored,
        points_taken_back: refund.points_taken_back,
    });
    PaymentMade { user, reservation, amount, points_spent, points_granted, refund }
}

fn reservation_made(of: &Reservation) -> ReservationMade {
    ReservationMade {
        user: of.user,
        concert: of.concert.id,
        date: of.date.id,
        status: of.status,
        expires_at: of.expires_at,
        payment: of.payment,
        seat_count: of.seats.len() as u32,
        seats: of.seats.iter().map(|seat| seat.number).collect(),
        held_for: of.seats.iter().map(|seat| (seat.number, seat.price)).collect(),
    }
}

fn paid_for(payment: &Payment, tables: &Tables) -> PaidFor {
    let Payment { id, user, amount, points_spent, .. } = *payment;
    // A payment keeps no concert here: it is its reservation's.
    let concert = tables.reservations.get(&payment.reservation).map_or(Uuid::nil().into(), |row| row.value.concert.id);
    PaidFor { payment: id, user, concert, amount, points_spent, refunded: payment.refund.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use boxoffice_domain::SeatNumber;
    use boxoffice_ports::contract::Fixture;
    use boxoffice_ports::contract::build::{fresh, user};
    use boxoffice_ports::contract::shop::Shop;
    use std::sync::Arc;

    /// The invariants that are broken after `harm` in a shop whose user bought seat 1 and holds seat 2.
    async fn breaches_after(harm: impl FnOnce(&mut Tables, UserId, SeatKey)) -> Vec<&'static str> {
        const SOLD: SeatNumber = 1;
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        let advance = Arc::new(move |by| clock.advance(by));
        let shop = Shop::open(Fixture { stores: store.stores(), advance, keep: Box::new(()) }).await;
        let ann = user();
        shop.buy(ann, &[SOLD]).await;
        shop.hold(ann, &[2]).await;
        shop.close().await;
        harm(&mut store.tables().unwrap(), ann, SeatKey { date: shop.date, number: SOLD });
        let report = store.audit(4).await.unwrap();
        let mut invariants: Vec<_> = report.breaches.iter().map(|breach| breach.invariant).collect();
        invariants.dedup();
        invariants
    }

    #[tokio::test]
    async fn audit_finds_each_kind_of_harm() {
        let freed = breaches_after(|tables, _, key| {
            tables.seats.get_mut(&key.date).unwrap().get_mut(&key.number).unwrap().value.state = SeatState::Available;
        });
        assert_eq!(freed.await, ["I1", "I6"]);
        let stolen = breaches_after(|tables, _, key| {
            let state = SeatState::Sold { reservation: fresh() };
            tables.seats.get_mut(&key.date).unwrap().get_mut(&3).unwrap().value.state = state;
        });
        assert_eq!(stolen.await, ["I1", "I6"]);
        let richer = breaches_after(|tables, ann, _| tables.accounts.get_mut(&ann).unwrap().value.balance += 1);
        assert_eq!(richer.await, ["I2"]);
        let lost = breaches_after(|tables, ann, _| drop(tables.points_entries.remove(&ann)));
        assert_eq!(lost.await, ["I9"]);
        let cheaper = breaches_after(|tables, _, _| tables.payments.values_mut().for_each(|row| row.value.points_spent += 1));
        assert_eq!(cheaper.await, ["I9", "I11"]);
        let undone = breaches_after(|tables, ann, _| {
            let entries = tables.entries.get_mut(&ann).unwrap();
            entries[0].id = fresh();
        });
        assert_eq!(undone.await, ["I3"]);
        let homeless = breaches_after(|tables, _, key| drop(tables.dates.remove(&key.date)));
        assert_eq!(homeless.await, ["I6"]);
    }

    #[tokio::test]
    async fn audit_counts_seats_against_the_limit_it_is_told() {
        let clock = Arc::new(SystemClock::default());
        let store = MemoryStore::new(clock.clone());
        let shop = Shop::open(Fixture { stores: store.stores(), advance: Arc::new(|_| {}), keep: Box::new(()) }).await;
        shop.hold(user(), &[1, 2, 3]).await;
        assert!(store.audit(3).await.unwrap().breaches.is_empty());
        assert_eq!(store.audit(2).await.unwrap().breaches[0].invariant, "I10");
    }
}
