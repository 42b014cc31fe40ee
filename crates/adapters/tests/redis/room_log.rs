//! The logs of the waiting rooms: the contract, losses that a reader must notice, and nodes that end under load.

mod crash;
mod figures;
mod loss;
mod nodes;
mod replica;
mod snapshots;
mod twice;

use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::redis::{Redis, RedisRoomLog};
use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::contract::room_log::RoomLogFixture;
use boxoffice_ports::{Exchanged, LogPosition, RoomLog, RoomLogError};
use boxoffice_services::Redis as Server;
use chrono::DateTime;
use tokio::time::{Instant, sleep};

use replica::Replica;

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(120);

fn instance(urls: &[String], clock: Arc<SystemClock>) -> Arc<dyn RoomLog> {
    Arc::new(RedisRoomLog::new(Redis::open(urls, Arc::default()).expect("an address"), clock))
}

fn at(node: &Server) -> Arc<dyn RoomLog> {
    instance(&[node.url()], Arc::default())
}

fn fixture(urls: &[String]) -> RoomLogFixture {
    let clock = Arc::new(SystemClock::default());
    let (log, other) = (instance(urls, Arc::clone(&clock)), instance(urls, Arc::clone(&clock)));
    RoomLogFixture { log, other, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(()) }
}

mod alone {
    async fn make() -> boxoffice_ports::contract::room_log::RoomLogFixture {
        super::fixture(&[boxoffice_services::Redis::shared().url()])
    }

    boxoffice_ports::room_log_contract!(make);
}

/// Pauses before a retry, if the log is unavailable: a node that restarts, or a fail-over, takes some time.
async fn wait_out(error: RoomLogError, deadline: Instant) {
    assert!(matches!(error, RoomLogError::Unavailable(_)) && Instant::now() < deadline, "{error}");
    sleep(Duration::from_millis(20)).await;
}

fn key(concert: ConcertId, part: &str) -> String {
    format!("boxoffice:log:{{{concert}}}:{part}")
}

fn number(word: &str) -> i64 {
    word.trim_start_matches(':').parse().expect("a number")
}

/// The value of a field of `INFO`.
fn info(node: &Server, section: &str, field: &str) -> i64 {
    let script = format!("return tonumber(redis.call('INFO', '{section}'):match('{field}:(%d+)'))");
    number(&node.command(&["EVAL", &script, "0"]).expect("an answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_writes_nothing() {
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    for _ in 0..5 {
        replica.append().await;
    }
    let written = info(&node, "persistence", "rdb_changes_since_last_save");
    let mut late = Replica::begin(at(&node), replica.concert).await;
    for _ in 0..50 {
        late.catch_up().await;
    }
    assert_eq!(late.history, replica.history);
    assert_eq!(info(&node, "persistence", "rdb_changes_since_last_save"), written);
    late.append().await;
    assert!(info(&node, "persistence", "rdb_changes_since_last_save") > written, "a write counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_logs_expire_and_reading_keeps_them() {
    let node = Server::start().expect("Redis starts");
    let (parts, concert, week) = (["head", "records", "snapshot"], fresh(), 7 * 24 * 3_600);
    let ttl = |part| number(&node.command(&["TTL", &key(concert, part)]).expect("an answer"));
    assert!(at(&node).begin(concert, b"12345678".to_vec()).await.expect("an answer"));
    assert!(ttl("head") > week - 60 && ttl("snapshot") > week - 60, "also without any reader");
    let mut replica = Replica::begin(at(&node), concert).await;
    replica.append().await;
    assert!(parts.iter().all(|part| (week - 60..=week).contains(&ttl(part))), "a week");
    replica.compact().await;
    replica.append().await;
    assert!(parts.iter().all(|part| (week - 60..=week).contains(&ttl(part))), "also the keys that were made anew");
    for part in parts {
        node.command(&["EXPIRE", &key(concert, part), "600"]).expect("an answer");
    }
    replica.catch_up().await;
    assert!(parts.iter().all(|part| ttl(part) > week - 60), "refreshed");
    assert_eq!(number(&node.command(&["DBSIZE"]).expect("an answer")), 3, "and nothing else is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_part_missing_is_absent_and_begins_anew() {
    let node = Server::start().expect("Redis starts");
    for part in ["head", "records", "snapshot"] {
        let mut replica = Replica::begin(at(&node), fresh()).await;
        replica.append().await;
        assert!(replica.compact().await);
        for _ in 0..2 {
            replica.append().await;
        }
        assert_eq!(node.command(&["DEL", &key(replica.concert, part)]).expect("an answer"), ":1");
        let asked = replica.log.exchange(replica.concert, replica.position, Vec::new()).await.expect("an answer");
        assert!(matches!(asked, Exchanged::Absent { .. }), "without {part}: {asked:?}");
        let before = replica.history.clone();
        replica.append().await;
        assert_eq!(replica.absences, 1, "the parts that were left disturb no writer");
        let mut other = Replica::begin(at(&node), replica.concert).await;
        other.catch_up().await;
        assert_eq!((&other.history[..3], other.history.len()), (&before[..], 4), "without {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_make_no_sense_are_broken() {
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    replica.append().await;
    let since = LogPosition { seq: 0, ..replica.position };
    let records = key(replica.concert, "records");
    // Too short; of a version that does not exist; without inputs.
    for record in ["short", "12345678stampstaX", "12345678stampsta"] {
        assert_eq!(node.command(&["LSET", &records, "0", record]).expect("an answer"), "+OK");
        let asked = replica.log.exchange(replica.concert, since, Vec::new()).await;
        assert!(matches!(asked, Err(RoomLogError::Broken(_))), "{record}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_unavailable_until_it_answers_again() {
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    replica.append().await;
    node.pause().expect("paused");
    let hung = replica.log.exchange(replica.concert, replica.position, Vec::new()).await;
    assert!(matches!(hung, Err(RoomLogError::Unavailable(_))), "{hung:?}");
    node.resume().expect("resumed");
    replica.append().await;
    assert_eq!(replica.history.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded_and_appending_comes_after_reading_everything() {
    const RECORDS: usize = 40;
    const PER_RECORD: u64 = 20_000;
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    let mut late = Replica::begin(at(&node), replica.concert).await;
    for record in 0..RECORDS as u64 {
        let long = (0..PER_RECORD).map(|nth| RoomInput::Reserve { to: (1 << 40) + record * PER_RECORD + nth }).collect();
        assert!(replica.ask(long).await.expect("an answer"));
    }
    assert!(!late.ask(vec![RoomInput::Reserve { to: 1 }]).await.expect("an answer"), "there are more records to read first");
    assert!((1..RECORDS as u64).contains(&late.position.seq), "a part of the records: {}", late.position.seq);
    late.append().await;
    assert_eq!(late.position.seq, RECORDS as u64 + 1);
    assert_eq!(late.history[..replica.history.len()], replica.history);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appending_instance_reads_the_same_record_as_all_others() {
    let node = Server::start().expect("Redis starts");
    let replica = Replica::begin(at(&node), fresh()).await;
    let fine = DateTime::from_timestamp(1_800_000_000, 123_456_789).expect("a time");
    let finish = RoomInput::Finish { user: user(), paid_at: fine };
    let asked = async |log: &Arc<dyn RoomLog>, inputs| match log.exchange(replica.concert, replica.position, inputs).await {
        Ok(Exchanged::Records { records, .. }) => records,
        other => panic!("{other:?}"),
    };
    let own = asked(&replica.log, vec![finish]).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own, asked(&at(&node), Vec::new()).await);
}
