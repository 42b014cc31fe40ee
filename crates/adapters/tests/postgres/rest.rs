//! Several instances on one database, apart from the ledger: late commits, reads during writes, imports, pruning.

use super::support::Place;
use boxoffice_domain::{ConcertPlan, DateId};
use boxoffice_ports::contract::build::{admission, demo_plan, fresh, hold, seats, user};
use boxoffice_ports::contract::shop::{Shop, numbers};
use boxoffice_ports::{CatalogError, Guard, ImportEffect, Stores};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// The longest wait for anything here.
const WAIT_MAX: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, work).await.unwrap_or_else(|_| panic!("timed out waiting {what}"))
}

/// Waits until some session of the database waits for a lock.
async fn until_one_waits(client: &Client) {
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    soon("for a waiting session", async {
        while client.query_one(asked, &[]).await.expect("asked").get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn on_sale(place: &Place) -> (Stores, ConcertPlan, Vec<DateId>) {
    let stores = place.open().await.stores();
    let plan = demo_plan(stores.queries.now().await.expect("now"));
    let imported = stores.catalog.import(vec![plan.clone()], admission()).await.expect("imported");
    (stores, plan, imported[0].dates.iter().map(|date| date.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_changes_of_an_older_transaction_are_found_after_its_commit() {
    let place = Place::new();
    let (stores, _, dates) = on_sale(&place).await;
    let date = dates[0];
    let older = place.outside().await;
    let change = format!(
        "BEGIN; UPDATE seats SET version = version + 1, changed_xid = pg_current_xact_id() WHERE date_id = '{date}' AND number = 1"
    );
    older.batch_execute(&change).await.expect("changed");
    let first = stores.queries.changed_seats(vec![date], None).await.expect("read").expect("a mark");
    let newer = hold(user(), "h", date, &[2]);
    super::support::transact(&*place.open().await, vec![newer], Guard::RowLock).await.expect("committed");
    let second = stores.queries.changed_seats(vec![date], Some(first.mark)).await.expect("read").expect("changes");
    assert!(numbers(&second.changes).contains(&2), "{:?}", second.changes);
    assert!(!second.changes.iter().any(|change| change.key.number == 1 && change.version == 2), "it is not committed");
    older.batch_execute("COMMIT").await.expect("committed");
    let third = stores.queries.changed_seats(vec![date], Some(second.mark)).await.expect("read").expect("changes");
    assert!(third.changes.iter().any(|change| change.key.number == 1 && change.version == 2), "{:?}", third.changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_wait_for_no_write() {
    let place = Place::new();
    let store = place.open().await;
    let clock = place.clock.clone();
    let fixture =
        boxoffice_ports::contract::Fixture { stores: store.stores(), advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(()) };
    let shop = Shop::open(fixture).await;
    let ann = user();
    let (payment, reservation) = shop.buy(ann, &[1]).await;
    let writer = place.outside().await;
    let everything = "BEGIN; UPDATE seats SET version = version; UPDATE accounts SET version = version;
        UPDATE reservations SET version = version; UPDATE payments SET version = version; UPDATE concerts SET name = name;
        UPDATE dates SET key = key; UPDATE replies SET body = body; UPDATE entries SET memo = memo";
    writer.batch_execute(everything).await.expect("written");
    let queries = &shop.fixture.stores.queries;
    soon("for reads", async {
        assert_eq!(queries.catalog().await.expect("read").len(), 1);
        assert_eq!(queries.seats(shop.date).await.expect("read").len(), 50);
        assert_eq!(queries.wallet(ann).await.expect("read").balance, 0);
        assert_eq!(queries.entries(ann, None, 9).await.expect("read").items.len(), 2);
        assert_eq!(queries.reservation(ann, reservation.id).await.expect("read"), Some(reservation));
        assert_eq!(queries.payment(ann, payment.id).await.expect("read").map(|row| row.payment), Some(payment));
        assert!(queries.live_holds(ann, shop.concert).await.expect("read").is_empty());
        shop.close().await;
    })
    .await;
    writer.batch_execute("ROLLBACK").await.expect("undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_skips_rows_that_another_transaction_has_locked() {
    let place = Place::new();
    let stores = place.open().await.stores();
    place
        .run(
            "INSERT INTO replies (user_id, command_id, fingerprint, body, decided_at, expires_at)
             SELECT gen_random_uuid(), gen_random_uuid(), decode(repeat('00', 32), 'hex'), '{}', now(), now() - number * interval '1 second'
             FROM generate_series(1, 10) number;
             INSERT INTO outbox (shard, id, payload, occurred_at)
             SELECT 3, number, '{\"event\": \"wallet_charged\", \"user\": \"' || gen_random_uuid() || '\", \"entry\": \"' || gen_random_uuid()
                    || '\", \"amount\": 1, \"balance\": 1}', now()
             FROM generate_series(1, 10) number",
        )
        .await;
    let other = place.outside().await;
    other.batch_execute("BEGIN; DELETE FROM replies WHERE ctid IN (SELECT ctid FROM replies LIMIT 3)").await.expect("deleted");
    other.batch_execute("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT 4)").await.expect("deleted");
    let ids: Vec<i64> = stores.outbox.unsent(3, 100).await.expect("read").into_iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(soon("for pruning", stores.upkeep.prune_replies(5)).await.expect("pruned"), 5, "bounded");
    assert_eq!(soon("for pruning", stores.upkeep.prune_replies(100)).await.expect("pruned"), 2);
    soon("for sending", stores.outbox.sent(3, ids.clone())).await.expect("sent");
    other.batch_execute("ROLLBACK").await.expect("undone");
    let left: Vec<i64> = stores.outbox.unsent(3, 100).await.expect("read").into_iter().map(|row| row.id).collect();
    assert_eq!(left, ids[..4], "rows locked by another transaction stay, and are sent again");
    assert_eq!(stores.upkeep.prune_replies(100).await.expect("pruned"), 3);
    assert_eq!(stores.upkeep.prune_replies(100).await.expect("pruned"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_imports_run_one_after_the_other() {
    let place = Place::new();
    let instances = [place.open().await.stores(), place.open().await.stores()];
    let plan = demo_plan(instances[0].queries.now().await.expect("now"));
    let mut tasks = JoinSet::new();
    for at in 0..10 {
        let (stores, plan) = (instances[at % 2].clone(), plan.clone());
        tasks.spawn(async move { stores.catalog.import(vec![plan], admission()).await.expect("imported").remove(0) });
    }
    let imported = tasks.join_all().await;
    assert_eq!(imported.iter().filter(|one| one.effect == ImportEffect::Created).count(), 1);
    assert_eq!(imported.iter().filter(|one| one.effect == ImportEffect::Unchanged).count(), 9);
    assert_eq!(imported.iter().map(|one| one.id).collect::<HashSet<_>>().len(), 1);
    assert!(imported.iter().all(|one| one.dates.iter().all(|date| date.total == 50)), "{imported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_waits_for_an_open_hold_and_is_then_refused() {
    let place = Place::new();
    let (stores, mut plan, dates) = on_sale(&place).await;
    let holder = place.outside().await;
    let held = format!(
        "BEGIN; UPDATE seats SET state = 'held', reservation_id = '{}', held_until = now() + interval '5 minutes', version = version + 1
         WHERE date_id = '{}' AND number = 7",
        fresh::<boxoffice_domain::ReservationId>(),
        dates[0]
    );
    holder.batch_execute(&held).await.expect("held");
    plan.name = "Renamed".to_owned();
    plan.dates[0].seats = vec![seats(1, 10, "VIP", 200_000, None)];
    let importing = tokio::spawn(async move { stores.catalog.import(vec![plan], admission()).await });
    until_one_waits(&place.outside().await).await;
    holder.batch_execute("COMMIT").await.expect("held");
    match soon("for the import", importing).await.expect("no panic") {
        Err(CatalogError::Conflict { field, seat }) => assert_eq!((field.as_str(), seat), ("dates[0].seats[0]", 7)),
        other => panic!("expected a conflict, got {other:?}"),
    }
    assert_eq!(place.texts("SELECT name FROM concerts").await, ["Moonlight Tour"]);
    assert_eq!(place.texts("SELECT count(*)::text FROM seats WHERE grade = 'VIP'").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_locks_seats_in_the_order_of_every_batch() {
    let place = Place::new();
    let (stores, mut plan, dates) = on_sale(&place).await;
    let (low, high) = (dates[0].min(dates[1]), dates[0].max(dates[1]));
    // The document names the date that is locked last first.
    if dates[0] == low {
        plan.dates.reverse();
    }
    for date in &mut plan.dates {
        date.seats = vec![seats(9, 9, "VIP", 200_000, None), seats(3, 3, "VIP", 200_000, None)];
    }
    let holder = place.outside().await;
    holder.batch_execute(&format!("BEGIN; SELECT 1 FROM seats WHERE date_id = '{low}' AND number = 3 FOR UPDATE")).await.expect("locked");
    let importing = tokio::spawn(async move { stores.catalog.import(vec![plan], admission()).await });
    let other = place.outside().await;
    until_one_waits(&other).await;
    // While it waits for the first seat, it has locked none of the later ones.
    for (date, number) in [(low, 9), (high, 3), (high, 9)] {
        let free = format!("SELECT 1 FROM seats WHERE date_id = '{date}' AND number = {number} FOR UPDATE NOWAIT");
        other.batch_execute(&free).await.expect("free");
    }
    holder.batch_execute("COMMIT").await.expect("released");
    let imported = soon("for the import", importing).await.expect("no panic").expect("imported");
    assert_eq!(imported[0].effect, ImportEffect::Updated);
    assert_eq!(place.texts("SELECT count(*)::text FROM seats WHERE grade = 'VIP'").await, ["4"]);
}
