//! Messages between instances: received by all, split if they are long, and a gap after any that were missed.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::redis::{Redis, RedisFanout};
use boxoffice_domain::{SeatChange, SeatKey, SeatState};
use boxoffice_ports::contract::build::fresh;
use boxoffice_ports::{Fanout, FanoutListener, FanoutMessage, Traffic};
use boxoffice_services::Redis as Server;
use tokio::time::{sleep, timeout};

/// Longer than anything here needs.
const LONG: Duration = Duration::from_secs(60);

fn fanout(urls: &[String], traffic: &Arc<Traffic>) -> RedisFanout {
    RedisFanout::new(Redis::open(urls, traffic.clone()).expect("an address"))
}

fn changes(count: u32) -> Vec<SeatChange> {
    let date = fresh();
    let change = |number| SeatChange { key: SeatKey { date, number }, version: 3, state: SeatState::Sold { reservation: fresh() } };
    (1..=count).map(change).collect()
}

async fn received(listener: &mut Box<dyn FanoutListener>) -> FanoutMessage {
    timeout(LONG, listener.next()).await.expect("something is received")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_listeners_receive_the_changes_in_order_and_in_parts() {
    let node = Server::start().expect("Redis starts");
    let traffic = Arc::<Traffic>::default();
    let (one, other) = (fanout(&[node.url()], &traffic), fanout(&[node.url()], &Arc::default()));
    let mut listeners = [one.listen().await.expect("a listener"), other.listen().await.expect("a listener")];
    let before = traffic.counts().redis_commands;
    let (long, short) = (changes(2_500), changes(1));
    one.publish(long.clone()).await.expect("published");
    one.publish(Vec::new()).await.expect("a message without changes is published too");
    one.publish(short.clone()).await.expect("published");
    assert_eq!(traffic.counts().redis_commands - before, 5, "three parts, nothing, and one");
    for listener in &mut listeners {
        let mut parts = Vec::new();
        for _ in 0..5 {
            match received(listener).await {
                FanoutMessage::Seats(seats) => parts.push(seats),
                FanoutMessage::Gap => panic!("nothing was missed"),
            }
        }
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500, 0, 1]);
        assert_eq!(parts.concat(), [long.clone(), short.clone()].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_another_form_is_a_gap() {
    let node = Server::start().expect("Redis starts");
    let fanout = fanout(&[node.url()], &Arc::default());
    let mut listener = fanout.listen().await.expect("a listener");
    assert_eq!(node.command(&["PUBLISH", "boxoffice:seats", "\u{7f}who knows"]).expect("an answer"), ":1");
    assert_eq!(received(&mut listener).await, FanoutMessage::Gap);
    let sent = changes(1);
    fanout.publish(sent.clone()).await.expect("published");
    assert_eq!(received(&mut listener).await, FanoutMessage::Seats(sent), "it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_was_cut_off_reports_a_gap_and_receives_again() {
    let mut node = Server::start().expect("Redis starts");
    let traffic = Arc::<Traffic>::default();
    let fanout = fanout(&[node.url()], &traffic);
    let mut listener = fanout.listen().await.expect("a listener");
    for how in ["cut", "killed", "hung"] {
        let before = traffic.counts().redis_commands;
        match how {
            "cut" => assert_eq!(node.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).expect("an answer"), ":1"),
            "killed" => {
                node.kill().expect("killed");
                assert!(timeout(Duration::from_millis(200), listener.next()).await.is_err(), "nothing to receive");
                assert!(fanout.publish(changes(1)).await.is_err());
                node.restart().expect("Redis starts");
            }
            _ => node.pause().expect("paused"),
        }
        let receiving = tokio::spawn(async move {
            let gap = received(&mut listener).await;
            (listener, gap)
        });
        if how == "hung" {
            // A ping without an answer, and then another connection: the gap comes once the node is back.
            timeout(LONG, async {
                while traffic.counts().redis_commands < before + 2 {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .expect("the listener notices");
            node.resume().expect("resumed");
        }
        let gap;
        (listener, gap) = receiving.await.expect("no panic");
        assert_eq!(gap, FanoutMessage::Gap, "{how}");
        let sent = changes(1);
        timeout(LONG, async {
            while fanout.publish(sent.clone()).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("publishing works again");
        assert_eq!(received(&mut listener).await, FanoutMessage::Seats(sent), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_call_is_cancelled_misses_nothing() {
    let node = Server::start().expect("Redis starts");
    let fanout = fanout(&[node.url()], &Arc::default());
    let mut listener = fanout.listen().await.expect("a listener");
    for _ in 0..200 {
        let sent = changes(1);
        assert!(timeout(Duration::ZERO, listener.next()).await.is_err());
        fanout.publish(sent.clone()).await.expect("published");
        assert_eq!(received(&mut listener).await, FanoutMessage::Seats(sent));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_every_node_carries_the_messages() {
    let urls = crate::topologies::cluster::urls().await;
    let fanouts: Vec<_> = (0..3).map(|_| fanout(&urls, &Arc::default())).collect();
    let mut listeners = Vec::new();
    for fanout in &fanouts {
        listeners.push(fanout.listen().await.expect("a listener"));
    }
    for fanout in &fanouts {
        let sent = changes(2);
        fanout.publish(sent.clone()).await.expect("published");
        for listener in &mut listeners {
            assert_eq!(received(listener).await, FanoutMessage::Seats(sent.clone()));
        }
    }
}
