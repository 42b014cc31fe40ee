//! Sessions that can serve no more: a database that takes no writes for a while, and statements that no longer fit.

use super::support::{Place, transact};
use boxoffice_adapters::postgres::PostgresStore;
use boxoffice_ports::contract::build::{charge, user};
use boxoffice_ports::{Guard, LedgerError, StoreError};
use boxoffice_services::Postgres;
use futures_util::future::join_all;
use std::sync::Arc;

/// More than a pool of these tests has connections.
const MANY: u32 = 12;

/// From now on new sessions take no writes, or do again. Said from another database, whose sessions do in any case.
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
    // Every connection of every pool is asked for.
    for round in 0..3 {
        let charges = join_all((0..MANY).map(|n| transact(&store, vec![charge(user(), "b", n.into())], Guard::RowLock))).await;
        assert!(
            charges.iter().all(|outcome| matches!(outcome, Err(LedgerError::Retryable(_) | LedgerError::Unavailable(_)))),
            "{charges:?}"
        );
        let secrets = join_all((0..MANY).map(|n| secret(&store, n))).await;
        assert!(secrets.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable(_)))), "{secrets:?}");
        let told = store.stores().upkeep.check().await;
        assert!(matches!(told, Err(StoreError::Unavailable(_))), "round {round}: {told:?}");
    }
    read_only(&place, false);
    // Nothing is left of the time without writes.
    store.stores().upkeep.check().await.expect("it takes writes again");
    for outcome in join_all((0..MANY).map(|n| transact(&store, vec![charge(ann, &n.to_string(), 1)], Guard::RowLock))).await {
        outcome.expect("committed");
    }
    for outcome in join_all((0..MANY).map(|n| secret(&store, n))).await {
        outcome.expect("written");
    }
}

/// An address that asks for sessions that only read gets them, and keeps none once something is to be written.
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
    // The first may come across the end of its session.
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
    assert_eq!(refused.len(), 1, "one session tells of all: {refused:?}");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("committed");
    assert_eq!(store.stores().queries.wallet(ann).await.expect("read").balance, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_whose_statements_no_longer_fit_is_replaced() {
    let place = Place::new();
    let store = place.open().await;
    let ann = user();
    transact(&store, vec![charge(ann, "a", 1)], Guard::RowLock).await.expect("committed");
    // A prepared statement may not change the types that it answers with.
    place.run("ALTER TABLE replies ALTER COLUMN body TYPE varchar").await;
    let outcome = transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await;
    assert!(matches!(outcome, Err(LedgerError::Retryable(_))), "{outcome:?}");
    transact(&store, vec![charge(ann, "b", 1)], Guard::RowLock).await.expect("on another session");
}
