//! Sessions that can serve no more: of a database that is read-only for a while, or with outdated prepared statements.

use super::support::{Place, transact};
use boxoffice_adapters::postgres::PostgresStore;
use boxoffice_ports::contract::build::{charge, user};
use boxoffice_ports::{Guard, LedgerError, StoreError};
use boxoffice_services::Postgres;
use futures_util::future::join_all;
use std::sync::Arc;

/// More than the connections of a pool in these tests.
const MANY: u32 = 12;

/// Makes new sessions read-only, or writable again, from a session of another database, which is never read-only.
fn read_only(place: &Place, is_read_only: bool) {
    let name = place.url.rsplit('/').next().expect("a name");
    let change = if is_read_only { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
    Postgres::shared().sql(&format!("ALTER DATABASE {name} {change}")).expect("changed");
}

/// Ends every session of the database, as a fail-over does.
fn end_sessions(place: &Place) {
    let name = place.url.rsplit('/').next().expect("a name");
    let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    Postgres::shared().sql(&ended).expect("ended");
}

async fn secret(store: &Arc<PostgresStore>, n: u32) -> Result<Vec<u8>, StoreError> {
    store.stores().secrets.secret(format!("key-{n}"), vec![1]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn database_without_writes_is_unavailable_and_serves_again_with_them() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    store.stores().upkeep.check().await.expect("it takes writes");
    read_only(&place, true);
    end_sessions(&place);
    // Uses every connection of every pool.
    for round in 0..3 {
        let charges = join_all((0..MANY).map(|n| transact(&store, vec![charge(user(), "b", n.into())], Guard::RowLock))).await;
        assert!(
            charges.iter().all(|outcome| matches!(outcome, Err(LedgerError::Retryable(_) | LedgerError::Unavailable(_)))),
            "{charges:?}"
        );
        let secrets = join_all((0..MANY).map(|n| secret(&store, n))).await;
        assert!(secrets.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable(_)))), "{secrets:?}");
        let checked = store.stores().upkeep.check().await;
        assert!(matches!(checked, Err(StoreError::Unavailable(_))), "round {round}: {checked:?}");
    }
    read_only(&place, false);
    // No session of the read-only time is left.
    store.stores().upkeep.check().await.expect("it takes writes again");
    for outcome in join_all((0..MANY).map(|n| transact(&store, vec![charge(ann, &n.to_string(), 1)], Guard::RowLock))).await {
        outcome.expect("committed");
    }
    for outcome in join_all((0..MANY).map(|n| secret(&store, n))).await {
        outcome.expect("written");
    }
}

/// An address that accepts read-only sessions gets them, and keeps none after the first write is refused.
#[tokio::test(flavor = "multi_thread")]
async fn first_refusal_of_a_write_retires_all_sessions_of_its_age() {
    let mut place = Place::new();
    let name = place.url.clone();
    place.url = format!("{name}?target_session_attrs=any");
    let store = place.open().await;
    place.url = name;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    read_only(&place, true);
    end_sessions(&place);
    // The first read may find its session ended.
    let _ = store.stores().queries.wallet(ann).await;
    let queries = store.stores().queries;
    let wallets = join_all((0..MANY).map(|_| queries.wallet(ann)))
        .await
        .into_iter()
        .filter_map(Result::ok)
        .filter(|wallet| wallet.balance == 1)
        .count();
    assert!(wallets > 0, "reading works");
    read_only(&place, false);
    let mut refused = Vec::new();
    for n in 0..MANY {
        refused.extend(secret(&store, n).await.err());
    }
    assert_eq!(refused.len(), 1, "one refused session retires all: {refused:?}");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("committed");
    assert_eq!(store.stores().queries.wallet(ann).await.expect("read").balance, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_whose_statements_no_longer_fit_is_replaced() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    // A prepared statement must not change the types of its result.
    place.run("ALTER TABLE replies ALTER COLUMN body TYPE varchar").await;
    let outcome = transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await;
    assert!(matches!(outcome, Err(LedgerError::Retryable(_))), "{outcome:?}");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("on another session");
}
