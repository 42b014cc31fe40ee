//! The logs of waiting rooms in a file: the contract, with two handles of one server and with two writers; restarts.

use super::logs::{begun, exchange, joins};
use super::support::Place;
use boxoffice_ports::contract::room_log::RoomLogFixture;
use boxoffice_ports::{LogPosition, RoomLog, RoomLogError};
use chrono::TimeDelta;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use std::sync::Arc;

fn fixture_of(place: Place, log: Arc<dyn RoomLog>, other: Arc<dyn RoomLog>) -> RoomLogFixture {
    let clock = place.clock.clone();
    RoomLogFixture { log, other, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(place) }
}

async fn one_writer() -> RoomLogFixture {
    let place = Place::new();
    let store = place.open();
    fixture_of(place, store.room_log(), store.room_log())
}

/// As with two processes that have the file open.
async fn two_writers() -> RoomLogFixture {
    let place = Place::new();
    let (log, other) = (place.open().room_log(), place.open().room_log());
    fixture_of(place, log, other)
}

mod one {
    boxoffice_ports::room_log_contract!(super::one_writer);
}

mod two {
    boxoffice_ports::room_log_contract!(super::two_writers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_after_a_restart_and_its_time_with_it() {
    let place = Place::new();
    let log = place.open().room_log();
    let (concert, mut position) = begun(&log).await;
    place.clock.advance(TimeDelta::hours(1));
    exchange(&log, concert, &mut position, joins(3)).await;
    drop(log);
    place.clock.advance(TimeDelta::hours(-2));
    let log = place.open().room_log();
    assert!(!log.begin(concert, b"again".to_vec()).await.expect("an answer"));
    let records = exchange(&log, concert, &mut LogPosition { seq: 0, ..position }, joins(1)).await;
    assert_eq!(records.iter().map(|record| (record.seq, record.inputs.len())).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
    // The clock was set back by two hours, and the log's time goes back with it.
    let back = records[0].at - records[1].at;
    assert!(back > TimeDelta::minutes(115) && back <= TimeDelta::hours(2), "{} after {}", records[1].at, records[0].at);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_an_error_and_stops_no_other_reader() {
    let place = Place::new();
    let log = place.open().room_log();
    let (concert, mut position) = begun(&log).await;
    exchange(&log, concert, &mut position, joins(1)).await;
    place.outside().batch_execute("UPDATE room_records SET inputs = x'0900'").expect("changed");
    let read = log.exchange(concert, LogPosition { seq: 0, ..position }, Vec::new()).await;
    assert!(matches!(read, Err(RoomLogError::Broken(_))), "{read:?}");
    exchange(&log, concert, &mut position, joins(1)).await;
    assert_eq!(position.seq, 2, "a reader past the record goes on");
}

#[derive(QueryableByName)]
struct Seq {
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_leaves_one_snapshot_and_the_records_after_it() {
    let place = Place::new();
    let log = place.open().room_log();
    let (concert, mut position) = begun(&log).await;
    for _ in 0..5 {
        exchange(&log, concert, &mut position, joins(1)).await;
    }
    assert!(log.compact(concert, LogPosition { seq: 2, ..position }, b"two".to_vec()).await.expect("an answer"));
    assert!(log.compact(concert, LogPosition { seq: 3, ..position }, b"three".to_vec()).await.expect("an answer"));
    let left = |table: &str| -> Vec<i64> {
        let rows: Vec<Seq> = sql_query(format!("SELECT seq FROM {table} ORDER BY seq")).load(&mut place.outside()).expect("rows");
        rows.into_iter().map(|row| row.seq).collect()
    };
    assert_eq!((left("room_snapshots"), left("room_records")), (vec![3], vec![4, 5]));
}
