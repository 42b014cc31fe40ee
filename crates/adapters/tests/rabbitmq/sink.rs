//! The stream of events.

use std::collections::BTreeMap;
use std::sync::Arc;

use boxoffice_adapters::rabbitmq::RabbitSink;
use boxoffice_domain::Event;
use boxoffice_ports::contract::build::{fresh, user};
use boxoffice_ports::{EventSink, OutboxRow};
use chrono::DateTime;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
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
    Arc::new(RabbitSink::open(url, name, Arc::default()).expect("settings"))
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
    client.channel.basic_qos(100, BasicQosOptions::default()).await.expect("a prefetch");
    let mut from = FieldTable::default();
    from.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let mut all = Vec::new();
    let mut consumer =
        client.channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), from).await.expect("a consumer");
    while !enough(&all) {
        let Ok(next) = timeout(LONG, consumer.next()).await else { panic!("only {} came", all.len()) };
        let delivery = next.expect("it goes on").expect("a delivery");
        client.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.expect("acknowledged");
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
    // More than a flight.
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
async fn others_bind_queues_of_their_own() {
    let (url, name) = (shared().await.url(), new_name());
    let sink = open(&url, &name);
    sink.ping().await.expect("it is there");
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
    const STEPS: i64 = 60;
    let mut broker = own().await;
    let (url, name) = (broker.url(), new_name());
    let sink = open(&url, &name);
    let relays: Vec<_> = (0..3)
        .map(|shard| {
            let sink = sink.clone();
            tokio::spawn(async move {
                for step in 0..STEPS {
                    publish_at_last(&sink, &rows(shard, step * 10..step * 10 + 10)).await;
                }
            })
        })
        .collect();
    // In the middle: the stream has some and not all.
    let mut client = Client::connect(&url).await;
    until("some are published", async || (client.waiting(&name).await? > 50).then_some(())).await;
    broker.kill().expect("killed");
    let broker = tokio::task::spawn_blocking(move || {
        broker.restart().expect("it starts again");
        broker
    });
    let _broker = broker.await.expect("no panic");
    tokio::task::block_in_place(|| _broker.close_all_connections()).expect("closed");
    for relay in relays {
        timeout(LONG, relay).await.expect("in time").expect("no panic");
    }
    let client = Client::connect(&url).await;
    let firsts = |all: &[(String, String, serde_json::Value)]| {
        let mut firsts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (id, ..) in all {
            let (shard, id) = id.split_once('-').expect("shard and id");
            let (seen, id) = (firsts.entry(shard.to_owned()).or_default(), id.parse().expect("a number"));
            if !seen.contains(&id) {
                seen.push(id);
            }
        }
        firsts
    };
    let all = read(&client, &name, |all| firsts(all).values().map(Vec::len).sum::<usize>() == 3 * 10 * STEPS as usize).await;
    for (shard, ids) in firsts(&all) {
        assert_eq!(ids, (0..10 * STEPS).collect::<Vec<_>>(), "shard {shard}");
    }
}
