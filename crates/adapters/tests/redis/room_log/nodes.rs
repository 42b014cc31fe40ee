//! The logs on a Cluster, and behind Sentinel during a fail-over.

use super::*;
use crate::topologies::{cluster, sentinel::Sentinel};

mod on_a_cluster {
    async fn make() -> boxoffice_ports::contract::room_log::RoomLogFixture {
        super::fixture(&super::cluster::urls().await)
    }

    boxoffice_ports::room_log_contract!(make);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_keeps_the_log_of_the_replica_and_an_empty_one_begins_again() {
    for replica_is_empty in [false, true] {
        let mut master = Server::start().expect("Redis starts");
        let follower = Server::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]).expect("Redis starts");
        let sentinel = Sentinel::start(&master);
        let deadline = Instant::now() + LONG;
        // Sentinel can only promote a replica that it knows.
        while sentinel.replicas() == 0 {
            assert!(Instant::now() < deadline, "Sentinel does not find the replica");
            sleep(Duration::from_millis(50)).await;
        }
        let log = || instance(&[sentinel.url()], Arc::default());
        let mut ahead = Replica::begin(log(), fresh()).await;
        let mut behind = Replica::begin(log(), ahead.concert).await;
        for _ in 0..3 {
            ahead.append().await;
        }
        let before = ahead.history.clone();
        // Replication keeps the order: a replica that has this has the log.
        master.command(&["SET", "followed", "yes"]).expect("an answer");
        while follower.command(&["EXISTS", "followed"]).expect("an answer") != ":1" {
            assert!(Instant::now() < deadline, "the replica does not follow");
            sleep(Duration::from_millis(50)).await;
        }
        master.kill().expect("killed");
        ahead.catch_up().await;
        assert_eq!((&ahead.history, ahead.beginnings, ahead.absences), (&before, 0, 0));
        if replica_is_empty {
            follower.flush().expect("flushed");
        }
        let more = ahead.append().await;
        assert_eq!(ahead.absences, usize::from(replica_is_empty));
        behind.catch_up().await;
        assert_eq!(behind.history, [&before[..], &[more]].concat());
        assert_eq!(behind.position, ahead.position);
    }
}
