use async_trait::async_trait;
use boxoffice_domain::{CommandId, Reply, Request, Timestamp};

use crate::{InstanceId, Source};

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCommand {
    pub request: Request,
    /// Who waits for the answer.
    pub reply_to: InstanceId,
    /// When it was handed over, by the clock of whoever waits.
    pub accepted_at: Timestamp,
}

/// What became of a logged command, for whoever waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub command: CommandId,
    /// `Err`: it could not be decided and lies with the dead letters; the reason.
    pub reply: Result<Reply, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The broker takes nothing for now. Nothing was appended.
    #[error("the broker takes no more commands for now")]
    Blocked,
    /// The broker cannot be reached or does not answer in time; whether the command was appended may be unknown.
    #[error("the broker is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// Commands in the order in which they will be decided: a partition, or a queue with a single consumer, for each shard.
/// What is in it is decided at least once; [`CommandId`] keeps that to one effect.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CommandLog: Send + Sync {
    /// Appends to the shard of [`boxoffice_domain::Command::lane_key`]; durable when this returns. Commands of one
    /// caller that waits for each stay in order.
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError>;
    /// The readers of this instance: together with those of the others each shard has one. They connect by themselves.
    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source>;
    /// Tells `instance` what became of its commands, at most once: losing it costs a look into the ledger.
    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source>;
    /// Hears the answers for `instance` from now on.
    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CommandReader: Send {
    /// What has arrived since, each shard in order: one command at least, `max` at most. It waits for that, and
    /// connects again by itself, with pauses; what was taken and not acknowledged may then come again. What cannot be
    /// parsed has been put with the dead letters. Cancel-safe.
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand>;
    /// The first `count` commands that were taken and not acknowledged are decided and need not come again; all of them
    /// if there are fewer. Failing to say so, or no longer being the one who may, is harmless: whoever reads them next
    /// finds the replies.
    async fn acknowledge(&mut self, count: usize) -> Result<(), Source>;
    /// Those at `places` of what was taken and not acknowledged (`0` is the oldest) are decided, and some before them are
    /// not. Each is said once. A log that only knows how far it was read has no use for that, and brings them again after
    /// a crash; one that sends no more while so many are not acknowledged goes on. Failing is as harmless as above.
    async fn acknowledge_beyond(&mut self, _places: &[usize]) -> Result<(), Source> {
        Ok(())
    }
    /// Puts a command with the dead letters, with the reason; durable when this returns.
    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait AnswerReader: Send {
    /// The next answers. It connects again by itself, with pauses. Cancel-safe.
    async fn heard(&mut self) -> Vec<Answer>;
}
