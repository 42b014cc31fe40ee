//! Topics: created when missing, by the first instance; refused when they have too few partitions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_adapters::kafka::{Failure, KafkaSink, KafkaSinkOptions};
use boxoffice_ports::CommandLog;
use boxoffice_ports::contract::build::user;
use boxoffice_services::Kafka;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tokio::task::JoinSet;

use crate::support::{Site, command, stored, until};

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_too_few_partitions_is_refused_with_the_numbers() {
    let site = Site::new(Kafka::shared().brokers(), 2, 1);
    drop(site.log().await);
    let larger = Site { partitions: 5, ..site.clone() };
    match larger.open().await.map(drop) {
        Err(error @ Failure::Partitions { has: 2, wanted: 5, .. }) => {
            let text = error.to_string();
            assert!([&site.topic, "2", "5"].iter().all(|part| text.contains(*part)), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let sink =
        KafkaSinkOptions { brokers: site.brokers.clone(), events_topic: site.topic.clone(), partitions: 3, traffic: site.traffic.clone() };
    assert!(matches!(KafkaSink::open(sink).await.map(drop), Err(Failure::Partitions { has: 2, wanted: 3, .. })));
    drop(Site { partitions: 1, ..site }.log().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_given_more_partitions_is_used_as_it_is() {
    let site = Site::new(Kafka::shared().brokers(), 1, 1);
    drop(site.log().await);
    let client = admin(&site.brokers);
    client.create_partitions(&[NewPartitions::new(&site.topic, 6)], &AdminOptions::new()).await.expect("asked")[0].clone().expect("more");
    let client = Arc::new(client);
    until("the broker knows of all", async || {
        let (client, topic) = (client.clone(), site.topic.clone());
        let asked =
            tokio::task::spawn_blocking(move || client.inner().fetch_metadata(Some(&topic), Duration::from_secs(20)).expect("metadata"));
        let metadata = asked.await.expect("no panic");
        let partitions = metadata.topics()[0].partitions();
        partitions.len() == 6 && partitions.iter().all(|partition| partition.leader() >= 0)
    })
    .await;
    let log = site.log().await;
    let users: Vec<_> = (0..40).map(|_| user()).collect();
    for of in &users {
        log.append(command(*of, 0)).await.expect("appended");
    }
    let partitions: BTreeSet<_> =
        stored(&site.brokers, &site.topic, users.len()).await.into_iter().map(|message| message.partition).collect();
    assert_eq!(partitions, (0..6).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_together_create_the_topics_once_and_with_their_settings() {
    let site = Site::new(Kafka::shared().brokers(), 3, 1);
    let mut opening = JoinSet::new();
    for _ in 0..5 {
        let site = site.clone();
        opening.spawn(async move { site.log().await });
    }
    let logs = opening.join_all().await;
    for log in &logs {
        log.ping().await.expect("every partition has a leader");
        log.append(command(user(), 0)).await.expect("appended");
    }
    let names = ["", ".answers", ".dead"].map(|end| format!("{}{end}", site.topic));
    let of = names.each_ref().map(|name| ResourceSpecifier::Topic(name));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let settings = admin(&site.brokers).describe_configs(&of, &options).await.expect("asked");
    let settings: Vec<_> = settings.into_iter().map(|topic| topic.expect("a topic")).collect();
    let of = |name: &str| settings.iter().map(|topic| topic.get(name).and_then(|entry| entry.value.clone())).collect::<Vec<_>>();
    let some = |value: &str| Some(value.to_owned());
    // Dead letters stay as long as the broker keeps anything.
    assert_eq!(of("retention.ms"), [some("3600000"), some("3600000"), some("-1")]);
    assert_eq!(of("segment.ms")[..2], [some("900000"), some("900000")]);
}
