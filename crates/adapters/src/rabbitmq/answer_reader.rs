//! Answers: sent to the queue of an instance, and read there.
//!
//! *Promise.* At most once. The queue belongs to one connection of its instance and goes with it, answers included. The
//! broker drops answers for an instance that is gone, or between two connections.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, Traffic};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::command_reader::{RETRY_PAUSE, consume};
use super::failure::Failure;
use super::link::{Link, OpenConnection};
use super::shared::CONTENT_TYPE;
use super::topology::declare_answers;
use crate::pause::jittered;
use crate::wire;

/// The longest an answer may take to be written; its caller reads the ledger then.
const SEND_MAX: Duration = Duration::from_secs(2);
/// The longest wait for the first subscription: a server that starts without a broker says so.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(10);

/// Sends answers.
pub(super) struct Answering {
    link: Link,
    channel: Mutex<Option<(Arc<OpenConnection>, Channel)>>,
    traffic: Arc<Traffic>,
}

impl Answering {
    pub(super) fn new(link: Link, traffic: Arc<Traffic>) -> Self {
        Self { link, channel: Mutex::new(None), traffic }
    }

    pub(super) async fn send(&self, queue: ShortString, answers: &[Answer]) -> Result<(), Failure> {
        let body = wire::answers(answers)?;
        let sent = async {
            let channel = self.channel().await?;
            let properties = BasicProperties::default().with_content_type(CONTENT_TYPE.into());
            // Without confirms there is nothing to wait for beyond the write.
            drop(channel.basic_publish(ShortString::default(), queue, BasicPublishOptions::default(), &body, properties).await?);
            self.traffic.broker_messages(1);
            Ok(())
        };
        timeout(SEND_MAX, sent).await.unwrap_or(Err(Failure::Silent(SEND_MAX)))
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let connection = self.link.connection().await?;
        let mut kept = self.channel.lock().await;
        match &*kept {
            Some((of, channel)) if of.is(&connection) && channel.status().connected() => Ok(channel.clone()),
            _ => {
                let channel = connection.channel().await?;
                *kept = Some((connection, channel.clone()));
                Ok(channel)
            }
        }
    }
}

pub(super) struct RabbitAnswers {
    link: Link,
    queue: ShortString,
    traffic: Arc<Traffic>,
    open: Option<(Channel, Consumer)>,
    /// Outlives a `next` that is dropped.
    opening: JoinSet<(Channel, Consumer)>,
}

impl RabbitAnswers {
    /// Returns when every answer that is sent from now on will be read.
    pub(super) async fn open(link: Link, queue: ShortString, traffic: Arc<Traffic>) -> Result<Self, Failure> {
        let open = timeout(SUBSCRIBE_MAX, subscribe(&link, &queue)).await.unwrap_or(Err(Failure::Silent(SUBSCRIBE_MAX)))?;
        Ok(Self { link, queue, traffic, open: Some(open), opening: JoinSet::new() })
    }
}

/// Retries until it is subscribed.
async fn subscribe_at_last(link: Link, queue: ShortString) -> (Channel, Consumer) {
    loop {
        match subscribe(&link, &queue).await {
            Ok(open) => return open,
            Err(failure) => {
                // The queue may still belong to the connection that was lost.
                tracing::debug!(error = %failure, "answers cannot be read; trying again");
                sleep(jittered(RETRY_PAUSE)).await;
            }
        }
    }
}

async fn subscribe(link: &Link, queue: &ShortString) -> Result<(Channel, Consumer), Failure> {
    let connection = link.up().await;
    let channel = connection.channel().await?;
    // Without acknowledgements: answers that were lost are not to come again.
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let subscribed = async {
        declare_answers(&channel, queue).await?;
        consume(&channel, queue.clone(), options, 0).await
    };
    let consumer = connection.bounded(subscribed).await?;
    Ok((channel, consumer))
}

#[async_trait]
impl AnswerReader for RabbitAnswers {
    async fn next(&mut self) -> Vec<Answer> {
        loop {
            let Some((_, consumer)) = &mut self.open else {
                if self.opening.is_empty() {
                    self.opening.spawn(subscribe_at_last(self.link.clone(), self.queue.clone()));
                }
                if let Some(Ok(open)) = self.opening.join_next().await {
                    self.open = Some(open);
                }
                continue;
            };
            let Some(Ok(delivery)) = consumer.next().await else {
                self.open = None;
                continue;
            };
            self.traffic.broker_messages(1);
            match wire::parse_answers(&delivery.data) {
                Ok(answers) => return answers,
                Err(unreadable) => tracing::warn!(error = %unreadable, "answers could not be read"),
            }
        }
    }
}
