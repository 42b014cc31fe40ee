//! Snapshots that are sent and read in pieces.

use super::*;

/// A few pieces long.
const LONG_BYTES: usize = 3 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_a_snapshot_are_not_left_behind() {
    let node = Server::start().expect("Redis starts");
    let (log, concert) = (at(&node), fresh());
    let long = || vec![7; LONG_BYTES];
    let keys = || number(&node.command(&["DBSIZE"]).expect("an answer"));
    // At once, so that both send theirs before either gets its answer.
    let (one, other) = tokio::join!(log.begin(concert, long()), log.begin(concert, long()));
    assert_ne!(one.expect("an answer"), other.expect("an answer"), "one of them does");
    assert_eq!(keys(), 2, "head and snapshot");
    let mut replica = Replica::begin(Arc::clone(&log), concert).await;
    replica.append().await;
    let (one, other) = tokio::join!(log.compact(concert, replica.position, long()), log.compact(concert, replica.position, long()));
    assert_ne!(one.expect("an answer"), other.expect("an answer"), "one of them does");
    assert_eq!(keys(), 2, "and no records any more");
}

/// Each byte of a snapshot is its position.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_replaced_while_it_is_read_is_read_again() {
    const REPLACED: u8 = 40;
    let node = Server::start().expect("Redis starts");
    let (log, concert) = (at(&node), fresh());
    assert!(log.begin(concert, vec![0; LONG_BYTES]).await.expect("an answer"));
    let writer = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let since = LogPosition::default();
            let Ok(Exchanged::Begin { mut position, .. }) = log.exchange(concert, since, Vec::new()).await else { panic!("it has begun") };
            for nth in 1..=REPLACED {
                let appended = log.exchange(concert, position, vec![RoomInput::Reserve { to: u64::from(nth) }]).await;
                assert!(matches!(appended, Ok(Exchanged::Records { appended: true, .. })), "{appended:?}");
                position.seq += 1;
                assert!(log.compact(concert, position, vec![nth; LONG_BYTES]).await.expect("an answer"));
            }
        })
    };
    let (other, mut last) = (at(&node), 0);
    while last < u64::from(REPLACED) {
        match other.exchange(concert, LogPosition::default(), Vec::new()).await {
            Ok(Exchanged::Begin { position, snapshot, .. }) => {
                last = position.seq;
                assert!(snapshot.len() == LONG_BYTES && snapshot.iter().all(|byte| u64::from(*byte) == last), "all of {last}");
            }
            // A reader so slow gets an error.
            Err(RoomLogError::Unavailable(_)) => {}
            answer => panic!("{answer:?}"),
        }
    }
    writer.await.expect("no panic");
}
