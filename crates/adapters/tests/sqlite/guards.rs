//! What the ledger checks although the write lock should rule it out: rows that changed since they were read, writes
//! without effect, a reply that is stored already. Triggers play the part of a defect.

use super::support::Place;
use boxoffice_domain::{Batch, ConcertId, DateId, Decision, Request, Timestamp, UserId};
use boxoffice_ports::contract::build::{admission, charge, demo_plan, expire, extend, hold, pay, policy, refund, user};
use boxoffice_ports::{Clock, Committed, Deadline, Guard, LedgerError, Stores};
use chrono::TimeDelta;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

async fn transact(stores: &Stores, requests: Vec<Request>) -> Result<Committed, LedgerError> {
    stores.ledger.transact(Batch::new(requests, Arc::new(policy())), Guard::RowLock, Deadline::after(Duration::from_secs(30))).await
}

async fn on_sale(place: &Place, stores: &Stores) -> (ConcertId, DateId) {
    let imported = stores.catalog.import(vec![demo_plan(place.clock.now())], admission()).await.expect("imported");
    (imported[0].id, imported[0].dates[0].id)
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Everything that a batch may write, as text.
fn contents(place: &Place) -> Vec<String> {
    let mut conn = place.outside();
    let mut lines = Vec::new();
    for (table, columns) in [
        ("accounts", "user_id || balance || ':' || points || ':' || version"),
        ("seats", "date_id || number || state || version || ifnull(reservation_id, '')"),
        ("reservations", "id || status || version || expires_at"),
        ("payments", "id || version || ifnull(refund_amount, '-')"),
        ("entries", "user_id || seq || amount"),
        ("points_entries", "user_id || seq || points"),
        ("replies", "user_id || command_id || body"),
        ("outbox", "shard || ':' || id"),
    ] {
        let sql = format!("SELECT '{table} ' || hex({columns}) AS line FROM {table} ORDER BY 1");
        lines.extend(sql_query(sql).load::<Line>(&mut conn).expect("rows").into_iter().map(|row| row.line));
    }
    lines
}

/// A place where ann has money, a hold and two payments, and requests that write to every table in every way.
struct Furnished {
    place: Place,
    stores: Stores,
    ann: UserId,
    date: DateId,
    /// Extends the hold, buys it, refunds both earlier payments.
    requests: Vec<Request>,
}

async fn furnished() -> Furnished {
    let place = Place::new();
    let stores = place.open().stores();
    let (_, date) = on_sale(&place, &stores).await;
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
    let replies = transact(&stores, before).await.expect("committed").replies;
    assert!(replies.iter().all(|reply| matches!(reply.decision, Decision::Done(_))), "{replies:?}");
    Furnished { place, stores, ann, date, requests }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_effect_fails_the_batch() {
    for written in [
        "INSERT ON accounts",
        "UPDATE ON accounts",
        "UPDATE ON seats",
        "INSERT ON reservations",
        "UPDATE ON reservations",
        "INSERT ON payments",
        "UPDATE ON payments",
        "INSERT ON entries",
        "INSERT ON points_entries",
        "INSERT ON outbox",
    ] {
        let Furnished { place, stores, requests, .. } = furnished().await;
        let before = contents(&place);
        let trigger = format!("CREATE TRIGGER ignored BEFORE {written} BEGIN SELECT RAISE(IGNORE); END");
        place.outside().batch_execute(&trigger).expect("a trigger");
        let refused = transact(&stores, requests.clone()).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "{written}: {refused:?}");
        assert_eq!(contents(&place), before, "{written}");
        place.outside().batch_execute("DROP TRIGGER ignored").expect("no trigger");
        let replies = transact(&stores, requests).await.expect("committed").replies;
        assert!(replies.iter().all(|reply| matches!(reply.decision, Decision::Done(_))), "{written}: {replies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_since_it_was_read_fails_the_batch() {
    // Rows are written by class, so a write of one class changes a row of a later one.
    for (changes, trigger) in [
        ("an account", "AFTER UPDATE ON seats BEGIN UPDATE accounts SET version = version + 1; END"),
        ("a seat", "AFTER UPDATE ON reservations BEGIN UPDATE seats SET version = version + 1; END"),
        ("a reservation", "AFTER INSERT ON payments BEGIN UPDATE reservations SET version = version + 1; END"),
        (
            "a payment",
            "AFTER UPDATE OF refunded_at ON payments WHEN old.id = (SELECT min(id) FROM payments)
             BEGIN UPDATE payments SET version = version + 1 WHERE id <> old.id; END",
        ),
    ] {
        let Furnished { place, stores, requests, .. } = furnished().await;
        let before = contents(&place);
        place.outside().batch_execute(&format!("CREATE TRIGGER moved {trigger}")).expect("a trigger");
        let refused = transact(&stores, requests).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))), "{changes}: {refused:?}");
        assert_eq!(contents(&place), before, "{changes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_reply_is_never_overwritten() {
    let Furnished { place, stores, ann, .. } = furnished().await;
    let before = contents(&place);
    let request = charge(ann, "new", 7);
    // Another transaction stores the same command's reply after the load.
    let trigger = format!(
        "CREATE TRIGGER elsewhere AFTER INSERT ON entries BEGIN
         INSERT OR IGNORE INTO replies SELECT user_id, x'{}', fingerprint, body, decided_at, {} FROM replies LIMIT 1; END",
        request.command_id.0.simple(),
        i64::MAX,
    );
    place.outside().batch_execute(&trigger).expect("a trigger");
    let refused = transact(&stores, vec![request.clone()]).await;
    assert!(matches!(refused, Err(LedgerError::Retryable(_))), "the next run finds the reply: {refused:?}");
    assert_eq!(contents(&place), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn outbox_ids_ascend_across_restarts() {
    let place = Place::new();
    let ann = user();
    let mut last = 0;
    for key in ["a", "b", "c"] {
        let stores = place.open().stores();
        transact(&stores, vec![charge(ann, key, 1)]).await.expect("committed");
        let mut ids = Vec::new();
        for shard in 0..boxoffice_domain::event::OUTBOX_SHARDS {
            let rows = stores.outbox.unsent(shard, 10).await.expect("rows");
            ids.extend(rows.iter().map(|row| row.id));
            let other = (shard + 1) % boxoffice_domain::event::OUTBOX_SHARDS;
            stores.outbox.sent(other, rows.iter().map(|row| row.id).collect()).await.expect("deleted");
            assert_eq!(stores.outbox.unsent(shard, 10).await.expect("rows"), rows, "a row is deleted in its own shard");
            stores.outbox.sent(shard, rows.iter().map(|row| row.id).collect()).await.expect("deleted");
        }
        assert_eq!(ids.len(), 1);
        assert!(ids[0] > last, "{} after {last}", ids[0]);
        last = ids[0];
    }
}

/// Panics once, when its time is read, like a defect in the writer.
struct BrokenClock {
    inner: Arc<dyn Clock>,
    broken: AtomicBool,
}

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        assert!(!self.broken.swap(false, Ordering::SeqCst), "the test's panic");
        self.inner.now()
    }

    fn offset(&self) -> TimeDelta {
        self.inner.offset()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_goes_on_after_a_panic() {
    let place = Place::new();
    let clock = Arc::new(BrokenClock { inner: place.clock.clone(), broken: AtomicBool::new(false) });
    let stores = place.open_with(clock.clone()).stores();
    let ann = user();
    transact(&stores, vec![charge(ann, "a", 1)]).await.expect("committed");
    clock.broken.store(true, Ordering::SeqCst);
    let refused = transact(&stores, vec![charge(ann, "b", 2)]).await;
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    transact(&stores, vec![charge(ann, "c", 4)]).await.expect("committed");
    assert_eq!(stores.queries.wallet(ann).await.expect("read").balance, 5);
}

/// A hold whose seats were all taken over has only its own row left, which one sweep writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_was_taken_over_is_swept_once() {
    let Furnished { place, stores, date, .. } = furnished().await;
    place.clock.advance(TimeDelta::seconds(i64::from(policy().hold_ttl_s) + 1));
    let due = stores.upkeep.due_holds(10).await.expect("due holds");
    assert_eq!(due.len(), 1);
    transact(&stores, vec![hold(user(), "h", date, &[3])]).await.expect("committed");
    let replies = transact(&stores, vec![expire(due[0]), expire(due[0])]).await.expect("committed").replies;
    assert!(matches!(replies[0].decision, Decision::Done(_)) && matches!(replies[1].decision, Decision::Refused(_)));
    assert!(stores.upkeep.due_holds(10).await.expect("due holds").is_empty());
    assert_eq!(stores.audit.audit(4).await.expect("audited").breaches, []);
}
