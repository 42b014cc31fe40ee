//! What the command log and its readers share: the names of the topics, and the producers.

use std::sync::Arc;

use boxoffice_ports::{InstanceId, Traffic};

use super::connect::{Producing, close, header};
use super::failure::Failure;
use super::producer::{Idempotent, Record};

/// The header of an answer: the instance that it is for.
pub(super) const INSTANCE: &str = "instance";
/// The header of a dead letter.
const REASON: &str = "reason";

pub(super) struct Shared {
    pub(super) brokers: String,
    pub(super) commands: String,
    pub(super) answers: String,
    pub(super) dead: String,
    pub(super) command_partitions: usize,
    pub(super) answer_partitions: usize,
    pub(super) appending: Idempotent,
    /// `None` while it is closed.
    pub(super) answering: Option<Producing>,
    pub(super) traffic: Arc<Traffic>,
}

impl Shared {
    /// Where the answers for an instance lie. An instance that knew the topic with another number of partitions looks
    /// elsewhere, and finds none until it starts again.
    pub(super) fn answer_partition(&self, instance: InstanceId) -> i32 {
        i32::try_from(instance.0.as_u128() % self.answer_partitions.max(1) as u128).unwrap_or_default()
    }

    /// Appends a text to the dead letters, as durable as a command.
    pub(super) async fn bury(&self, key: Option<&[u8]>, bytes: &[u8], reason: &str) -> Result<(), Failure> {
        let letter = Record { topic: &self.dead, partition: None, key, bytes, headers: Some(header(REASON, reason)) };
        let mut delivery = self.appending.send(letter)?;
        self.traffic.broker_messages(1);
        self.appending.delivered(&mut delivery).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        close(self.answering.take());
    }
}
