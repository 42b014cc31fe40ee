//! What every log of waiting rooms must do: one order for all who read, nothing twice, nothing between, whatever
//! happens at once.
//!
//! Each case has two instances on one store. [`Reader`] checks of every answer what holds for all of them: no gap, time
//! that goes back only when the clock was set back, and that what was appended comes last.

mod reader;
mod together;

use std::any::Any;
use std::sync::Arc;

use boxoffice_domain::draw::Hash32;
use boxoffice_domain::waiting::{Health, Lane, LaneTerms, PlaceClaim, RoomInput, RoomTerms, Stock};
use boxoffice_domain::{Admission, AdmissionMode, ConcertId, PerInterval, Timestamp};
use chrono::{DateTime, TimeDelta};

use self::reader::Reader;
pub use self::together::*;
use super::build::{admission, fresh, user};
use crate::{Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog};

/// Two instances on a fresh, empty store with a clock that can be moved, also back.
pub struct RoomLogFixture {
    pub log: Arc<dyn RoomLog>,
    pub other: Arc<dyn RoomLog>,
    pub advance: Arc<dyn Fn(TimeDelta) + Send + Sync>,
    /// Whatever must live as long as the store.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// One test for each case: `room_log_contract!(make)`, where `async fn make() -> RoomLogFixture`.
#[macro_export]
macro_rules! room_log_contract {
    ($make:path) => {
        $crate::contract_cases!($make; room_log {
            log_is_absent_until_it_begins
            one_of_many_who_begin_at_once_does
            both_instances_read_one_order
            answer_ends_with_what_was_appended
            appends_at_once_are_each_there_once_and_whole
            time_follows_the_clock_also_when_it_is_set_back
            time_stands_still_for_a_clock_that_is_a_little_behind
            who_is_far_behind_reads_on_before_appending
            who_has_just_one_answer_to_read_appends
            positions_outside_the_log_begin_again_and_append_nothing
            snapshot_stands_for_what_came_before
            compacting_what_is_not_there_does_nothing
            compacting_beside_appends_leaves_no_gap
            reading_beside_compacting_is_of_one_moment
            logs_are_each_concerts_own
            every_input_comes_back_as_it_was
            big_snapshots_and_records_come_back_whole
        });
    };
}

fn join() -> RoomInput {
    RoomInput::Join { user: user(), entry: fresh(), lane: Lane(0) }
}

fn joins(count: usize) -> Vec<RoomInput> {
    (0..count).map(|_| join()).collect()
}

/// The snapshot that the log of [`begun`] begins with.
const BEGUN: &[u8] = b"begun";

/// A concert whose log has begun.
async fn begun(fixture: &RoomLogFixture) -> ConcertId {
    let concert = fresh();
    assert!(fixture.log.begin(concert, BEGUN.to_vec()).await.expect("an answer"), "there was none");
    concert
}

async fn exchange(log: &Arc<dyn RoomLog>, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Exchanged {
    log.exchange(concert, since, inputs).await.expect("an exchange")
}

/// Where somebody begins who has read nothing.
async fn beginning(log: &Arc<dyn RoomLog>, concert: ConcertId) -> (LogPosition, Vec<u8>) {
    match exchange(log, concert, LogPosition::default(), Vec::new()).await {
        Exchanged::Begin { position, snapshot, .. } => (position, snapshot),
        other => panic!("a beginning was expected, and not {other:?}"),
    }
}

async fn compact(log: &Arc<dyn RoomLog>, concert: ConcertId, upto: LogPosition, snapshot: &[u8]) -> bool {
    log.compact(concert, upto, snapshot.to_vec()).await.expect("an answer")
}

pub async fn log_is_absent_until_it_begins(fixture: RoomLogFixture) {
    let concert = fresh();
    let absent = |exchanged| match exchanged {
        Exchanged::Absent { now } => now,
        other => panic!("there is no log, but {other:?}"),
    };
    let first: Timestamp = absent(exchange(&fixture.log, concert, LogPosition::default(), Vec::new()).await);
    (fixture.advance)(TimeDelta::hours(1));
    let second = absent(exchange(&fixture.other, concert, LogPosition { epoch: 7, seq: 3 }, joins(1)).await);
    assert!(second - first >= TimeDelta::hours(1), "{first} to {second}");
    assert!(!compact(&fixture.log, concert, LogPosition { epoch: 7, seq: 3 }, b"nothing").await);
    absent(exchange(&fixture.log, concert, LogPosition::default(), joins(1)).await);

    assert!(fixture.log.begin(concert, BEGUN.to_vec()).await.expect("an answer"));
    let mut reader = Reader::begin(&fixture.other, concert).await;
    assert_eq!((reader.snapshot.as_slice(), reader.position.seq), (BEGUN, 0));
    assert_ne!(reader.position.epoch, 0);
    reader.catch_up().await;
    assert!(reader.records.is_empty(), "what was told before it began is nowhere");
    assert!(!fixture.other.begin(concert, b"again".to_vec()).await.expect("an answer"));
    assert_eq!(beginning(&fixture.log, concert).await, (reader.position, BEGUN.to_vec()), "it stays as it was");
}

pub async fn both_instances_read_one_order(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut other = Reader::begin(&fixture.other, concert).await;
    assert_eq!(one.position, other.position);
    for at in 0..10 {
        let reader = if at % 3 == 0 { &mut one } else { &mut other };
        reader.append(joins(1 + at)).await;
    }
    one.catch_up().await;
    other.catch_up().await;
    assert_eq!(one.records.len(), 10);
    assert_eq!(one.records, other.records);
}

pub async fn answer_ends_with_what_was_appended(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut late = Reader::begin(&fixture.other, concert).await;
    for _ in 0..3 {
        one.append(joins(1)).await;
    }
    assert!(late.exchange(joins(2)).await, "appended in the same step");
    assert_eq!(late.records.len(), 4);
    assert_eq!(late.records[..3], one.records[..]);
    assert!(!late.exchange(Vec::new()).await, "there was nothing to append");
    assert_eq!(late.records.len(), 4, "and nothing new");
    one.catch_up().await;
    assert_eq!(one.records, late.records);
}

pub async fn time_follows_the_clock_also_when_it_is_set_back(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut other = Reader::begin(&fixture.other, concert).await;
    let first = one.append(joins(1)).await;
    (fixture.advance)(TimeDelta::hours(2));
    let second = other.append(joins(1)).await;
    assert!(second.at - first.at >= TimeDelta::hours(2), "{} to {}", first.at, second.at);
    (fixture.advance)(TimeDelta::hours(-5));
    one.catch_up().await;
    assert!(second.at - one.now() > TimeDelta::hours(4), "{} to {}: also of what only reads", second.at, one.now());
    let third = one.append(joins(1)).await;
    assert!(second.at - third.at > TimeDelta::hours(4), "{} to {}", second.at, third.at);
    assert!(compact(&fixture.log, concert, one.position, b"all").await);
    other.catch_up().await;
    let fourth = other.append(joins(1)).await;
    assert!(fourth.at >= third.at && fourth.at - third.at < TimeDelta::hours(1), "{} to {}", third.at, fourth.at);
}

/// Servers that stand in for each other have clocks that differ a little.
pub async fn time_stands_still_for_a_clock_that_is_a_little_behind(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    (fixture.advance)(TimeDelta::minutes(1));
    let first = one.append(joins(1)).await;
    (fixture.advance)(TimeDelta::milliseconds(-900));
    one.catch_up().await;
    let second = one.append(joins(1)).await;
    assert!(one.now() >= first.at && second.at >= first.at, "{} to {}", first.at, second.at);
}

pub async fn who_is_far_behind_reads_on_before_appending(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let count = 2 * RECORDS_READ_MAX + 7;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut late = Reader::begin(&fixture.other, concert).await;
    for _ in 0..count {
        one.append(joins(1)).await;
    }
    for answers in 1..=2 {
        assert!(!late.exchange(joins(1)).await, "there is more to be read first");
        assert_eq!(late.records.len(), answers * RECORDS_READ_MAX);
    }
    let before = one.records.len();
    one.catch_up().await;
    assert_eq!(one.records.len(), before, "nothing was appended meanwhile");
    assert!(late.exchange(joins(1)).await);
    assert_eq!(late.records.len(), count + 1);
    assert_eq!(late.records[..count], one.records[..]);

    // The same without anything to append.
    let mut idle = Reader::begin(&fixture.other, concert).await;
    for answers in 1..=2 {
        idle.exchange(Vec::new()).await;
        assert_eq!(idle.records.len(), answers * RECORDS_READ_MAX);
    }
    idle.catch_up().await;
    assert_eq!(idle.records, late.records);
}

pub async fn who_has_just_one_answer_to_read_appends(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut late = Reader::begin(&fixture.other, concert).await;
    for _ in 0..RECORDS_READ_MAX {
        one.append(joins(1)).await;
    }
    assert!(late.exchange(joins(1)).await);
    assert_eq!(late.records.len(), RECORDS_READ_MAX + 1);
}

pub async fn positions_outside_the_log_begin_again_and_append_nothing(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    for _ in 0..5 {
        one.append(joins(1)).await;
    }
    let at = one.position;
    assert!(compact(&fixture.log, concert, LogPosition { seq: 3, ..at }, b"three").await);
    let outside = [
        LogPosition::default(),
        LogPosition { epoch: 0, ..at },
        LogPosition { epoch: at.epoch ^ 1, ..at },
        LogPosition { epoch: u64::MAX, ..at },
        LogPosition { seq: at.seq + 1, ..at },
        LogPosition { seq: u64::MAX, ..at },
        LogPosition { seq: 2, ..at },
        LogPosition { seq: 0, ..at },
    ];
    for since in outside {
        for inputs in [Vec::new(), joins(1)] {
            let Exchanged::Begin { now, position, snapshot } = exchange(&fixture.other, concert, since, inputs).await else {
                panic!("{since:?} is not in the log");
            };
            assert_eq!((position, snapshot.as_slice()), (LogPosition { seq: 3, ..at }, b"three".as_slice()));
            assert!(now >= one.records[4].at);
        }
    }
    one.catch_up().await;
    assert_eq!(one.position, at, "nothing was appended");
}

pub async fn snapshot_stands_for_what_came_before(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut readers = Vec::new();
    for seq in 0..10 {
        let mut reader = Reader::begin(&fixture.other, concert).await;
        reader.catch_up().await;
        assert_eq!(reader.position.seq, seq);
        readers.push(reader);
        one.append(joins(1)).await;
    }
    let upto = LogPosition { seq: 6, ..one.position };
    assert!(compact(&fixture.other, concert, upto, b"six").await);
    assert_eq!(beginning(&fixture.log, concert).await, (upto, b"six".to_vec()));

    for mut reader in readers.drain(6..) {
        reader.catch_up().await;
        assert_eq!(reader.records, one.records, "whoever had come that far goes on undisturbed");
    }
    for reader in &readers {
        let begun = exchange(&fixture.other, concert, reader.position, Vec::new()).await;
        assert!(matches!(begun, Exchanged::Begin { position, .. } if position == upto), "{begun:?}");
    }
    let mut new = Reader::begin(&fixture.other, concert).await;
    assert!(new.exchange(joins(1)).await);
    one.catch_up().await;
    assert_eq!(new.records[..], one.records[6..], "whoever begins with it goes on without a gap");

    // Also when nothing is left beside it.
    let end = one.position;
    assert!(compact(&fixture.log, concert, end, b"all").await);
    assert_eq!(beginning(&fixture.other, concert).await, (end, b"all".to_vec()));
    assert_eq!(new.append(joins(1)).await.seq, end.seq + 1);
}

pub async fn compacting_what_is_not_there_does_nothing(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    assert!(!compact(&fixture.log, concert, one.position, b"again").await, "the snapshot stands for that already");
    for _ in 0..5 {
        one.append(joins(1)).await;
    }
    let at = one.position;
    let upto = LogPosition { seq: 3, ..at };
    assert!(compact(&fixture.log, concert, upto, b"three").await);
    let nowhere = [
        upto,
        LogPosition { seq: 2, ..at },
        LogPosition { seq: 0, ..at },
        LogPosition { seq: 6, ..at },
        LogPosition { seq: u64::MAX, ..at },
        LogPosition { epoch: at.epoch ^ 1, seq: 4 },
        LogPosition { epoch: u64::MAX, seq: 4 },
        LogPosition { epoch: 0, seq: 4 },
    ];
    for upto in nowhere {
        assert!(!compact(&fixture.other, concert, upto, b"wrong").await, "{upto:?}");
    }
    assert_eq!(beginning(&fixture.other, concert).await, (upto, b"three".to_vec()));
    let mut new = Reader::begin(&fixture.other, concert).await;
    new.catch_up().await;
    assert_eq!(new.records[..], one.records[3..]);
}

pub async fn logs_are_each_concerts_own(fixture: RoomLogFixture) {
    let (here, there) = (begun(&fixture).await, begun(&fixture).await);
    let mut one = Reader::begin(&fixture.log, here).await;
    let mut other = Reader::begin(&fixture.other, there).await;
    assert_ne!(one.position.epoch, other.position.epoch, "drawn for each");
    for at in 1..=5 {
        one.append(joins(at)).await;
        other.append(joins(10 + at)).await;
        assert_eq!((one.position.seq, other.position.seq), (at as u64, at as u64));
    }
    assert!(compact(&fixture.log, here, one.position, b"here").await);
    let strange = exchange(&fixture.log, here, other.position, joins(1)).await;
    assert!(matches!(strange, Exchanged::Begin { .. }), "{strange:?}");
    let mut new = Reader::begin(&fixture.log, there).await;
    assert_eq!((new.snapshot.as_slice(), new.position.seq), (BEGUN, 0));
    new.catch_up().await;
    assert_eq!(new.records, other.records);
}

/// Each kind of input, with and without what it may leave out.
fn kinds() -> Vec<RoomInput> {
    let at = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_800_000_000_123_456);
    let hash: Hash32 = std::array::from_fn(|at| at as u8);
    let own = Admission {
        mode: AdmissionMode::Draining,
        per_interval: Some(PerInterval { count: 3, seconds: 60 }),
        auto: true,
        adaptive: true,
        ..admission()
    };
    let terms = RoomTerms {
        sale_starts_at: Some(at),
        admission: own,
        active_ttl_s: 600,
        extensions_max: 2,
        grace_s: 30,
        waiting_grace_s: 120,
        p99_target_ms: 250,
        lanes: vec![LaneTerms { name: "Ünïon \u{1F3BB}".to_owned(), share: 250 }],
        commitment: Some(hash),
    };
    let plain = RoomTerms { sale_starts_at: None, admission: admission(), lanes: Vec::new(), commitment: None, ..terms.clone() };
    let claim = PlaceClaim { entry: fresh(), user: user(), lane: Lane(255), place: u64::MAX >> 1, active_until: Some(at) };
    vec![
        RoomInput::Open(terms),
        RoomInput::Open(plain),
        RoomInput::Join { user: user(), entry: fresh(), lane: Lane(3) },
        RoomInput::Leave { entry: fresh() },
        RoomInput::Finish { user: user(), paid_at: at },
        RoomInput::Extend { entry: fresh() },
        RoomInput::Lengthen { entry: fresh(), until: at },
        RoomInput::Tick(Stock { obtainable: 1 << 40, linked: true }),
        RoomInput::Admit { admission: own, version: i64::MAX },
        RoomInput::Connect { instance: fresh(), entries: vec![fresh(), fresh()] },
        RoomInput::Disconnect { instance: fresh(), entries: Vec::new() },
        RoomInput::Seen { entries: vec![fresh()] },
        RoomInput::Report { instance: fresh(), health: Some(Health { p99_ms: 17, errors_permille: 9, samples: 1_234 }) },
        RoomInput::Report { instance: fresh(), health: None },
        RoomInput::Restore(claim),
        RoomInput::Restore(PlaceClaim { place: 0, active_until: None, ..claim }),
        RoomInput::Reserve { to: 20_000 },
        RoomInput::Reveal { seed: hash, beacon: Some("a beacon".to_owned()) },
        RoomInput::Reveal { seed: [0; 32], beacon: None },
    ]
}

pub async fn every_input_comes_back_as_it_was(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut sent = Vec::new();
    for input in kinds() {
        sent.push(one.append(vec![input]).await.inputs);
    }
    sent.push(one.append(kinds()).await.inputs);
    let mut other = Reader::begin(&fixture.other, concert).await;
    other.catch_up().await;
    assert_eq!(other.records.into_iter().map(|record| record.inputs).collect::<Vec<_>>(), sent);
}

pub async fn big_snapshots_and_records_come_back_whole(fixture: RoomLogFixture) {
    const SNAPSHOT_BYTES: u32 = 20 << 20;
    const JOINS: usize = 2_000;
    let snapshot: Vec<u8> = (0..SNAPSHOT_BYTES).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    let (concert, empty) = (fresh(), fresh());
    assert!(fixture.log.begin(empty, Vec::new()).await.expect("an answer"));
    assert_eq!(beginning(&fixture.other, empty).await.1, Vec::<u8>::new());
    assert!(fixture.log.begin(concert, snapshot.clone()).await.expect("an answer"));
    let mut one = Reader::begin(&fixture.other, concert).await;
    assert!(one.snapshot == snapshot, "as it was");
    for _ in 0..5 {
        one.append(joins(JOINS)).await;
    }
    let mut other = Reader::begin(&fixture.log, concert).await;
    other.catch_up().await;
    assert_eq!(other.records, one.records);
    let again: Vec<u8> = snapshot.iter().map(|byte| !byte).collect();
    assert!(compact(&fixture.log, concert, LogPosition { seq: 4, ..one.position }, &again).await);
    let mut new = Reader::begin(&fixture.other, concert).await;
    assert!(new.snapshot == again, "the new one");
    new.catch_up().await;
    assert_eq!(new.records[..], one.records[4..]);
}
