//! One order for every reader: appending, reading, and time.

use boxoffice_domain::draw::Hash32;
use boxoffice_domain::waiting::{Health, LaneTerms, PlaceClaim, RoomInput, RoomTerms};
use boxoffice_domain::{Admission, AdmissionMode, Lane, PerInterval, Stock, Timestamp};
use chrono::{DateTime, TimeDelta};

use super::super::build::{admission, fresh, user};
use super::case::{BEGUN, RoomLogFixture, beginning, begun, compact, exchange, joins};
use super::reader::Reader;
use crate::{Exchanged, LogPosition, RECORDS_READ_MAX};

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
    assert!(reader.records.is_empty(), "what was appended before it began is nowhere");
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

pub async fn a_reader_far_behind_reads_on_before_appending(fixture: RoomLogFixture) {
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

pub async fn a_reader_one_answer_behind_appends(fixture: RoomLogFixture) {
    let concert = begun(&fixture).await;
    let mut one = Reader::begin(&fixture.log, concert).await;
    let mut late = Reader::begin(&fixture.other, concert).await;
    for _ in 0..RECORDS_READ_MAX {
        one.append(joins(1)).await;
    }
    assert!(late.exchange(joins(1)).await);
    assert_eq!(late.records.len(), RECORDS_READ_MAX + 1);
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
