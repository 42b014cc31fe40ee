//! Rows that another program's transaction keeps locked: the ledger gives up soon, and finds which rows they are.

use super::support::{Place, transact};
use boxoffice_adapters::postgres::PostgresStore;
use boxoffice_domain::{Key, PaymentId, Request, ReservationId, SeatKey};
use boxoffice_ports::contract::build::{charge, extend, hold, pay, refund, release_by_system, user};
use boxoffice_ports::{Guard, Ledger, LedgerError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A store with the lock time-out of a server.
async fn open(place: &Place) -> Arc<PostgresStore> {
    PostgresStore::open(place.options_at(&place.url), place.clock.clone()).await.expect("a store")
}

async fn held(store: &PostgresStore, requests: &[Request]) -> BTreeSet<Key> {
    store.held(requests.to_vec().into()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_row_is_given_up_soon_and_named_with_what_hangs_on_it() {
    let place = Place::new();
    let store = open(&place).await;
    let date = place.date(10).await;
    let (ann, bob) = (user(), user());
    let (kept, sold, other) = (hold(ann, "1", date, &[1]), hold(ann, "2", date, &[2]), hold(bob, "3", date, &[3]));
    let reservation: ReservationId = kept.fresh.subject.into();
    let paid = pay(ann, "p", sold.fresh.subject.into(), 0);
    let payment: PaymentId = paid.fresh.subject.into();
    let others: ReservationId = other.fresh.subject.into();
    let before = vec![charge(ann, "c", 1_000), charge(bob, "c", 1_000), kept, sold, other, paid];
    transact(&store, before, Guard::RowLock).await.expect("committed");
    let requests = vec![
        extend(ann, "e", reservation),
        refund(ann, "r", payment),
        hold(bob, "4", date, &[1, 4]),
        charge(bob, "c2", 1),
        charge(user(), "new", 1),
        release_by_system(others),
    ];
    assert_eq!(held(&store, &requests).await, BTreeSet::new());
    let seat = |number| Key::Seat(SeatKey { date, number });
    let bought = format!("(SELECT reservation_id FROM payments WHERE id = '{payment}')");
    for (row, expected) in [
        (format!("payments WHERE id = '{payment}'"), vec![Key::Payment(payment)]),
        (format!("reservations WHERE id = '{reservation}'"), vec![Key::Reservation(reservation)]),
        (format!("reservations WHERE id = {bought}"), vec![Key::Payment(payment)]),
        (format!("seats WHERE date_id = '{date}' AND number = 1"), vec![Key::Reservation(reservation), seat(1)]),
        (format!("seats WHERE date_id = '{date}' AND number = 2"), vec![Key::Payment(payment)]),
        (format!("seats WHERE date_id = '{date}' AND number = 4"), vec![seat(4)]),
        (format!("accounts WHERE user_id IN ('{ann}', '{bob}')"), vec![Key::Account(ann), Key::Account(bob)]),
    ] {
        let outside = place.outside().await;
        outside.batch_execute(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")).await.expect("a lock");
        let begun = Instant::now();
        let outcome = transact(&store, requests.clone(), Guard::RowLock).await;
        assert!(matches!(outcome, Err(LedgerError::LockTimeout)), "{row}: {outcome:?}");
        println!("given up after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(1), "ten times the time-out");
        assert_eq!(held(&store, &requests).await, expected.into_iter().collect(), "{row}");
        outside.batch_execute("ROLLBACK").await.expect("unlocked");
        assert_eq!(held(&store, &requests).await, BTreeSet::new(), "the search leaves no lock");
    }
    // A lock that prevents no change of a row does not count.
    let outside = place.outside().await;
    outside.batch_execute("BEGIN; SELECT FROM accounts FOR KEY SHARE").await.expect("a lock");
    assert_eq!(held(&store, &requests).await, BTreeSet::new());
    transact(&store, requests, Guard::RowLock).await.expect("committed");
}

/// The search itself waits for no lock of any kind.
#[tokio::test(flavor = "multi_thread")]
async fn looking_for_locked_rows_waits_for_none() {
    let place = Place::new();
    let store = open(&place).await;
    let users: Vec<_> = (0..50).map(|_| user()).collect();
    let charges = |key: &str| users.iter().map(|ann| charge(*ann, key, 1)).collect::<Vec<_>>();
    transact(&store, charges("a"), Guard::RowLock).await.expect("committed");
    let outside = place.outside().await;
    outside.batch_execute("BEGIN; SELECT FROM accounts FOR UPDATE").await.expect("a lock");
    let found = held(&store, &charges("b")).await;
    assert_eq!(found, users.iter().map(|ann| Key::Account(*ann)).collect());
    let waiting = place
        .texts("SELECT 'it' FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()")
        .await;
    assert_eq!(waiting, Vec::<String>::new());
    outside.batch_execute("COMMIT").await.expect("unlocked");
    transact(&store, charges("b"), Guard::RowLock).await.expect("committed");
}
