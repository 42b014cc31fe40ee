//! The logs of waiting rooms in the database: the contract with two instances, locks, the clock, cached plans.

use super::logs::{begun, exchange, joins};
use super::support::Place;
use boxoffice_adapters::postgres::{PostgresOptions, PostgresStore};
use boxoffice_ports::contract::room_log::RoomLogFixture;
use boxoffice_ports::{LogPosition, RoomLogError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest wait for anything here.
const WAIT_MAX: Duration = Duration::from_secs(30);

async fn two_instances() -> RoomLogFixture {
    let place = Place::new();
    let (log, other) = (place.open().await.room_log(), place.open().await.room_log());
    let clock = place.clock.clone();
    RoomLogFixture { log, other, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(place) }
}

boxoffice_ports::room_log_contract!(two_instances);

#[tokio::test(flavor = "multi_thread")]
async fn an_append_waits_for_the_log_and_then_reads_the_clock() {
    let place = Place::new();
    let log = place.open().await.room_log();
    let (concert, mut position) = begun(&log).await;
    let (mut other, other_concert) = (place.outside().await, begun(&log).await);
    let held = other.transaction().await.expect("begun");
    held.batch_execute(&format!("SELECT FROM room_logs WHERE concert_id = '{concert}' FOR NO KEY UPDATE")).await.expect("locked");
    let waiting = {
        let log = log.clone();
        tokio::spawn(async move { exchange(&log, concert, &mut position, joins(1)).await })
    };
    place.until_blocked(1).await;
    timeout(WAIT_MAX, async {
        assert!(exchange(&log, concert, &mut position, Vec::new()).await.is_empty(), "a read waits for no lock");
        let (concert, mut position) = other_concert;
        assert_eq!(exchange(&log, concert, &mut position, joins(1)).await.len(), 1, "nor does an append to another log");
    })
    .await
    .expect("in time");
    let now = held.query_one("SELECT clock_timestamp()::text", &[]).await.expect("the time");
    let now: String = now.get(0);
    held.commit().await.expect("committed");
    let records = timeout(WAIT_MAX, waiting).await.expect("in time").expect("appended");
    let later = format!("SELECT 'later' WHERE '{}'::timestamptz > '{now}'::timestamptz", records[0].at.to_rfc3339());
    assert_eq!(place.texts(&later).await, ["later"], "{} is not after {now}", records[0].at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_stays_locked_is_unavailable_and_unchanged() {
    let place = Place::new();
    let url = format!("{}?options=-c%20lock_timeout%3D50ms", place.url);
    let hasty = PostgresStore::open(PostgresOptions { url, ..place.options() }, place.clock.clone()).await.expect("a store");
    let log = hasty.room_log();
    let (concert, mut position) = begun(&log).await;
    let mut other = place.outside().await;
    let held = other.transaction().await.expect("begun");
    held.batch_execute(&format!("SELECT FROM room_logs WHERE concert_id = '{concert}' FOR NO KEY UPDATE")).await.expect("locked");
    let refused = log.exchange(concert, position, joins(1)).await;
    assert!(matches!(refused, Err(RoomLogError::Unavailable(_))), "{refused:?}");
    held.commit().await.expect("committed");
    assert_eq!(exchange(&log, concert, &mut position, joins(1)).await[0].seq, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_an_error_and_stops_no_other_reader() {
    let place = Place::new();
    let log = place.open().await.room_log();
    let (concert, mut position) = begun(&log).await;
    exchange(&log, concert, &mut position, joins(1)).await;
    place.run("UPDATE room_records SET inputs = '\\x0900'").await;
    let read = log.exchange(concert, LogPosition { seq: 0, ..position }, Vec::new()).await;
    assert!(matches!(read, Err(RoomLogError::Broken(_))), "{read:?}");
    exchange(&log, concert, &mut position, joins(1)).await;
    assert_eq!(position.seq, 2, "a reader past the record goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_leaves_one_snapshot_and_the_records_after_it() {
    let place = Place::new();
    let log = place.open().await.room_log();
    let (concert, mut position) = begun(&log).await;
    for _ in 0..5 {
        exchange(&log, concert, &mut position, joins(1)).await;
    }
    assert!(log.compact(concert, LogPosition { seq: 2, ..position }, b"two".to_vec()).await.expect("an answer"));
    assert!(log.compact(concert, LogPosition { seq: 3, ..position }, b"three".to_vec()).await.expect("an answer"));
    assert_eq!(place.texts("SELECT seq::text FROM room_snapshots").await, ["3"]);
    assert_eq!(place.texts("SELECT seq::text FROM room_records ORDER BY seq").await, ["4", "5"]);
}

/// Of two concurrent compactions, the later one with the smaller position changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn compacting_less_far_than_a_concurrent_compaction_changes_nothing() {
    let place = Place::new();
    let log = place.open().await.room_log();
    let (concert, mut position) = begun(&log).await;
    for _ in 0..5 {
        exchange(&log, concert, &mut position, joins(1)).await;
    }
    let mut other = place.outside().await;
    let held = other.transaction().await.expect("begun");
    let further = format!("SELECT room_compact('{concert}', {}, 4, 'four')", position.epoch);
    assert!(held.query_one(&further, &[]).await.expect("compacted").get::<_, bool>(0));
    let less = {
        let (log, upto) = (log.clone(), LogPosition { seq: 2, ..position });
        tokio::spawn(async move { log.compact(concert, upto, b"two".to_vec()).await.expect("an answer") })
    };
    place.until_blocked(1).await;
    held.commit().await.expect("committed");
    assert!(!timeout(WAIT_MAX, less).await.expect("in time").expect("no panic"));
    let left = format!("SELECT seq || ' ' || convert_from(snapshot, 'UTF8') FROM room_snapshots WHERE concert_id = '{concert}'");
    assert_eq!(place.texts(&left).await, ["4 four"]);
}

/// Plans are made on small tables and used on big ones.
#[tokio::test(flavor = "multi_thread")]
async fn plans_made_on_small_tables_go_by_index_later() {
    let place = Place::new();
    let (concert, position) = begun(&place.open().await.room_log()).await;
    let session = place.outside().await;
    let step = format!("SELECT record_seq FROM room_exchange('{concert}', 0, {}, ", position.epoch);
    let read = format!("SELECT record_seq FROM room_read('{concert}', 0, {}, ", position.epoch);
    for seq in 0..10 {
        if seq == 2 {
            place.run("ANALYZE room_logs, room_records, room_snapshots").await;
        }
        assert_eq!(session.query(&format!("{step} {seq}, 1000, 'x')"), &[]).await.expect("appended").len(), 1);
        assert_eq!(session.query(&format!("{read} {seq}, 1000, NULL)"), &[]).await.expect("read").len(), 1);
    }
    let full = "INSERT INTO room_logs (concert_id, epoch, base_seq, last_seq, latest_at)
                    SELECT gen_random_uuid(), 1, 0, 20, now() FROM generate_series(1, 1000);
                INSERT INTO room_snapshots (concert_id, seq, snapshot) SELECT concert_id, 0, 'x' FROM room_logs WHERE epoch = 1;
                INSERT INTO room_records (concert_id, seq, at, inputs)
                    SELECT concert_id, n, now(), 'x' FROM room_logs, generate_series(1, 20) n WHERE epoch = 1";
    place.run(full).await;
    session.batch_execute("BEGIN").await.expect("begun");
    for (sql, found) in [
        (format!("{step} 4, 1000, 'x')"), 7),
        (format!("{read} 3, 1000, NULL)"), 8),
        (format!("SELECT record_seq FROM room_read('{concert}', 0, 0, 0, 1000, NULL)"), 1),
        (format!("SELECT 1 WHERE room_compact('{concert}', {}, 9, 'nine')", position.epoch), 1),
    ] {
        assert_eq!(session.query(&sql, &[]).await.expect("answered").len(), found, "{sql}");
    }
    let scans = "SELECT relname::text, seq_scan FROM pg_stat_xact_user_tables WHERE relname LIKE 'room\\_%' AND idx_scan > 0 ORDER BY 1";
    let scans = session.query(scans, &[]).await.expect("counted");
    let scans: Vec<(String, i64)> = scans.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(scans, ["room_logs", "room_records", "room_snapshots"].map(|table| (table.to_owned(), 0)));
}
