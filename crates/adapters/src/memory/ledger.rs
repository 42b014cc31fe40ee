//! The ledger in memory: load, decide, write.
//!
//! Under [`Guard::RowLock`] the mutex is held from the load to the write: one batch after the other. Under
//! [`Guard::Version`] it is released while the batch is decided and locked again for the write. Before anything is
//! written, the version of every changed row is compared, and replies stored meanwhile are found: conflicts are real.

use async_trait::async_trait;
use boxoffice_domain::batch::{LiveHold, Occupied};
use boxoffice_domain::{
    Batch, IdempotencyKey, Reply, ReservationStatus, Roots, SeatChange, SeatKey, Timestamp, Tracked, WorkingSet, decide_batch,
};
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, OutboxRow, StoreError, StoredAnswer};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::MemoryStore;
use super::tables::{Row, Tables};

#[async_trait]
impl Ledger for MemoryStore {
    async fn transact(&self, batch: Batch, guard: Guard, _: Deadline) -> Result<Committed, LedgerError> {
        let (mut tables, now) = self.tables_now().map_err(broken)?;
        let mut set = load(&tables, &batch, now);
        if guard == Guard::Version {
            drop(tables);
            let replies = decide_batch(&mut set, &batch);
            let mut tables = self.tables().map_err(broken)?;
            return commit(&mut tables, set, replies);
        }
        let replies = decide_batch(&mut set, &batch);
        commit(&mut tables, set, replies)
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        let (tables, now) = self.tables_now().map_err(broken)?;
        let live = tables.replies.get(&key).filter(|stored| stored.is_live(now));
        Ok(live.map(|stored| StoredAnswer { fingerprint: stored.fingerprint, reply: stored.replay() }))
    }
}

fn broken(error: StoreError) -> LedgerError {
    LedgerError::Unavailable(error.into())
}

/// The rows that a batch's roots name, and the rows that hang on them.
fn load(tables: &Tables, batch: &Batch, now: Timestamp) -> WorkingSet {
    let mut roots = Roots::of(&batch.requests);
    let mut set = WorkingSet::new(now);
    set.payments = pick(&tables.payments, &roots.payments);
    roots.reservations.extend(set.payments.values().map(|row| row.value.reservation));
    set.reservations = pick(&tables.reservations, &roots.reservations);
    for row in set.reservations.values() {
        roots.seats.extend(row.value.seat_keys());
        roots.dates.insert(row.value.date.id);
    }
    let seat = |key: &SeatKey| tables.seat(*key).map(|row| (*key, tracked(row)));
    set.seats = roots.seats.iter().filter_map(seat).collect();
    set.accounts = pick(&tables.accounts, &roots.accounts);
    set.replies = roots.replies.iter().filter_map(|key| tables.replies.get(key).map(|reply| (*key, reply.clone()))).collect();
    set.dates = roots.dates.iter().filter_map(|id| tables.dates.get(id).map(|date| (*id, Arc::clone(&date.terms)))).collect();
    for &(user, date) in &roots.occupied {
        let of_date = tables.reservations_of(user).filter(|reservation| reservation.date.id == date && reservation.occupies_at(now));
        let occupied = of_date.map(|reservation| {
            let live_until = (reservation.status == ReservationStatus::Held).then_some(reservation.expires_at);
            (reservation.id, Occupied { seats: reservation.seats.len() as u32, live_until })
        });
        set.occupied.insert((user, date), occupied.collect());
    }
    for &user in &roots.payers {
        let held = tables.reservations_of(user).filter(|reservation| reservation.status == ReservationStatus::Held);
        let holds = held.map(|hold| (hold.id, LiveHold { concert: hold.concert.id, until: hold.expires_at }));
        set.holds.insert(user, holds.collect());
    }
    set
}

fn tracked<T: Clone>(row: &Row<T>) -> Tracked<T> {
    Tracked::read(row.value.clone(), row.version)
}

fn pick<'a, K: Copy + Eq + Hash + 'a, T: Clone>(
    rows: &HashMap<K, Row<T>>,
    keys: impl IntoIterator<Item = &'a K>,
) -> HashMap<K, Tracked<T>> {
    keys.into_iter().filter_map(|key| rows.get(key).map(|row| (*key, tracked(row)))).collect()
}

/// Checks every row before the first is written: all of the batch is written, or nothing.
fn commit(tables: &mut Tables, set: WorkingSet, replies: Vec<Reply>) -> Result<Committed, LedgerError> {
    let unmoved = is_unmoved(&set.accounts, |key| tables.accounts.get(key).map(|row| row.version))
        && is_unmoved(&set.seats, |key| tables.seat(*key).map(|row| row.version))
        && is_unmoved(&set.reservations, |key| tables.reservations.get(key).map(|row| row.version))
        && is_unmoved(&set.payments, |key| tables.payments.get(key).map(|row| row.version));
    let answered = |key| tables.replies.get(key).is_some_and(|reply| reply.is_live(set.now));
    if !unmoved || set.written.replies.iter().any(answered) {
        return Err(LedgerError::Conflict);
    }
    let seats = write(tables, set);
    Ok(Committed { replies, seats })
}

/// Whether every row to be written still has the version it was read at (none, for a new one).
fn is_unmoved<K, T>(rows: &HashMap<K, Tracked<T>>, version: impl Fn(&K) -> Option<i64>) -> bool {
    rows.iter().filter(|(_, row)| row.dirty).all(|(key, row)| version(key) == row.version)
}

fn write(tables: &mut Tables, mut set: WorkingSet) -> Vec<SeatChange> {
    let changes = set.seat_changes();
    for (user, row) in set.accounts.into_iter().filter(|(_, row)| row.dirty) {
        let version = row.next_version();
        tables.accounts.insert(user, Row { value: row.value, version });
    }
    for row in set.seats.into_values().filter(|row| row.dirty) {
        let version = row.next_version();
        tables.put_seat(row.value, version);
    }
    for row in set.reservations.into_values().filter(|row| row.dirty) {
        let version = row.next_version();
        tables.put_reservation(row.value, version);
    }
    for row in set.payments.into_values().filter(|row| row.dirty) {
        let version = row.next_version();
        tables.put_payment(row.value, version);
    }
    for entry in set.written.entries {
        tables.entries.entry(entry.user).or_default().push(entry);
    }
    for entry in set.written.points_entries {
        tables.points_entries.entry(entry.user).or_default().push(entry);
    }
    for key in set.written.replies {
        if let Some(reply) = set.replies.remove(&key) {
            tables.put_reply(key, reply);
        }
    }
    for event in set.written.events {
        tables.outbox_last += 1;
        let (shard, id) = (event.shard(), tables.outbox_last);
        tables.outbox.insert((shard, id), OutboxRow { shard, id, event, occurred_at: set.now });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tables::DateRecord;
    use boxoffice_domain::{ConcertRef, DateId, DateRef, DateTerms, Decision, Policy, Request, ReservationId, Seat, SeatState};
    use boxoffice_ports::contract::build;
    use chrono::{DateTime, TimeDelta};

    fn batch(requests: Vec<Request>) -> Batch {
        let policy: Policy = build::policy();
        Batch::new(requests, Arc::new(policy))
    }

    fn now() -> Timestamp {
        DateTime::UNIX_EPOCH + TimeDelta::days(1)
    }

    /// Loads and decides a batch, to be committed later.
    fn decided(tables: &Tables, request: &Request) -> (WorkingSet, Vec<Reply>) {
        let batch = batch(vec![request.clone()]);
        let mut set = load(tables, &batch, now());
        let replies = decide_batch(&mut set, &batch);
        (set, replies)
    }

    /// Both load before either commits. The second must conflict, and must succeed after loading again.
    fn assert_conflict(tables: &mut Tables, first: &Request, second: &Request) {
        let (one, one_replies) = decided(tables, first);
        let (other, other_replies) = decided(tables, second);
        commit(tables, one, one_replies).unwrap();
        let outbox = tables.outbox.len();
        assert!(matches!(commit(tables, other, other_replies), Err(LedgerError::Conflict)), "{second:?}");
        assert_eq!(tables.outbox.len(), outbox, "nothing was written");
        let (again, replies) = decided(tables, second);
        commit(tables, again, replies).unwrap();
    }

    #[test]
    fn the_version_guard_finds_a_changed_row() {
        let mut tables = Tables::default();
        let ann = build::user();
        assert_conflict(&mut tables, &build::charge(ann, "a", 1), &build::charge(ann, "b", 2));
        assert_conflict(&mut tables, &build::charge(ann, "c", 4), &build::spend(ann, "d", 3));
        assert_eq!(tables.accounts[&ann].value.balance, 4);
    }

    /// Tables with one date on sale, with four seats.
    fn on_sale() -> (Tables, DateId) {
        let (mut tables, date) = (Tables::default(), build::fresh());
        let concert = ConcertRef { id: build::fresh(), name: "N".into(), venue: "V".into() };
        let starts_at = now() + TimeDelta::days(1);
        let terms = DateTerms {
            concert,
            date: DateRef { id: date, starts_at, ends_at: None },
            booking_opens_at: DateTime::UNIX_EPOCH,
            booking_closes_at: starts_at,
            refund_closes_at: starts_at,
        };
        let record = DateRecord { key: "d".to_owned(), terms: Arc::new(terms), price_min: 1, price_max: 1, seats_version: 1 };
        tables.dates.insert(date, record);
        for number in 1..=4 {
            let key = SeatKey { date, number };
            tables.put_seat(Seat { key, section: None, row: None, grade: "R".into(), price: 1, state: SeatState::Available }, 1);
        }
        (tables, date)
    }

    #[test]
    fn the_version_guard_finds_a_seat_that_another_hold_took() {
        let (mut tables, date) = on_sale();
        assert_conflict(&mut tables, &build::hold(build::user(), "h", date, &[1, 2]), &build::hold(build::user(), "h", date, &[2, 3]));
    }

    #[test]
    fn the_version_guard_finds_another_hold_or_extension_of_the_same_user() {
        let (mut tables, date) = on_sale();
        let ann = build::user();
        let first = build::hold(ann, "a", date, &[1]);
        assert_conflict(&mut tables, &first, &build::hold(ann, "b", date, &[2]));
        let extend = build::extend(ann, "e", first.fresh.subject.into());
        assert_conflict(&mut tables, &extend, &build::hold(ann, "c", date, &[3]));
    }

    #[test]
    fn the_version_guard_finds_a_reservation_that_has_ended() {
        let (mut tables, date) = on_sale();
        let held = build::hold(build::user(), "h", date, &[1]);
        let (set, replies) = decided(&tables, &held);
        commit(&mut tables, set, replies).unwrap();
        // Another hold took its seat over, so only its own row is left to sweep.
        let id = ReservationId(held.fresh.subject);
        let mut seat = tables.seat(SeatKey { date, number: 1 }).unwrap().value.clone();
        seat.state = SeatState::Available;
        tables.put_seat(seat, 3);
        let mut reservation = tables.reservations[&id].value.clone();
        reservation.expires_at = now();
        tables.put_reservation(reservation, 2);
        assert_conflict(&mut tables, &build::expire(id), &build::expire(id));
        assert_eq!(tables.reservations[&id].version, 3);
    }

    #[test]
    fn the_version_guard_finds_a_reply_to_the_same_command() {
        let mut tables = Tables::default();
        let ann = build::user();
        // A refusal changes no row: only its reply is found.
        let poor = build::spend(ann, "u", 5);
        assert_conflict(&mut tables, &poor, &build::again(&poor));
        let (_, replies) = decided(&tables, &poor);
        assert!(replies[0].replayed && matches!(replies[0].decision, Decision::Refused(_)));
    }

    #[test]
    fn the_version_guard_ignores_unrelated_rows() {
        let mut tables = Tables::default();
        let (one, one_replies) = decided(&tables, &build::charge(build::user(), "a", 1));
        let (other, other_replies) = decided(&tables, &build::charge(build::user(), "a", 1));
        commit(&mut tables, one, one_replies).unwrap();
        commit(&mut tables, other, other_replies).unwrap();
        assert_eq!(tables.accounts.len(), 2);
    }
}
