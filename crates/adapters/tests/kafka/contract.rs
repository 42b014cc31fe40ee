//! The contract suite, each case with topics and a group of its own on one broker.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::Key;
use boxoffice_ports::CommandLog;
use boxoffice_ports::contract::command_log::LogBroker;
use boxoffice_services::Kafka;

use crate::support::{Site, put, stored};

struct Broker(Site);

#[async_trait]
impl LogBroker for Broker {
    async fn instance(&self) -> Arc<dyn CommandLog> {
        self.0.log().await
    }

    async fn put(&self, key: Key, bytes: Vec<u8>) {
        put(&self.0.brokers, &self.0.topic, &key.to_string(), &bytes).await;
    }

    async fn dead_letters(&self, count: usize) -> Vec<(Vec<u8>, String)> {
        let letters = stored(&self.0.brokers, &format!("{}.dead", self.0.topic), count).await;
        letters.into_iter().map(|mut letter| (letter.bytes, letter.headers.remove("reason").unwrap_or_default())).collect()
    }
}

async fn make() -> Box<dyn LogBroker> {
    Box::new(Broker(Site::new(Kafka::shared().brokers(), 4, 2)))
}

boxoffice_ports::command_log_contract!(make);
