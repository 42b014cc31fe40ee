//! What the command log and its readers share: the names of the queues, the connections, and the publisher.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::Traffic;
use lapin::types::ShortString;

use super::confirm_channel::Message;
use super::failure::Failure;
use super::link::Link;
use super::publisher::Publisher;
use super::topology::{Names, table, text};

/// The longest reason that is written on a dead letter; the rest is cut off.
const REASON_MAX: usize = 1_024;

pub(super) const CONTENT_TYPE: &str = "application/json";

pub(super) struct Shared {
    pub(super) names: Names,
    pub(super) retention: Duration,
    pub(super) batch: u16,
    pub(super) traffic: Arc<Traffic>,
    pub(super) publisher: Publisher,
    pub(super) publishing: Link,
    pub(super) reading: Link,
}

impl Shared {
    /// Puts a text with the dead letters, as durable as a command.
    pub(super) async fn bury(&self, id: &str, body: Vec<u8>, reason: &str) -> Result<(), Failure> {
        let end = reason.floor_char_boundary(REASON_MAX);
        let message = Message::persistent(self.names.dead(), ShortString::default(), id, CONTENT_TYPE, body);
        self.publisher.send(message.with_headers(table([("reason", text(&reason[..end]))]))).await
    }
}
