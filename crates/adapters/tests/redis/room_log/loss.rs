//! A node that restarts from an old file: readers of lost records begin again, however much was appended since.

use super::*;

/// A node restarted with a log of which `saved` records are on disk and `lost` more are not. With it, a replica that had
/// read all of them, the saved history, and a replica that had read no more than that.
async fn started_again(saved: usize, lost: usize) -> (Server, Replica, Vec<u64>, Replica) {
    let mut node = Server::start().expect("Redis starts");
    let mut ahead = Replica::begin(at(&node), fresh()).await;
    for _ in 0..saved {
        ahead.append().await;
    }
    let mut behind = Replica::begin(at(&node), ahead.concert).await;
    behind.catch_up().await;
    let kept = ahead.history.clone();
    assert_eq!(node.command(&["SAVE"]).expect("an answer"), "+OK");
    for _ in 0..lost {
        ahead.append().await;
    }
    node.kill().expect("killed");
    node.restart().expect("started");
    (node, ahead, kept, behind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_lost_records_begins_again_and_all_others_with_it() {
    let (_node, mut ahead, kept, mut behind) = started_again(3, 2).await;
    let epoch = ahead.position.epoch;
    ahead.catch_up().await;
    assert_eq!((ahead.beginnings, &ahead.history), (1, &kept));
    assert_ne!(ahead.position.epoch, epoch, "a loss changes the epoch");
    behind.catch_up().await;
    assert_eq!((behind.beginnings, behind.position), (1, ahead.position));
    let appended = [behind.append().await, ahead.append().await, behind.append().await];
    ahead.catch_up().await;
    assert_eq!(ahead.history, [&kept[..], &appended].concat());
    assert_eq!((ahead.history == behind.history, ahead.beginnings, behind.beginnings), (true, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_goes_on_behind_records_that_replaced_those_it_read() {
    // Fewer records than were lost, as many, and more; the position in the middle of the log, and at its end.
    for appended in 1..=4 {
        let (_node, mut ahead, kept, mut behind) = started_again(3, 2).await;
        let mut new = Vec::new();
        for _ in 0..appended {
            new.push(behind.append().await);
        }
        assert_eq!(behind.beginnings, 0, "a reader that lost nothing goes on");
        new.push(ahead.append().await);
        assert_eq!(ahead.beginnings, 1, "{appended} appended");
        behind.catch_up().await;
        let expected = [&kept[..], &new].concat();
        assert_eq!((&ahead.history, &behind.history), (&expected, &expected), "{appended} appended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_with_lost_records_replaces_nothing() {
    for appended in [0, 2, 3] {
        let (node, ahead, kept, mut behind) = started_again(3, 2).await;
        for _ in 0..appended {
            behind.append().await;
        }
        assert!(!ahead.compact().await, "{appended} appended");
        let mut new = Replica::begin(at(&node), ahead.concert).await;
        new.catch_up().await;
        assert_eq!((new.history == behind.history, &new.history[..3]), (true, &kept[..]));
        assert!(appended == 0 || behind.compact().await, "a snapshot of existing records does");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_positions_beyond_the_log_begin_again_in_the_same_log() {
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    replica.append().await;
    let beyond = LogPosition { seq: replica.position.seq + 1, ..replica.position };
    let asked = at(&node).exchange(replica.concert, beyond, Vec::new()).await.expect("an answer");
    assert!(matches!(asked, Exchanged::Begin { position, .. } if position.epoch == replica.position.epoch), "{asked:?}");
    replica.append().await;
    assert_eq!(replica.beginnings, 0, "a wrong position does not affect other readers");
}
