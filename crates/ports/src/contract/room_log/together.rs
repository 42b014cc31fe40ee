//! Many at once, over both instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_domain::waiting::RoomInput;
use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::build::fresh;
use super::case::{RoomLogFixture, beginning, begun, compact, joins};
use super::reader::Reader;
use crate::LogPosition;

/// Longer than any case needs.
const LONG: Duration = Duration::from_secs(60);

pub async fn one_of_many_beginnings_at_once_wins(fixture: RoomLogFixture) {
    const INSTANCES: u8 = 20;
    let concert = fresh();
    let mut tasks = JoinSet::new();
    for at in 0..INSTANCES {
        let log = Arc::clone(if at % 2 == 0 { &fixture.log } else { &fixture.other });
        tasks.spawn(async move { log.begin(concert, vec![at; 100]).await.expect("an answer").then_some(at) });
    }
    let began: Vec<u8> = timeout(LONG, tasks.join_all()).await.expect("in time").into_iter().flatten().collect();
    assert_eq!(began.len(), 1, "{began:?}");
    let here = beginning(&fixture.log, concert).await;
    assert_eq!(here.1, vec![began[0]; 100], "its own snapshot");
    assert_eq!(beginning(&fixture.other, concert).await, here);
}

/// Beside a clock that is moved to and fro.
pub async fn appends_at_once_are_each_there_once_and_whole(fixture: RoomLogFixture) {
    const TASKS: usize = 16;
    const APPENDS: usize = 12;
    let concert = begun(&fixture).await;
    let mut tasks = JoinSet::new();
    for at in 0..TASKS {
        let (log, advance) = (Arc::clone(if at % 2 == 0 { &fixture.log } else { &fixture.other }), Arc::clone(&fixture.advance));
        tasks.spawn(async move {
            let mut reader = Reader::begin(&log, concert).await;
            let mut sent = Vec::new();
            for nth in 0..APPENDS {
                advance(TimeDelta::minutes(if (at + nth) % 2 == 0 { 10 } else { -9 }));
                sent.push(reader.append(joins(1 + at)).await);
            }
            (reader, sent)
        });
    }
    let done = timeout(LONG, tasks.join_all()).await.expect("in time");
    let mut all = Reader::begin(&fixture.log, concert).await;
    all.catch_up().await;
    assert_eq!(all.records.len(), TASKS * APPENDS);
    for (mut reader, sent) in done {
        for record in sent {
            assert_eq!(all.records[record.seq as usize - 1], record, "each at the position that its sender got");
        }
        reader.catch_up().await;
        assert_eq!(reader.records, all.records);
    }
}

/// The snapshots contain in words how far they go, so that a reader that begins with one can check it.
pub async fn compacting_beside_appends_leaves_no_gap(fixture: RoomLogFixture) {
    const TASKS: usize = 8;
    const APPENDS: usize = 15;
    let concert = begun(&fixture).await;
    let mut tasks: JoinSet<Vec<Vec<RoomInput>>> = JoinSet::new();
    for at in 0..TASKS {
        let log = Arc::clone(if at % 2 == 0 { &fixture.log } else { &fixture.other });
        tasks.spawn(async move {
            let mut reader = Reader::begin(&log, concert).await;
            let mut sent = Vec::new();
            for nth in 0..APPENDS {
                sent.push(reader.append(joins(1)).await.inputs);
                if nth % 4 == at % 4 {
                    let upto = LogPosition { seq: reader.position.seq.saturating_sub(at as u64), ..reader.position };
                    compact(&log, concert, upto, upto.seq.to_string().as_bytes()).await;
                }
            }
            sent
        });
    }
    let mut last = Reader::begin(&fixture.other, concert).await;
    let watch = async {
        let mut seen = 0;
        while last.position.seq < (TASKS * APPENDS) as u64 {
            last.catch_up().await;
            let from = last.position.seq - last.records.len() as u64;
            let expected = if from == 0 { "begun".to_owned() } else { from.to_string() };
            assert_eq!(String::from_utf8_lossy(&last.snapshot), expected, "the snapshot stands for what came before it");
            assert!(last.position.seq >= seen, "nothing comes twice");
            seen = last.position.seq;
            tokio::task::yield_now().await;
        }
        last
    };
    let last = timeout(LONG, watch).await.expect("in time");
    let sent: Vec<_> = timeout(LONG, tasks.join_all()).await.expect("in time").into_iter().flatten().collect();
    assert_eq!(sent.len(), TASKS * APPENDS);
    for record in &last.records {
        assert!(sent.contains(&record.inputs), "one of those sent");
    }
    let (position, snapshot) = beginning(&fixture.log, concert).await;
    assert!(position.seq > 0, "it was compacted");
    assert_eq!(snapshot, position.seq.to_string().into_bytes());
}

/// A new reader gets a snapshot and its own position, however often both change meanwhile.
pub async fn reading_beside_compacting_is_of_one_moment(fixture: RoomLogFixture) {
    const COMPACTIONS: usize = 100;
    let concert = begun(&fixture).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for at in 0..6 {
        let (log, done) = (Arc::clone(if at % 2 == 0 { &fixture.log } else { &fixture.other }), Arc::clone(&done));
        tasks.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let (position, snapshot) = beginning(&log, concert).await;
                let expected = if position.seq == 0 { "begun".to_owned() } else { position.seq.to_string() };
                assert_eq!(String::from_utf8_lossy(&snapshot), expected);
            }
        });
    }
    let write = async {
        let mut one = Reader::begin(&fixture.log, concert).await;
        for _ in 0..COMPACTIONS {
            one.append(joins(1)).await;
            assert!(compact(&fixture.other, concert, one.position, one.position.seq.to_string().as_bytes()).await);
        }
    };
    timeout(LONG, write).await.expect("in time");
    done.store(true, Ordering::Relaxed);
    timeout(LONG, tasks.join_all()).await.expect("in time");
}
