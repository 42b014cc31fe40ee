//! The invariants of the design, looked for row by row under one hold of the mutex.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use boxoffice_domain::{
    Account, Entry, EntryKind, Outcome, Payment, PointsEntry, PointsKind, Reservation, ReservationStatus, SeatKey, SeatState, Timestamp,
};
use boxoffice_ports::{Audit, AuditReport, BREACHES_MAX, Breach, StoreError};
use uuid::Uuid;

use super::MemoryStore;
use super::tables::Tables;

#[async_trait]
impl Audit for MemoryStore {
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError> {
        let (tables, now) = self.tables_now()?;
        let mut found = Found::default();
        seats(&tables, &mut found);
        reservations(&tables, now, max_seats_per_user, &mut found);
        payments(&tables, &mut found);
        accounts(&tables, &mut found);
        replies(&tables, &mut found);
        let total = |lengths: usize| lengths as u64;
        Ok(AuditReport {
            breaches: found.breaches,
            counted: vec![
                ("accounts", total(tables.accounts.len())),
                ("entries", total(tables.entries.values().map(Vec::len).sum())),
                ("seats", total(tables.seats.values().map(|seats| seats.len()).sum())),
                ("reservations", total(tables.reservations.len())),
                ("payments", total(tables.payments.len())),
                ("replies", total(tables.replies.len())),
            ],
            overdue_holds: tables.held.iter().take_while(|(until, _)| *until <= now).count() as u64,
        })
    }
}

#[derive(Default)]
struct Found {
    breaches: Vec<Breach>,
    counts: HashMap<&'static str, usize>,
}

impl Found {
    /// Notes a breach, up to the bound for each invariant.
    fn check(&mut self, holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= BREACHES_MAX {
            self.breaches.push(Breach { invariant, detail: detail() });
        }
    }
}

/// I1 from the seats' side, and I6.
fn seats(tables: &Tables, found: &mut Found) {
    for seats in tables.seats.values() {
        for (number, row) in seats {
            let (key, state) = (row.value.key, row.value.state);
            let Some(id) = state.reservation() else { continue };
            let named = tables.reservations.get(&id).map(|row| &row.value);
            let agrees = named.is_some_and(|reservation| {
                let status = match state {
                    SeatState::Held { until, .. } => reservation.status == ReservationStatus::Held && reservation.expires_at == until,
                    _ => reservation.status == ReservationStatus::Confirmed,
                };
                status && reservation.seat_keys().any(|own| own == key)
            });
            found.check(agrees, "I1", || format!("seat {number} of date {} names reservation {id}, which disagrees", key.date));
        }
    }
    for id in tables.dates.keys() {
        let Some(seats) = tables.seats.get(id) else { continue };
        let whole = seats.iter().all(|(number, row)| row.value.key == SeatKey { date: *id, number: *number });
        found.check(whole, "I6", || format!("date {id} has a seat under another's number"));
    }
    for id in tables.seats.keys() {
        found.check(tables.dates.contains_key(id), "I6", || format!("there are seats of date {id}, which does not exist"));
    }
}

/// I1 from the reservations' side, and I10.
fn reservations(tables: &Tables, now: Timestamp, limit: u32, found: &mut Found) {
    let mut occupied = HashMap::new();
    for row in tables.reservations.values() {
        let reservation = &row.value;
        let id = reservation.id;
        if !reservation.occupies_at(now) {
            continue;
        }
        *occupied.entry((reservation.user, reservation.date.id)).or_insert(0u32) += reservation.seats.len() as u32;
        let named = |key| tables.seat(key).is_some_and(|seat| seat.value.state.reservation() == Some(id));
        found.check(reservation.seat_keys().all(named), "I1", || format!("reservation {id} is not named by all of its seats"));
    }
    for ((user, date), seats) in occupied {
        found.check(seats <= limit, "I10", || format!("user {user} has {seats} seats of date {date}"));
    }
}

/// I1 and I11 by payment, and what journals must say of each (I2, I9).
fn payments(tables: &Tables, found: &mut Found) {
    let mut paid = HashSet::new();
    for row in tables.payments.values() {
        let payment = &row.value;
        let id = payment.id;
        found.check(paid.insert(payment.reservation), "I1", || format!("reservation {} has two payments", payment.reservation));
        let reservation = tables.reservations.get(&payment.reservation).map(|row| &row.value);
        let status = if payment.refund.is_some() { ReservationStatus::Cancelled } else { ReservationStatus::Confirmed };
        let agrees = |of: &Reservation| of.payment == Some(id) && of.user == payment.user && of.status == status;
        found.check(reservation.is_some_and(agrees), "I1", || format!("payment {id} and its reservation disagree"));
        let total = reservation.map(Reservation::total);
        let sum = payment.amount + payment.points_spent;
        found.check(total == Some(sum), "I11", || format!("payment {id} took {sum} in money and points, for {total:?}"));
        journals(tables, payment, found);
    }
    for row in tables.reservations.values() {
        let bought = matches!(row.value.status, ReservationStatus::Confirmed | ReservationStatus::Cancelled);
        let has = paid.contains(&row.value.id);
        found.check(bought == has, "I1", || format!("reservation {} is {:?}, paid: {has}", row.value.id, row.value.status));
    }
}

fn journals(tables: &Tables, payment: &Payment, found: &mut Found) {
    let id = payment.id;
    let of_payment = |entry: &&Entry| entry.payment == Some(id);
    let entries: Vec<_> = tables.entries.get(&payment.user).into_iter().flatten().filter(of_payment).collect();
    let money = |kind, sign: i64| sign * entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.amount).sum::<i64>();
    let refunded = payment.refund.as_ref().map_or(0, |refund| refund.amount);
    let agrees = money(EntryKind::Payment, -1) == payment.amount && money(EntryKind::Refund, 1) == refunded && entries.len() <= 2;
    found.check(agrees, "I2", || format!("the wallet's journal disagrees with payment {id}"));

    let lines: Vec<_> = tables.points_entries.get(&payment.user).into_iter().flatten().filter(|line| line.payment == id).collect();
    let points = |kind, sign: i64| {
        let of_kind = lines.iter().filter(|line| line.kind == kind);
        (of_kind.clone().count() <= 1).then(|| sign * of_kind.map(|line| line.points).sum::<i64>())
    };
    let (restored, taken) = payment.refund.as_ref().map_or((0, 0), |refund| (refund.points_restored, refund.points_taken_back));
    let agrees = points(PointsKind::Grant, 1) == Some(payment.points_granted)
        && points(PointsKind::Spend, -1) == Some(payment.points_spent)
        && points(PointsKind::Restore, 1) == Some(restored)
        && points(PointsKind::TakeBack, -1) == Some(taken);
    found.check(agrees, "I9", || format!("the points' journal disagrees with payment {id}"));
}

/// I2 and I9 by account.
fn accounts(tables: &Tables, found: &mut Found) {
    for (user, row) in &tables.accounts {
        let account = &row.value;
        let entries = tables.entries.get(user).map_or(&[][..], Vec::as_slice);
        found.check(wallet_adds_up(account, entries), "I2", || format!("the wallet of user {user} is not the sum of its entries"));
        let lines = tables.points_entries.get(user).map_or(&[][..], Vec::as_slice);
        found.check(points_add_up(account, lines), "I9", || format!("the points of user {user} are not the sum of their entries"));
    }
    for user in tables.entries.keys().chain(tables.points_entries.keys()) {
        found.check(tables.accounts.contains_key(user), "I2", || format!("user {user} has entries and no account"));
    }
}

fn wallet_adds_up(account: &Account, entries: &[Entry]) -> bool {
    let mut balance = 0;
    let lines = entries.iter().zip(1..).all(|(entry, seq)| {
        balance += entry.amount;
        let signed = match entry.kind {
            EntryKind::Charge | EntryKind::Refund => entry.amount > 0,
            EntryKind::Use | EntryKind::Payment => entry.amount < 0,
        };
        signed && entry.seq == seq && entry.balance == balance && balance >= 0
    });
    lines && account.balance == balance && account.entries == entries.len() as i64
}

fn points_add_up(account: &Account, lines: &[PointsEntry]) -> bool {
    let mut points = 0;
    let all = lines.iter().zip(1..).all(|(line, seq)| {
        points += line.points;
        let signed = match line.kind {
            PointsKind::Grant | PointsKind::Restore => line.points > 0,
            PointsKind::Spend | PointsKind::TakeBack => line.points < 0,
        };
        signed && line.seq == seq && line.balance == points && points >= 0
    });
    all && account.points == points && account.points_entries == lines.len() as i64
}

/// I3: every effect that a reply claims is there, and no two replies claim the same.
fn replies(tables: &Tables, found: &mut Found) {
    let mut claimed: HashSet<(&str, Uuid)> = HashSet::new();
    let entries: HashSet<Uuid> = tables.entries.values().flatten().map(|entry| entry.id.0).collect();
    for (key, reply) in &tables.replies {
        let Ok(outcome) = &reply.result else { continue };
        let (what, id, there) = match outcome {
            Outcome::Entered { entry } => ("entry", entry.id.0, entries.contains(&entry.id.0)),
            Outcome::Held { reservation, .. } => ("hold", reservation.id.0, tables.reservations.contains_key(&reservation.id)),
            Outcome::Paid { payment, .. } => ("payment", payment.id.0, tables.payments.contains_key(&payment.id)),
            Outcome::Refunded { payment, .. } => {
                let stored = tables.payments.get(&payment.id);
                ("refund", payment.id.0, stored.is_some_and(|row| row.value.refund == payment.refund))
            }
            // These may be asked for again, and say where a reservation stood.
            Outcome::Extended { .. } | Outcome::Released { .. } | Outcome::Expired { .. } => continue,
        };
        found.check(there, "I3", || format!("command {} of user {} claims {what} {id}, which is not there", key.command, key.user));
        found.check(claimed.insert((what, id)), "I3", || format!("{what} {id} is claimed by two commands"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use boxoffice_domain::{SeatNumber, UserId};
    use boxoffice_ports::contract::Fixture;
    use boxoffice_ports::contract::build::{fresh, user};
    use boxoffice_ports::contract::shop::Shop;
    use std::sync::Arc;

    /// A shop where one bought seat 1 and holds seat 2, and what an audit says after `harm` was done to its rows.
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
        assert_eq!(freed.await, ["I1"]);
        let stolen = breaches_after(|tables, _, key| {
            let state = SeatState::Sold { reservation: fresh() };
            tables.seats.get_mut(&key.date).unwrap().get_mut(&3).unwrap().value.state = state;
        });
        assert_eq!(stolen.await, ["I1"]);
        let richer = breaches_after(|tables, ann, _| tables.accounts.get_mut(&ann).unwrap().value.balance += 1);
        assert_eq!(richer.await, ["I2"]);
        let lost = breaches_after(|tables, ann, _| drop(tables.points_entries.remove(&ann)));
        assert_eq!(lost.await, ["I9"]);
        let cheaper = breaches_after(|tables, _, _| tables.payments.values_mut().for_each(|row| row.value.points_spent += 1));
        assert_eq!(cheaper.await, ["I11", "I9"]);
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
