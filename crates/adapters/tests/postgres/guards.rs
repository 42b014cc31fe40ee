//! What the ledger checks although its locks should rule it out: rows that changed since they were read, writes without
//! effect, a reply that is stored already. Triggers play the part of a defect.

use super::support::{Place, transact};
use boxoffice_adapters::postgres::PostgresStore;
use boxoffice_domain::{DateId, Decision, Request, UserId};
use boxoffice_ports::contract::build::{charge, expire, extend, hold, pay, policy, refund, spend, user};
use boxoffice_ports::{Guard, LedgerError};
use chrono::TimeDelta;
use std::sync::Arc;
use tokio_postgres::Client;

const GUARDS: [Guard; 2] = [Guard::RowLock, Guard::Version];

/// Everything that a batch may write, as text.
async fn contents(place: &Place) -> Vec<String> {
    let mut lines = Vec::new();
    for table in ["accounts", "seats", "reservations", "payments", "entries", "points_entries", "replies", "outbox"] {
        lines.extend(place.texts(&format!("SELECT '{table} ' || t::text FROM {table} t ORDER BY 1")).await);
    }
    lines
}

/// A place where ann has money, a hold and two payments, and requests that write to every table in every way.
struct Furnished {
    place: Place,
    store: Arc<PostgresStore>,
    ann: UserId,
    date: DateId,
    /// Extends the hold, buys it, refunds both earlier payments, holds another seat, charges a new wallet.
    requests: Vec<Request>,
}

async fn furnished() -> Furnished {
    let place = Place::new();
    let store = place.open().await;
    let date = place.date(10).await;
    let ann = user();
    let (first, second, third) = (hold(ann, "1", date, &[1]), hold(ann, "2", date, &[2]), hold(ann, "3", date, &[3]));
    let held = third.fresh.subject.into();
    let (one, two) = (pay(ann, "p1", first.fresh.subject.into(), 0), pay(ann, "p2", second.fresh.subject.into(), 0));
    let requests = vec![
        refund(ann, "r1", one.fresh.subject.into()),
        refund(ann, "r2", two.fresh.subject.into()),
        extend(ann, "e", held),
        pay(ann, "p3", held, 0),
        hold(ann, "4", date, &[4]),
        charge(user(), "c", 1),
    ];
    let before = vec![charge(ann, "c", 1_000_000), first, second, third, one, two];
    all_done(&store, before, Guard::RowLock).await;
    Furnished { place, store, ann, date, requests }
}

async fn all_done(store: &PostgresStore, requests: Vec<Request>, guard: Guard) {
    let replies = transact(store, requests, guard).await.expect("committed").replies;
    assert!(replies.iter().all(|reply| matches!(reply.decision, Decision::Done(_))), "{replies:?}");
}

/// Creates a trigger that runs `body` at `event`.
async fn trigger(outside: &Client, event: &str, body: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION defect() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE TRIGGER defect {event} FOR EACH ROW EXECUTE FUNCTION defect()"
    );
    outside.batch_execute(&sql).await.expect("a trigger");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_goes_through_under_both_guards() {
    for guard in GUARDS {
        let place = Place::new();
        let store = place.open().await;
        let date = place.date(10).await;
        let (ann, bob) = (user(), user());
        let (one, two) = (hold(ann, "h1", date, &[1, 2]), hold(bob, "h2", date, &[3]));
        let (first, second) = (one.fresh.subject.into(), two.fresh.subject.into());
        let paid = pay(ann, "p", first, 0);
        let payment = paid.fresh.subject.into();
        all_done(&store, vec![charge(ann, "c", 1_000), charge(bob, "c", 1_000)], guard).await;
        all_done(&store, vec![one, two, spend(ann, "u", 5)], guard).await;
        all_done(&store, vec![paid, extend(bob, "e", second)], guard).await;
        all_done(&store, vec![refund(ann, "r", payment), charge(bob, "c2", 1)], guard).await;
        assert_eq!(store.stores().audit.audit(4).await.expect("audited").breaches, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_effect_fails_the_batch() {
    for (table, event) in [
        ("accounts", "UPDATE"),
        ("seats", "UPDATE"),
        ("reservations", "INSERT"),
        ("reservations", "UPDATE"),
        ("payments", "INSERT"),
        ("payments", "UPDATE"),
        ("entries", "INSERT"),
        ("points_entries", "INSERT"),
        ("replies", "INSERT"),
        ("outbox", "INSERT"),
    ] {
        let Furnished { place, store, requests, .. } = furnished().await;
        // Locking an account for a hold writes it, too; only the change of its money is dropped.
        let when = if table == "accounts" { "WHEN (new.balance <> old.balance)" } else { "" };
        let before = contents(&place).await;
        let outside = place.outside().await;
        trigger(&outside, &format!("BEFORE {event} ON {table}"), "RETURN NULL;").await;
        if !when.is_empty() {
            let narrow = format!(
                "DROP TRIGGER defect ON {table};
                 CREATE TRIGGER defect BEFORE {event} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION defect()"
            );
            outside.batch_execute(&narrow).await.expect("a trigger");
        }
        let refused = transact(&store, requests.clone(), Guard::RowLock).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "{event} {table}: {refused:?}");
        assert_eq!(contents(&place).await, before, "{event} {table}");
        outside.batch_execute(&format!("DROP TRIGGER defect ON {table}")).await.expect("no trigger");
        all_done(&store, requests, Guard::RowLock).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_since_it_was_read_fails_the_batch() {
    // Rows are written by class, so a write of one class changes a row of a later one.
    for (changes, event, body) in [
        ("an account", "AFTER UPDATE ON seats", "UPDATE accounts SET version = version + 1; RETURN NULL;"),
        ("a seat", "AFTER UPDATE ON reservations", "UPDATE seats SET version = version + 1; RETURN NULL;"),
        ("a reservation", "AFTER INSERT ON payments", "UPDATE reservations SET version = version + 1; RETURN NULL;"),
    ] {
        for guard in GUARDS {
            let Furnished { place, store, requests, .. } = furnished().await;
            let before = contents(&place).await;
            trigger(&place.outside().await, event, body).await;
            let refused = transact(&store, requests, guard).await;
            let seen = match guard {
                Guard::RowLock => matches!(refused, Err(LedgerError::Refused(_))),
                Guard::Version => matches!(refused, Err(LedgerError::Conflict)),
            };
            assert!(seen, "{changes}, {guard:?}: {refused:?}");
            assert_eq!(contents(&place).await, before, "{changes}");
        }
    }
}

/// Another transaction raises and commits a version between read and write, for every class of rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_change_of_a_row_is_a_conflict_under_versions() {
    for table in ["payments", "reservations", "seats", "accounts"] {
        let Furnished { place, store, requests, .. } = furnished().await;
        let outside = place.outside().await;
        outside.batch_execute(&format!("BEGIN; UPDATE {table} SET version = version + 1")).await.expect("a change");
        let caller = tokio::spawn({
            let store = store.clone();
            async move { transact(&store, requests, Guard::Version).await }
        });
        place.until_blocked(1).await;
        outside.batch_execute("COMMIT").await.expect("committed");
        let lost = caller.await.expect("a result");
        assert!(matches!(lost, Err(LedgerError::Conflict)), "{table}: {lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_reply_is_never_overwritten() {
    for guard in GUARDS {
        let Furnished { place, store, ann, .. } = furnished().await;
        let before = contents(&place).await;
        let request = charge(ann, "new", 7);
        // Another transaction stores the same command's reply after the load.
        let body = format!(
            "INSERT INTO replies SELECT user_id, '{}', fingerprint, body, decided_at, 'infinity' FROM replies LIMIT 1
             ON CONFLICT DO NOTHING; RETURN NULL;",
            request.command_id
        );
        trigger(&place.outside().await, "AFTER INSERT ON entries", &body).await;
        let refused = transact(&store, vec![request], guard).await;
        let seen = match guard {
            Guard::RowLock => matches!(refused, Err(LedgerError::Retryable(_))),
            Guard::Version => matches!(refused, Err(LedgerError::Conflict)),
        };
        assert!(seen, "the next run finds the reply: {refused:?}");
        assert_eq!(contents(&place).await, before);
    }
}

/// The reply has expired when it is read, and is live again when it would be overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_reply_that_was_renewed_meanwhile_is_not_overwritten() {
    let Furnished { place, store, ann, .. } = furnished().await;
    let request = charge(ann, "once", 7);
    all_done(&store, vec![request.clone()], Guard::RowLock).await;
    place.clock.advance(TimeDelta::seconds(i64::from(policy().idempotency_ttl_s) + 1));
    let body = "UPDATE replies SET expires_at = 'infinity'; RETURN NULL;";
    trigger(&place.outside().await, "AFTER INSERT ON entries", body).await;
    let before = contents(&place).await;
    let refused = transact(&store, vec![request], Guard::RowLock).await;
    assert!(matches!(refused, Err(LedgerError::Retryable(_))), "{refused:?}");
    assert_eq!(contents(&place).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_runs_to_its_end_when_its_caller_goes_away() {
    let Furnished { place, store, ann, .. } = furnished().await;
    let request = charge(ann, "gone", 7);
    let outside = place.outside().await;
    outside.batch_execute(&format!("BEGIN; SELECT FROM accounts WHERE user_id = '{ann}' FOR UPDATE")).await.expect("a lock");
    let caller = tokio::spawn({
        let (store, request) = (store.clone(), request.clone());
        async move { transact(&store, vec![request], Guard::RowLock).await }
    });
    place.until_blocked(1).await;
    caller.abort();
    assert!(caller.await.is_err_and(|error| error.is_cancelled()));
    outside.batch_execute("COMMIT").await.expect("unlocked");
    place.until("the entry is there", &format!("SELECT 'it' FROM entries WHERE user_id = '{ann}' AND amount = 7")).await;
    let replies = transact(&store, vec![request], Guard::RowLock).await.expect("committed").replies;
    assert!(replies[0].replayed, "the effect is there once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_was_taken_over_is_swept_once() {
    let Furnished { place, store, date, .. } = furnished().await;
    place.clock.advance(TimeDelta::seconds(i64::from(policy().hold_ttl_s) + 1));
    let stores = store.stores();
    let due = stores.upkeep.due_holds(10).await.expect("due holds");
    assert_eq!(due.len(), 1);
    transact(&store, vec![hold(user(), "h", date, &[3])], Guard::RowLock).await.expect("committed");
    let replies = transact(&store, vec![expire(due[0]), expire(due[0])], Guard::RowLock).await.expect("committed").replies;
    assert!(matches!(replies[0].decision, Decision::Done(_)) && matches!(replies[1].decision, Decision::Refused(_)));
    assert!(stores.upkeep.due_holds(10).await.expect("due holds").is_empty());
    assert_eq!(stores.audit.audit(4).await.expect("audited").breaches, []);
}
