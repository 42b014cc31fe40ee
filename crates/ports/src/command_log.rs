//! Commands in a log: appended by the instance that took a request, decided by the instance that reads its shard.
//!
//! What is in the log is decided at least once; [`CommandId`] keeps that to one effect. Answers travel back at most once: an
//! instance that misses one looks for the stored reply in the ledger.

use async_trait::async_trait;
use boxoffice_domain::{CommandId, InstanceId, Reply, Request, Timestamp};

use crate::Source;

/// A command as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCommand {
    pub request: Request,
    /// The instance that waits for the answer.
    pub reply_to: InstanceId,
    /// When it was appended, by the clock of that instance.
    pub accepted_at: Timestamp,
}

/// What came of a logged command, for the instance that waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub command: CommandId,
    /// `Err`: it could not be decided and is a dead letter now; the reason.
    pub reply: Result<Reply, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The broker accepts no appends for now. Nothing was appended.
    #[error("the broker accepts no more commands for now")]
    Blocked,
    /// The broker cannot be reached or does not answer in time; whether the command was appended may be unknown.
    #[error("the broker is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// Commands in the order in which they will be decided: a partition, or a queue with a single consumer, for each shard.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CommandLog: Send + Sync {
    /// Appends to the shard of [`boxoffice_domain::Command::lane_key`]; durable when this returns. Commands of a
    /// caller that waits for each stay in order.
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError>;
    /// The readers of this instance. Over all instances each shard has one reader. They connect by themselves.
    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source>;
    /// Sends `instance` what came of its commands, at most once: a lost answer costs a query of the ledger.
    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source>;
    /// Subscribes to the answers for `instance`, from now on.
    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait CommandReader: Send {
    /// The next commands, each shard in order: waits for at least one, returns at most `max`. Connects again by itself,
    /// with pauses; commands that were taken and not acknowledged may then come again. Messages that cannot be parsed
    /// were moved to the dead letters. Cancel-safe.
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand>;
    /// Acknowledges the first `count` commands that were taken and not acknowledged (all of them, if there are fewer):
    /// they are decided and need not come again. A failure is harmless, and so is a reader that has lost its shard: the
    /// next reader of these commands finds the replies.
    async fn acknowledge(&mut self, count: usize) -> Result<(), Source>;
    /// Acknowledges the commands at `places` among those taken and not acknowledged (`0` is the oldest): they are decided
    /// while some before them are not. Each place is acknowledged once. A log that only keeps how far it was read ignores
    /// this and delivers them again after a crash. A log that limits how many commands may be unacknowledged goes on.
    /// A failure is as harmless as above.
    async fn acknowledge_beyond(&mut self, _places: &[usize]) -> Result<(), Source> {
        Ok(())
    }
    /// Moves a command to the dead letters, with the reason; durable when this returns.
    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait AnswerReader: Send {
    /// The next answers. It connects again by itself, with pauses. Cancel-safe.
    async fn next(&mut self) -> Vec<Answer>;
}
