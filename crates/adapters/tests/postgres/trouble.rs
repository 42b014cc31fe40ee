//! A server that is missing, stops, hangs or comes back, and the errors that callers get.

use super::support::{Place, transact};
use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::postgres::{self, PostgresOptions, PostgresStore};
use boxoffice_domain::{Batch, Decision, Outcome};
use boxoffice_ports::contract::build::{charge, hold, pay, policy, user};
use boxoffice_ports::{Deadline, Guard, Ledger, LedgerError, StoreError, Traffic};
use boxoffice_services::Postgres;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn options(url: &str) -> PostgresOptions {
    PostgresOptions { url: url.to_owned(), connections: 4, lanes: 1, traffic: Arc::new(Traffic::default()) }
}

async fn refusal(url: &str) -> StoreError {
    let opened = PostgresStore::open(options(url), Arc::new(SystemClock::default())).await;
    opened.err().expect("there is no such store")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_server_is_unavailable_and_no_error_shows_a_password() {
    for url in [
        "postgres://ann:pa55word@127.0.0.1:1/shop",
        "postgres://ann:pa55word@127.0.0.1:port/shop",
        "postgres://ann:pa55word@127.0.0.1/shop?pa55word=1",
        "postgres://ann:pa55word@127.0.0.1/shop?sslmode=pa55word",
        "host=127.0.0.1 user=ann password='pa55word",
    ] {
        let error = refusal(url).await;
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        for text in [format!("{error}"), format!("{error:?}")] {
            assert!(!text.contains("pa55word"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_required_if_the_address_requires_it() {
    let place = Place::new();
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refusal(&format!("{}?sslmode={mode}", place.url)).await;
        assert!(matches!(error, StoreError::Unavailable(_)), "a server without TLS: {error:?}");
    }
    for mode in ["disable", "prefer"] {
        let url = format!("{}?sslmode={mode}", place.url);
        PostgresStore::open(options(&url), Arc::new(SystemClock::default())).await.expect("a store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_migrated_is_refused() {
    let url = Postgres::shared().database().expect("a database");
    assert!(refusal(&url).await.to_string().contains("boxoffice migrate"));
    postgres::migrate(&url).expect("migrated");
    PostgresStore::open(options(&url), Arc::new(SystemClock::default())).await.expect("a store");
    postgres::revert(&url).expect("reverted");
    assert!(refusal(&url).await.to_string().contains("boxoffice migrate"));
}

/// Works on a runtime with one thread, too.
#[tokio::test(flavor = "current_thread")]
async fn instances_that_migrate_at_once_take_turns() {
    let url = Postgres::shared().database().expect("a database");
    let migrations: Vec<_> = (0..3)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || postgres::migrate(&url).expect("migrated").len())
        })
        .collect();
    let again = postgres::migrate(&url).expect("migrated").len();
    let applied: Vec<usize> = migrations.into_iter().map(|thread| thread.join().expect("a result")).chain([again]).collect();
    assert_eq!(applied.iter().filter(|count| **count > 0).count(), 1, "{applied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_locked_is_a_time_out() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    let outside = place.outside().await;
    outside.batch_execute("BEGIN; SELECT FROM accounts FOR UPDATE").await.expect("a lock");
    let outcome = transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await;
    assert!(matches!(outcome, Err(LedgerError::LockTimeout)), "{outcome:?}");
    outside.batch_execute("COMMIT").await.expect("unlocked");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("the same session works again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_within_a_transaction_is_replaced() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    let outside = place.outside().await;
    outside.batch_execute("BEGIN; SELECT FROM accounts FOR UPDATE").await.expect("a lock");
    let caller = tokio::spawn({
        let store = store.clone();
        async move { transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await }
    });
    place.until_blocked(1).await;
    place
        .texts("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'boxoffice ledger' AND datname = current_database()")
        .await;
    let outcome = caller.await.expect("a result");
    assert!(matches!(outcome, Err(LedgerError::Retryable(_))), "{outcome:?}");
    outside.batch_execute("COMMIT").await.expect("unlocked");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("on another session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_account_is_inserted_again() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    // As after a fail-over to a server that lacks the last commits.
    place.run("DELETE FROM accounts; DELETE FROM entries").await;
    let outcome = transact(&store, vec![charge(ann, "b", 2)], Guard::RowLock).await;
    assert!(matches!(outcome, Err(LedgerError::Retryable(_))), "{outcome:?}");
    transact(&store, vec![charge(ann, "b", 2)], Guard::RowLock).await.expect("committed");
    assert_eq!(store.stores().queries.wallet(ann).await.expect("read").balance, 2);
}

/// Three round trips, and as many statements for a thousand commands as for one.
#[tokio::test(flavor = "multi_thread")]
async fn statements_do_not_grow_with_the_batch() {
    let place = Place::new();
    let traffic = Arc::new(Traffic::default());
    let options = PostgresOptions { traffic: traffic.clone(), ..place.options() };
    let store = PostgresStore::open(options, place.clock.clone()).await.expect("a store");
    let ann = user();
    transact(&store, vec![charge(ann, "known", 1)], Guard::RowLock).await.expect("committed");
    let mut sent = Vec::new();
    for count in [1, 10, 1_000] {
        let before = traffic.counts();
        let requests = (0..count).map(|n| charge(ann, &format!("{count}-{n}"), 1)).collect();
        transact(&store, requests, Guard::RowLock).await.expect("committed");
        let after = traffic.counts();
        assert_eq!(after.commits - before.commits, 1);
        sent.push(after.statements - before.statements);
    }
    assert_eq!(sent, [sent[0]; 3]);
    assert!((5..=10).contains(&sent[0]), "{sent:?}");
}

/// The server is killed during a stream of batches and restarted: each answered batch is there once, and the store
/// reconnects by itself.
#[tokio::test(flavor = "multi_thread")]
async fn answered_batches_survive_a_killed_server() {
    const CALLERS: u32 = 4;
    let mut cluster = Postgres::start().expect("PostgreSQL starts");
    let place = Place::on(&cluster);
    let store = place.open().await;
    let date = place.date(1_000).await;
    let (stop, restarted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (store, stop, restarted) = (store.clone(), stop.clone(), restarted.clone());
            tokio::spawn(async move {
                let mut answered = Vec::new();
                let mut after_restart = 0;
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) || round * CALLERS + caller >= 1_000 {
                        break;
                    }
                    let ann = user();
                    let key = format!("{caller}-{round}");
                    let held = hold(ann, &key, date, &[round * CALLERS + caller + 1]);
                    let paid = pay(ann, &format!("p{key}"), held.fresh.subject.into(), 0);
                    let requests = vec![charge(ann, &format!("c{key}"), 100), held, paid];
                    loop {
                        match transact(&store, requests.clone(), Guard::RowLock).await {
                            Ok(committed) => {
                                answered.push((ann, requests, committed.replies));
                                after_restart += u32::from(restarted.load(Ordering::SeqCst));
                                break;
                            }
                            // Whether it was committed is not known: run it again, as executors do.
                            Err(LedgerError::Retryable(_) | LedgerError::Unavailable(_)) => {
                                tokio::time::sleep(Duration::from_millis(5)).await
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                    if after_restart == 3 {
                        break;
                    }
                }
                answered
            })
        })
        .collect();
    place.until("there are some payments", "SELECT 'enough' FROM payments HAVING count(*) > 20").await;
    cluster.kill().expect("killed");
    cluster.restart().expect("started again");
    restarted.store(true, Ordering::SeqCst);
    let mut answered = Vec::new();
    for caller in callers {
        answered.extend(caller.await.expect("answers"));
    }
    stop.store(true, Ordering::SeqCst);
    assert!(answered.len() > 20);
    let stores = store.stores();
    for (ann, requests, replies) in &answered {
        let again = transact(&store, requests.clone(), Guard::RowLock).await.expect("committed").replies;
        for (first, second) in replies.iter().zip(&again) {
            assert!(second.replayed && first.decision == second.decision && first.decided_at == second.decided_at, "{first:?} {second:?}");
        }
        assert!(matches!(&again[2].decision, Decision::Done(Outcome::Paid { payment, .. }) if payment.amount == 100), "{again:?}");
        assert_eq!(stores.queries.wallet(*ann).await.expect("read").balance, 0);
    }
    assert_eq!(stores.audit.audit(10).await.expect("audited").breaches, []);
}

/// Connections that are idle while the server restarts are replaced at their next use.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_command_after_a_restart_succeeds() {
    let mut cluster = Postgres::start().expect("PostgreSQL starts");
    let place = Place::on(&cluster);
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    assert_eq!(store.stores().queries.wallet(ann).await.expect("read").balance, 1);
    cluster.kill().expect("killed");
    let down = transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await;
    assert!(matches!(down, Err(LedgerError::Unavailable(_) | LedgerError::Retryable(_))), "{down:?}");
    let down = store.stores().queries.wallet(ann).await;
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    cluster.restart().expect("started again");
    let batch = Batch::new(vec![charge(ann, "b", 1)], Arc::new(policy()));
    store.transact(batch, Guard::RowLock, Deadline::after(Duration::from_secs(30))).await.expect("committed");
    assert_eq!(store.stores().queries.wallet(ann).await.expect("read").balance, 2);
}
