//! Events: one message each, in order for each seat, over any failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boxoffice_adapters::kafka::{KafkaSink, KafkaSinkOptions};
use boxoffice_domain::{DateId, Event, ReservationChange};
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{EventSink, OutboxRow, Traffic};
use boxoffice_services::Kafka;
use chrono::DateTime;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{LONG, StoredMessage, stored, until};

async fn open(brokers: &str, topic: &str, traffic: &Arc<Traffic>) -> Arc<KafkaSink> {
    let options = KafkaSinkOptions { brokers: brokers.to_owned(), events_topic: topic.to_owned(), partitions: 4, traffic: traffic.clone() };
    timeout(LONG, KafkaSink::open(options)).await.expect("in time").expect("a sink")
}

fn topic() -> String {
    format!("events-{}", fresh::<Uuid>())
}

fn held(date: DateId, seat: u32, id: i64) -> OutboxRow {
    let event = Event::Seat { change: ReservationChange::Held, date, seat, reservation: fresh() };
    OutboxRow { shard: 3, id, event, occurred_at: DateTime::UNIX_EPOCH }
}

fn event(of: &StoredMessage) -> Value {
    serde_json::from_slice(&of.bytes).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_lie_under_their_keys_as_cloud_events() {
    let (brokers, topic, traffic) = (Kafka::shared().brokers(), topic(), Arc::default());
    let sink = open(&brokers, &topic, &traffic).await;
    let (date, user) = (fresh(), user());
    let charged = Event::WalletCharged { user, entry: fresh(), amount: 5, balance: 5 };
    let rows = vec![held(date, 12, 1), OutboxRow { event: charged, ..held(date, 12, 2) }];
    sink.publish(rows.clone()).await.expect("published");
    sink.publish(Vec::new()).await.expect("nothing to publish is no error");
    sink.ping().await.expect("it answers");
    assert_eq!(traffic.counts().broker_messages, 2);
    let mut stored = stored(&brokers, &topic, rows.len()).await;
    stored.sort_by_key(|message| event(message)["id"].as_str().map(str::to_owned));
    assert_eq!(stored.iter().map(|message| message.key.clone()).collect::<Vec<_>>(), [Some(format!("{date}/12")), Some(user.to_string())]);
    for (message, (id, kind)) in stored.iter().zip([("3-1", "reservation.held"), ("3-2", "wallet.charged")]) {
        assert_eq!(message.headers, BTreeMap::from([("content-type".to_owned(), "application/cloudevents+json".to_owned())]));
        let event = event(message);
        assert_eq!((event["id"].as_str(), event["type"].as_str(), event["specversion"].as_str()), (Some(id), Some(kind), Some("1.0")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_seats_events_are_in_order_over_restarts_of_the_broker() {
    const SEATS: u32 = 7;
    const STEPS: i64 = 60;
    const STEP: i64 = 50;
    let mut kafka = tokio::task::spawn_blocking(|| Kafka::start().expect("Kafka starts")).await.expect("no panic");
    let (brokers, topic) = (kafka.brokers(), topic());
    let sink = open(&brokers, &topic, &Arc::default()).await;
    let date = fresh();
    let (progress, mut reached) = tokio::sync::watch::channel(0);
    let publishing = tokio::spawn(async move {
        let mut failures = 0;
        for step in 0..STEPS {
            let rows: Vec<_> = (step * STEP..(step + 1) * STEP).map(|id| held(date, (id % i64::from(SEATS)) as u32, id)).collect();
            // As the relay does: the same again until it is published.
            while let Err(error) = sink.publish(rows.clone()).await {
                println!("step {step}: {error}");
                failures += 1;
            }
            progress.send_replace(step);
        }
        failures
    });
    for step in [5, 20, 35] {
        timeout(LONG, reached.wait_for(|reached| *reached >= step)).await.expect("it goes on").expect("no panic");
        let restarted = tokio::task::spawn_blocking(move || {
            kafka.kill(0).expect("killed");
            kafka.restart(0).expect("Kafka comes back");
            kafka
        });
        kafka = restarted.await.expect("no panic");
    }
    println!("{} calls failed", timeout(LONG, publishing).await.expect("it ends").expect("no panic"));
    let stored = stored(&brokers, &topic, (STEPS * STEP) as usize).await;
    assert_in_order(&stored, SEATS, STEPS * STEP);
}

/// Among the first occurrences, each event comes after those before it with the same key.
fn assert_in_order(stored: &[StoredMessage], seats: u32, count: i64) {
    let mut first: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    // Messages are in order within a partition; a key in two partitions is checked below.
    for message in stored {
        let id: i64 = event(message)["id"].as_str().and_then(|id| id.strip_prefix("3-")).and_then(|id| id.parse().ok()).expect("an id");
        if seen.insert(id) {
            first.entry(message.key.clone().unwrap_or_default()).or_default().push(id);
        }
    }
    assert_eq!(seen.len() as i64, count, "nothing is missing");
    assert_eq!(first.len(), seats as usize);
    for (key, ids) in first {
        assert!(ids.is_sorted(), "{key}: {ids:?}");
    }
    let partitions =
        |key: &Option<String>| stored.iter().filter(|other| other.key == *key).map(|other| other.partition).collect::<BTreeSet<_>>();
    assert!(stored.iter().all(|message| partitions(&message.key).len() == 1), "each key lies in one partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_leaves_its_first_events_and_the_next_goes_on_from_there() {
    let mut kafka = tokio::task::spawn_blocking(|| Kafka::start().expect("Kafka starts")).await.expect("no panic");
    let (brokers, topic) = (kafka.brokers(), topic());
    let sink = open(&brokers, &topic, &Arc::default()).await;
    let date = fresh();
    let rows = |range: std::ops::Range<i64>| range.map(|id| held(date, 1, id)).collect::<Vec<_>>();
    sink.publish(rows(0..10)).await.expect("published");
    kafka.kill(0).expect("killed");
    timeout(LONG, sink.publish(rows(10..20))).await.expect("within its bound").expect_err("there is no broker");
    timeout(LONG, sink.ping()).await.expect("within its bound").expect_err("there is no broker");
    kafka = tokio::task::spawn_blocking(move || kafka.restart(0).map(|()| kafka)).await.expect("no panic").expect("Kafka comes back");
    until("it publishes again", async || sink.publish(rows(10..20)).await.is_ok()).await;
    sink.publish(rows(20..30)).await.expect("published");
    assert_in_order(&stored(&brokers, &topic, 30).await, 1, 30);
    drop(kafka);
}
