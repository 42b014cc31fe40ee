//! Many writers on two instances, while the node is killed and restarted.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

const WRITERS: usize = 12;
const CRASHES: usize = 4;
/// How much is appended at least before each crash.
const PER_CRASH: usize = 150;

/// The writers, each with the inputs that were reported to it as appended, once all have read everything.
async fn through_crashes(options: &[&str]) -> Vec<(Replica, Vec<u64>)> {
    let mut node = Server::start_with(options).expect("Redis starts");
    let (logs, concert) = ([at(&node), at(&node)], fresh());
    let (appended, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (log, appended, over) = (Arc::clone(&logs[writer % 2]), Arc::clone(&appended), Arc::clone(&over));
        writers.spawn(async move {
            let (mut replica, mut reported) = (Replica::begin(log, concert).await, Vec::new());
            while !over.load(Ordering::SeqCst) {
                reported.push(replica.append().await);
                appended.fetch_add(1, Ordering::SeqCst);
                if reported.len() % 20 == writer {
                    replica.compact().await;
                }
            }
            (replica, reported)
        });
    }
    let grown = async |by| {
        let (before, deadline) = (appended.load(Ordering::SeqCst), Instant::now() + LONG);
        while appended.load(Ordering::SeqCst) < before + by {
            assert!(Instant::now() < deadline, "timed out waiting: the writers go on");
            sleep(Duration::from_millis(5)).await;
        }
    };
    for _ in 0..CRASHES {
        grown(PER_CRASH).await;
        node.kill().expect("killed");
        node.restart().expect("started");
    }
    grown(PER_CRASH).await;
    over.store(true, Ordering::SeqCst);
    let mut all = writers.join_all().await;
    for (replica, _) in &mut all {
        replica.catch_up().await;
    }
    let history = &all[0].0.history;
    assert_eq!(history.iter().collect::<HashSet<_>>().len(), history.len(), "no record is there twice");
    for (replica, _) in &all {
        assert_eq!((replica.position, &replica.history), (all[0].0.position, history), "all have the same history");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn with_each_write_on_disk_records_survive_each_crash() {
    let all = through_crashes(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let there: HashSet<_> = all[0].0.history.iter().collect();
    for (replica, reported) in &all {
        assert_eq!(replica.absences, 0, "the log was never absent");
        for (before, after) in reported.iter().zip(&reported[1..]) {
            let at = |input| replica.history.iter().position(|there| there == input);
            assert!(at(before) < at(after), "in the order in which they were reported");
        }
        assert!(reported.iter().all(|input| there.contains(input)), "every reported record is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_memory_alone_is_absent_after_a_crash_and_begins_again_from_a_replica() {
    let all = through_crashes(&[]).await;
    assert!(all.iter().map(|(replica, _)| replica.absences).sum::<usize>() >= CRASHES, "each crash is seen");
    let there: HashSet<_> = all[0].0.history.iter().collect();
    let survived = all.iter().flat_map(|(_, reported)| reported).filter(|input| there.contains(input)).count();
    assert!(survived >= PER_CRASH, "at least the records since the last crash: {survived}");
}
