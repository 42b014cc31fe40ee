//! The order in which rows are locked, and its use by two instances under both guards.

use super::support::{Place, transact};
use boxoffice_domain::{DateId, PaymentId, Request, ReservationId, SeatNumber, UserId};
use boxoffice_ports::contract::build::{charge, extend, fresh_ids, hold, pay, refund, release_by_system, spend, user};
use boxoffice_ports::{Guard, LedgerError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether the row is locked, found out without waiting.
async fn is_locked(place: &Place, row: &str) -> bool {
    place.texts(&format!("SELECT 'free' FROM {row} FOR NO KEY UPDATE SKIP LOCKED")).await.is_empty()
}

/// A batch that waits for a locked row has locked all rows before it, by class and then by key, and none after it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_locked_by_class_and_then_by_key() {
    let place = Place::new();
    let store = place.open().await;
    let date = place.date(10).await;
    let mut users = [user(), user()];
    users.sort_unstable();
    let [ann, bob] = users;
    let (first, second) = (hold(ann, "1", date, &[5]), hold(ann, "2", date, &[3]));
    let (paid, held) = (first.fresh.subject, second.fresh.subject);
    let payment = pay(ann, "p", paid.into(), 0);
    let paid_by = payment.fresh.subject;
    let before = vec![charge(ann, "c", 1_000), charge(bob, "c", 1_000), first, second, payment];
    transact(&store, before, Guard::RowLock).await.expect("committed");
    // The refund adds its reservation and seat 5, the extension adds seat 3.
    let requests = vec![hold(bob, "3", date, &[4]), refund(ann, "r", paid_by.into()), extend(ann, "e", held.into())];
    let seat = |number: u32| format!("seats WHERE date_id = '{date}' AND number = {number}");
    let mut reservations = [paid, held];
    reservations.sort_unstable();
    let order = [
        format!("payments WHERE id = '{paid_by}'"),
        format!("reservations WHERE id = '{}'", reservations[0]),
        format!("reservations WHERE id = '{}'", reservations[1]),
        seat(3),
        seat(4),
        seat(5),
        format!("accounts WHERE user_id = '{ann}'"),
        format!("accounts WHERE user_id = '{bob}'"),
    ];
    for (at, row) in order.iter().enumerate() {
        let outside = place.outside().await;
        outside.batch_execute(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")).await.expect("a lock");
        let caller = tokio::spawn({
            let (store, requests) = (store.clone(), requests.clone());
            async move { transact(&store, requests, Guard::RowLock).await }
        });
        place.until_blocked(1).await;
        for (other, row) in order.iter().enumerate() {
            assert_eq!(is_locked(&place, row).await, other <= at, "{row} while waiting for {}", order[at]);
        }
        // It gives up after its lock time-out, and its own rows are free again.
        let outcome = caller.await.expect("a result");
        assert!(matches!(outcome, Err(LedgerError::LockTimeout)), "{outcome:?}");
        outside.batch_execute("ROLLBACK").await.expect("unlocked");
        for row in &order {
            assert!(!is_locked(&place, row).await, "{row}");
        }
    }
    transact(&store, requests, Guard::RowLock).await.expect("committed");
}

const SEATS: SeatNumber = 12;
const USERS: usize = 6;
const ROUNDS: u32 = 12;
const CALLERS: u32 = 6;

/// Pseudo-random small numbers, the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A batch of all kinds of commands, over few rows, in random order.
fn mixed(draw: &mut Draw, users: &[UserId], date: DateId, key: &AtomicU32) -> Vec<Request> {
    (0..10)
        .map(|_| {
            let user = users[draw.below(users.len())];
            let key = key.fetch_add(1, Ordering::Relaxed).to_string();
            let seat = |draw: &mut Draw| draw.below(SEATS as usize) as SeatNumber + 1;
            let unknown: ReservationId = fresh_ids().subject.into();
            match draw.below(8) {
                0 | 1 => charge(user, &key, 500),
                2 => spend(user, &key, 1),
                3 | 4 => hold(user, &key, date, &[seat(draw)]),
                5 => pay(user, &key, unknown, 0),
                6 => refund(user, &key, PaymentId(unknown.0)),
                _ => release_by_system(unknown),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_under_both_guards_never_deadlock() {
    let place = Place::new();
    let stores = [place.open().await, place.open().await];
    let date = place.date(SEATS).await;
    let users: Arc<[UserId]> = (0..USERS).map(|_| user()).collect();
    let key = Arc::new(AtomicU32::new(0));
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (store, users, key) = (stores[caller as usize % 2].clone(), users.clone(), key.clone());
        let guard = if caller % 3 == 2 { Guard::Version } else { Guard::RowLock };
        callers.push(tokio::spawn(async move {
            let mut draw = Draw(u64::from(caller));
            for _ in 0..ROUNDS {
                let requests = mixed(&mut draw, &users, date, &key);
                // The next batch pays, extends or releases the holds of this one.
                let held: Vec<(UserId, ReservationId)> = requests
                    .iter()
                    .filter(|request| matches!(request.command, boxoffice_domain::Command::HoldSeats { .. }))
                    .filter_map(|request| Some((request.actor.user()?, request.fresh.subject.into())))
                    .collect();
                for (requests, guard) in [(requests, guard), (follow_up(&mut draw, &held, &key), guard)] {
                    committed(&store, requests, guard).await;
                }
            }
        }));
    }
    for caller in callers {
        caller.await.expect("every batch was committed");
    }
    let deadlocks = place.texts("SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()").await;
    assert_eq!(deadlocks, ["0"]);
    assert_eq!(stores[0].stores().audit.audit(10).await.expect("audited").breaches, []);
}

fn follow_up(draw: &mut Draw, held: &[(UserId, ReservationId)], key: &AtomicU32) -> Vec<Request> {
    let mut requests = Vec::new();
    for (user, reservation) in held.iter().rev() {
        let key = key.fetch_add(1, Ordering::Relaxed).to_string();
        match draw.below(3) {
            0 => requests.push(release_by_system(*reservation)),
            1 => requests.push(extend(*user, &key, *reservation)),
            _ => {
                let paid = pay(*user, &key, *reservation, 0);
                requests.push(refund(*user, &format!("{key}r"), paid.fresh.subject.into()));
                requests.insert(0, paid);
            }
        }
    }
    requests
}

/// Runs a batch until it is committed, as executors do.
async fn committed(store: &boxoffice_adapters::postgres::PostgresStore, requests: Vec<Request>, guard: Guard) {
    for _ in 0..1_000 {
        match transact(store, requests.clone(), guard).await {
            Ok(_) => return,
            Err(LedgerError::Conflict | LedgerError::Retryable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a batch was never committed");
}
