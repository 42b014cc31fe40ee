//! The waiting room on a Cluster, and behind Sentinel through a fail-over to a replica that knows nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;
use crate::topologies::{cluster, sentinel::Sentinel};

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(60);

mod on_a_cluster {
    async fn make() -> boxoffice_ports::contract::Fixture {
        super::fixture(&super::cluster::urls().await, 2)
    }

    boxoffice_ports::room_contract!(make);
}

/// Asks until it answers: a fail-over needs its time.
async fn until<T>(mut ask: impl AsyncFnMut() -> Result<T, RoomError>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(RoomError::Unavailable(error)) => assert!(Instant::now() < deadline, "{error}"),
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_keeps_turns_and_places() {
    for replica_is_empty in [false, true] {
        let mut master = Server::start().expect("Redis starts");
        let replica = Server::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]).expect("Redis starts");
        let sentinel = Sentinel::start(&master);
        let deadline = Instant::now() + LONG;
        // What Sentinel does not know it cannot make the master.
        while sentinel.replicas() == 0 {
            assert!(Instant::now() < deadline, "Sentinel does not find the replica");
            sleep(Duration::from_millis(50)).await;
        }
        let pair = Pair::open(&[sentinel.url()], Admission { max_active: 3, ..admission() }).await;
        let places = pair.join_many(6).await;
        pair.tick(PLENTY).await;
        let turn = pair.place(places[0].entry).await.expect("a place");
        // Replication keeps the order: a replica that has this has the room.
        master.command(&["SET", "followed", "yes"]).expect("an answer");
        while replica.command(&["EXISTS", "followed"]).expect("an answer") != ":1" {
            assert!(Instant::now() < deadline, "the replica does not follow");
            sleep(Duration::from_millis(50)).await;
        }
        master.kill().expect("killed");
        let touched = async || pair.rooms[0].touch(pair.concert, turn.entry).await;
        until(touched).await;
        if replica_is_empty {
            replica.flush().expect("flushed");
        }
        let now = until(touched).await.expect("a place");
        assert_eq!((now.status, now.active_until), (QueueStatus::Active, turn.active_until));
        for place in &places[3..] {
            let back = until(async || pair.rooms[1].restore(pair.concert, claim(place)).await).await.expect("a place");
            assert_eq!((back.status, back.arrival), (QueueStatus::Waiting, place.arrival));
        }
        let new = until(async || pair.rooms[0].join(pair.concert, user(), fresh()).await).await.place;
        assert!(new.arrival > 6);
        assert_eq!(until(async || pair.rooms[1].tick(pair.concert, PLENTY).await).await.promoted, 0);
        pair.rooms[1].leave(pair.concert, turn.entry).await.expect("left");
        assert_eq!(until(async || pair.rooms[1].tick(pair.concert, PLENTY).await).await.promoted, 1);
        assert_eq!(pair.counts().await.active, 3);
    }
}
