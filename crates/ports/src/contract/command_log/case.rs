//! The log that a case is about, and the short ways in which cases use it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{InstanceId, Key, UserId};
use chrono::{DateTime, TimeDelta};
use tokio::time::timeout;

use super::super::build::{charge, fresh};
use crate::{AnswerReader, CommandLog, CommandReader, LoggedCommand};

/// Longer than any case needs.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// What a reader takes at once where it does not matter.
pub(super) const TAKEN_MAX: usize = 100;

/// A log, and what lies beside the port: what another program may put into it, and where its dead letters are.
#[async_trait]
pub trait LogBroker: Send + Sync {
    /// Another instance of the same log, with readers for every shard.
    async fn instance(&self) -> Arc<dyn CommandLog>;
    /// Puts bytes into the shard of `key`.
    async fn put(&self, key: Key, bytes: Vec<u8>);
    /// All dead letters as they came, each with its reason. Waits for `count` of them.
    async fn dead_letters(&self, count: usize) -> Vec<(Vec<u8>, String)>;
}

pub(super) fn instance() -> InstanceId {
    InstanceId(fresh())
}

/// The `at`th command of a user: its amount is its number.
pub(super) fn command(of: UserId, at: usize) -> LoggedCommand {
    let accepted_at = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_800_000_000_000_001 + at as i64);
    LoggedCommand { request: charge(of, &at.to_string(), 1 + at as i64), reply_to: instance(), accepted_at }
}

pub(super) fn commands(of: UserId, count: usize) -> Vec<LoggedCommand> {
    (0..count).map(|at| command(of, at)).collect()
}

pub(super) fn key(of: &LoggedCommand) -> Key {
    of.request.command.lane_key()
}

pub(super) async fn append(log: &Arc<dyn CommandLog>, commands: &[LoggedCommand]) {
    for command in commands {
        timeout(LONG, log.append(command.clone())).await.expect("appended in time").expect("appended");
    }
}

pub(super) async fn readers(log: &Arc<dyn CommandLog>) -> Vec<Box<dyn CommandReader>> {
    log.readers().await.expect("readers")
}

pub(super) async fn listen(log: &Arc<dyn CommandLog>, instance: InstanceId) -> Box<dyn AnswerReader> {
    timeout(LONG, log.answers(instance)).await.expect("in time").expect("a reader of answers")
}
