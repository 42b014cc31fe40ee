//! The stream of events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use boxoffice_adapters::rabbitmq::RabbitSink;
use boxoffice_domain::Event;
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{EventSink, OutboxRow};
use chrono::DateTime;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::support::{Client, LONG, POLL, new_name, own, shared, until};

fn rows(shard: u32, ids: std::ops::Range<i64>) -> Vec<OutboxRow> {
    let of = user();
    let row = |id| OutboxRow {
        shard,
        id,
        event: Event::WalletCharged { user: of, entry: fresh(), amount: 1 + id, balance: 1 + id },
        occurred_at: DateTime::UNIX_EPOCH,
    };
    ids.map(row).collect()
}

fn open(url: &str, name: &str) -> Arc<RabbitSink> {
    Arc::new(RabbitSink::open(url, name, Arc::default(), &*boxoffice_ports::contract::supervisor()).expect("settings"))
}

/// As a relay does: the same again until it is safe.
async fn publish_at_last(sink: &RabbitSink, rows: &[OutboxRow]) {
    while timeout(LONG, sink.publish(rows.to_vec())).await.expect("in time").is_err() {
        sleep(POLL).await;
    }
}

/// Reads the stream from its beginning, until `enough`: message id, routing key, body.
async fn read(
    client: &Client,
    stream: &str,
    enough: impl Fn(&[(String, String, serde_json::Value)]) -> bool,
) -> Vec<(String, String, serde_json::Value)> {
    let mut from = FieldTable::default();
    from.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let mut all = Vec::new();
    // The stream of a broker that has just started appears a little later than its clients.
    let mut consumer = until("the stream is there", async || {
        let channel = client.open().await;
        channel.basic_qos(100, BasicQosOptions::default()).await.expect("a prefetch");
        channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), from.clone()).await.ok()
    })
    .await;
    while !enough(&all) {
        let Ok(next) = timeout(LONG, consumer.next()).await else { panic!("only {} came", all.len()) };
        let delivery = next.expect("it goes on").expect("a delivery");
        delivery.ack(BasicAckOptions::default()).await.expect("acknowledged");
        let properties = &delivery.properties;
        assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/cloudevents+json"));
        let id = properties.message_id().clone().expect("an id").to_string();
        all.push((id, delivery.routing_key.to_string(), serde_json::from_slice(&delivery.data).expect("JSON")));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_late_reader_in_order() {
    let (url, name) = (shared().await.url(), new_name());
    let sink = open(&url, &name);
    // More than is published in one round trip.
    let steps: Vec<_> = (0..4).map(|shard| rows(shard, 0..1_500)).collect();
    let publishing: Vec<_> = steps.iter().cloned().map(|rows| (sink.clone(), rows)).collect();
    let publishing: Vec<_> = publishing.into_iter().map(|(sink, rows)| tokio::spawn(async move { sink.publish(rows).await })).collect();
    for step in publishing {
        timeout(LONG, step).await.expect("in time").expect("no panic").expect("published");
    }
    drop(sink);
    let read = read(&Client::connect(&url).await, &name, |all| all.len() == 6_000).await;
    for (shard, rows) in steps.iter().enumerate() {
        let prefix = format!("{shard}-");
        let found: Vec<_> = read.iter().filter(|(id, ..)| id.starts_with(&prefix)).collect();
        assert_eq!(found.len(), rows.len());
        for (row, (id, key, body)) in rows.iter().zip(found) {
            assert_eq!((id, key.as_str()), (&format!("{shard}-{}", row.id), "wallet.charged"));
            assert_eq!((body["id"].as_str(), body["data"]["amount"].as_i64()), (Some(id.as_str()), Some(1 + row.id)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_consumers_bind_queues_of_their_own() {
    let (url, name) = (shared().await.url(), new_name());
    let sink = open(&url, &name);
    sink.ping().await.expect("it answers");
    let mut client = Client::connect(&url).await;
    let (mine, others) = (new_name(), new_name());
    for (queue, key) in [(&mine, "wallet.*"), (&others, "payment.*")] {
        let channel = &client.channel;
        channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.expect("a queue");
        let bound =
            channel.queue_bind(queue.as_str().into(), name.as_str().into(), key.into(), QueueBindOptions::default(), FieldTable::default());
        bound.await.expect("bound");
    }
    sink.publish(rows(1, 0..3)).await.expect("published");
    assert_eq!(client.look(&mine, 3).await.len(), 3);
    assert_eq!(client.waiting(&others).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_without_a_stream_fails_and_is_published_again() {
    let (url, name) = (shared().await.url(), new_name());
    let sink = open(&url, &name);
    sink.publish(rows(1, 0..3)).await.expect("published");
    let client = Client::connect(&url).await;
    client.delete(&name).await;
    let step = rows(1, 3..6);
    sink.publish(step.clone()).await.expect_err("there is no stream");
    sink.publish(step).await.expect("declared again");
    let ids: Vec<_> = read(&client, &name, |all| all.len() == 3).await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["1-3", "1-4", "1-5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_survive_a_killed_broker_and_keep_their_order() {
    const STEP: i64 = 10;
    let mut broker = own().await;
    let (url, name) = (broker.url(), new_name());
    let (sink, stop) = (open(&url, &name), Arc::new(AtomicBool::new(false)));
    let published: Arc<Vec<AtomicI64>> = Arc::new((0..3).map(|_| AtomicI64::new(0)).collect());
    let mut relays = JoinSet::new();
    for shard in 0..3 {
        let (sink, stop, published) = (sink.clone(), stop.clone(), published.clone());
        relays.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let from = published[shard].load(Ordering::SeqCst);
                publish_at_last(&sink, &rows(shard as u32, from..from + STEP)).await;
                published[shard].fetch_add(STEP, Ordering::SeqCst);
            }
        });
    }
    let flows = async || {
        let before: Vec<_> = published.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let more = || published.iter().zip(&before).all(|(count, before)| count.load(Ordering::SeqCst) > before + 10 * STEP);
        until("every relay goes on", async || more().then_some(())).await;
    };
    flows().await;
    tokio::task::block_in_place(|| broker.write_down()).expect("written down");
    broker.kill().expect("killed");
    let broker = tokio::task::spawn_blocking(move || {
        broker.restart().expect("it starts again");
        broker
    });
    let broker = broker.await.expect("no panic");
    flows().await;
    tokio::task::block_in_place(|| broker.close_all_connections()).expect("closed");
    flows().await;
    stop.store(true, Ordering::SeqCst);
    timeout(LONG, relays.join_all()).await.expect("in time");
    let wanted: Vec<_> = published.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    let firsts = |all: &[(String, String, serde_json::Value)]| {
        let mut firsts = vec![Vec::new(); wanted.len()];
        let mut seen = BTreeSet::new();
        for (id, ..) in all {
            if seen.insert(id.clone()) {
                let (shard, id) = id.split_once('-').expect("shard and id");
                firsts[shard.parse::<usize>().expect("a shard")].push(id.parse::<i64>().expect("a number"));
            }
        }
        firsts
    };
    let count = wanted.iter().sum::<i64>() as usize;
    let client = Client::connect(&url).await;
    let all = read(&client, &name, |all| all.len() >= count && firsts(all).iter().map(Vec::len).sum::<usize>() == count).await;
    println!("{count} events, {} came", all.len());
    for (ids, wanted) in firsts(&all).into_iter().zip(wanted) {
        assert_eq!(ids, (0..wanted).collect::<Vec<_>>());
    }
}
