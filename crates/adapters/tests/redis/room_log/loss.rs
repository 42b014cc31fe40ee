//! A node that comes back from an old file: whoever read what is lost begins again, whatever was appended since.

use super::*;

/// A log of which `saved` records are on disk and `lost` more are not, the node started again, and who had read them
/// all, how far the log was saved, and who had read no more than that.
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
async fn who_read_what_is_lost_begins_again_and_everybody_else_with_them() {
    let (_node, mut ahead, kept, mut behind) = started_again(3, 2).await;
    let epoch = ahead.position.epoch;
    ahead.catch_up().await;
    assert_eq!((ahead.beginnings, &ahead.history), (1, &kept));
    assert_ne!(ahead.position.epoch, epoch, "a loss shows");
    behind.catch_up().await;
    assert_eq!((behind.beginnings, behind.position), (1, ahead.position));
    let told = [behind.append().await, ahead.append().await, behind.append().await];
    ahead.catch_up().await;
    assert_eq!(ahead.history, [&kept[..], &told].concat());
    assert_eq!((ahead.history == behind.history, ahead.beginnings, behind.beginnings), (true, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_on_behind_records_that_took_the_place_of_those_they_read() {
    // Shorter than what was lost, as long, and longer; the position in the middle of the log, and at its end.
    for appended in 1..=4 {
        let (_node, mut ahead, kept, mut behind) = started_again(3, 2).await;
        let mut told = Vec::new();
        for _ in 0..appended {
            told.push(behind.append().await);
        }
        assert_eq!(behind.beginnings, 0, "who lost nothing goes on");
        told.push(ahead.append().await);
        assert_eq!(ahead.beginnings, 1, "{appended} appended");
        behind.catch_up().await;
        let expected = [&kept[..], &told].concat();
        assert_eq!((&ahead.history, &behind.history), (&expected, &expected), "{appended} appended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_what_is_lost_takes_the_place_of_nothing() {
    for appended in [0, 2, 3] {
        let (node, ahead, kept, mut behind) = started_again(3, 2).await;
        for _ in 0..appended {
            behind.append().await;
        }
        assert!(!ahead.compact().await, "{appended} appended");
        let mut new = Replica::begin(at(&node), ahead.concert).await;
        new.catch_up().await;
        assert_eq!((new.history == behind.history, &new.history[..3]), (true, &kept[..]));
        assert!(appended == 0 || behind.compact().await, "one of what is there does");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_nobody_read_here_begin_again_in_the_same_log() {
    let node = Server::start().expect("Redis starts");
    let mut replica = Replica::begin(at(&node), fresh()).await;
    replica.append().await;
    let beyond = LogPosition { seq: replica.position.seq + 1, ..replica.position };
    let asked = at(&node).exchange(replica.concert, beyond, Vec::new()).await.expect("an answer");
    assert!(matches!(asked, Exchanged::Begin { position, .. } if position.epoch == replica.position.epoch), "{asked:?}");
    replica.append().await;
    assert_eq!(replica.beginnings, 0, "nobody is disturbed by a wrong position");
}
