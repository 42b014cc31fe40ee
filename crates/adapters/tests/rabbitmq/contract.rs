//! The suite that every command log passes.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::Key;
use boxoffice_ports::CommandLog;
use boxoffice_ports::contract::command_log::LogBroker;

use super::support::{Client, header, new_name, open, queue_of, shared};

struct Broker {
    name: String,
}

#[async_trait]
impl LogBroker for Broker {
    async fn instance(&self) -> Arc<dyn CommandLog> {
        let log = open(&shared().await.url(), &self.name);
        log.ping().await.expect("it answers");
        log
    }

    async fn put(&self, key: Key, bytes: Vec<u8>) {
        let mut client = Client::connect(&shared().await.url()).await;
        client.put(&queue_of(&self.name, key), &bytes).await;
        // The answer to a later request on the same channel comes after it.
        client.waiting(&queue_of(&self.name, key)).await.expect("a queue");
    }

    async fn dead_letters(&self, count: usize) -> Vec<(Vec<u8>, String)> {
        let mut client = Client::connect(&shared().await.url()).await;
        let letters = client.look(&format!("{}.dead", self.name), count).await;
        letters.into_iter().map(|(bytes, properties)| (bytes, header(&properties, "reason").expect("a reason"))).collect()
    }
}

async fn make() -> Box<dyn LogBroker> {
    Box::new(Broker { name: new_name() })
}

boxoffice_ports::command_log_contract!(make);
