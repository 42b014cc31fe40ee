//! Comparisons remove what they created.

use super::super::ScratchLog;
use super::settings;
use crate::config::StrategyName;
use boxoffice_adapters::kafka::{Failure, KafkaLog, KafkaOptions};
use boxoffice_services::Kafka;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An existing topic gets no more partitions: opening it with more than it has shows whether it exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_kafka_is_deleted_with_its_topics() {
    let kafka = Kafka::shared();
    let mut named = settings(&[&format!("kafka.brokers={:?}", kafka.brokers()), "strategy.wallet=kafka"]);
    assert!(ScratchLog::name(&mut named.clone(), StrategyName::Combining).is_none());
    let configured = named.kafka.commands_topic.clone();
    let log = ScratchLog::name(&mut named, StrategyName::Kafka).unwrap();
    assert_ne!(named.kafka.commands_topic, configured);
    let open = |partitions| {
        KafkaLog::open(KafkaOptions {
            brokers: kafka.brokers(),
            commands_topic: named.kafka.commands_topic.clone(),
            group: named.kafka.group.clone(),
            partitions,
            readers: 1,
            retention: Duration::from_secs(60),
            traffic: Arc::default(),
            tasks: boxoffice_engine::Supervisor::new(),
        })
    };
    drop(open(1).await.unwrap());
    assert!(matches!(open(2).await, Err(Failure::Partitions { has: 1, .. })), "the topics are there");
    log.remove().await;
    // The brokers delete in the background.
    let deadline = Instant::now() + Duration::from_secs(30);
    let again = loop {
        match open(2).await {
            Err(Failure::Partitions { .. }) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
            opened => break opened,
        }
    };
    assert!(again.is_ok(), "the topics are gone: {:?}", again.err());
    let nothing = boxoffice_adapters::kafka::remove(&kafka.brokers(), "nothing", "nobody").await;
    assert!(nothing.is_ok(), "deleting a missing topic succeeds: {:?}", nothing.err());
}
