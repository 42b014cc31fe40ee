//! Snapshots: beginning again from one, and putting one in the place of records.

use super::case::{RoomLogFixture, beginning, begun, compact, exchange, joins};
use super::reader::Reader;
use crate::{Exchanged, LogPosition};

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
        assert_eq!(reader.records, one.records, "a reader that had come that far goes on undisturbed");
    }
    for reader in &readers {
        let begun = exchange(&fixture.other, concert, reader.position, Vec::new()).await;
        assert!(matches!(begun, Exchanged::Begin { position, .. } if position == upto), "{begun:?}");
    }
    let mut new = Reader::begin(&fixture.other, concert).await;
    assert!(new.exchange(joins(1)).await);
    one.catch_up().await;
    assert_eq!(new.records[..], one.records[6..], "a reader that begins with it goes on without a gap");

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
