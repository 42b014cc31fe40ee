//! Answers: told to the queue of an instance, and heard there.
//!
//! *Promise.* At most once. The queue belongs to one connection of its instance and goes with it, answers included;
//! for an instance that is gone, or between two connections, the broker drops them.

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

use super::failure::Failure;
use super::jittered;
use super::link::{Link, Session};
use super::log::CONTENT_TYPE;
use super::reader::{RETRY_PAUSE, consume};
use super::topology::declare_answers;
use crate::wire;

/// The longest an answer may take to be written; whoever waits for it looks into the ledger.
const TELL_MAX: Duration = Duration::from_secs(2);
/// The longest one waits to be heard at first: a server that starts says what is missing.
const LISTEN_MAX: Duration = Duration::from_secs(10);

pub(super) struct Answering {
    link: Link,
    channel: Mutex<Option<(Arc<Session>, Channel)>>,
    traffic: Arc<Traffic>,
}

impl Answering {
    pub(super) fn new(link: Link, traffic: Arc<Traffic>) -> Self {
        Self { link, channel: Mutex::new(None), traffic }
    }

    pub(super) async fn tell(&self, queue: ShortString, answers: &[Answer]) -> Result<(), Failure> {
        let body = wire::answers(answers)?;
        let told = async {
            let channel = self.channel().await?;
            let properties = BasicProperties::default().with_content_type(CONTENT_TYPE.into());
            // No confirm was asked for: there is nothing to wait for beyond the write.
            drop(channel.basic_publish(ShortString::default(), queue, BasicPublishOptions::default(), &body, properties).await?);
            self.traffic.broker_messages(1);
            Ok(())
        };
        timeout(TELL_MAX, told).await.unwrap_or(Err(Failure::Silent(TELL_MAX)))
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let session = self.link.session().await?;
        let mut kept = self.channel.lock().await;
        match &*kept {
            Some((of, channel)) if of.is(&session) && channel.status().connected() => Ok(channel.clone()),
            _ => {
                let channel = session.channel().await?;
                *kept = Some((session, channel.clone()));
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
    /// Outlives a `heard` that is dropped.
    opening: JoinSet<(Channel, Consumer)>,
}

impl RabbitAnswers {
    /// Returns when everything told from now on will be heard.
    pub(super) async fn open(link: Link, queue: ShortString, traffic: Arc<Traffic>) -> Result<Self, Failure> {
        let open = timeout(LISTEN_MAX, listen(&link, &queue)).await.unwrap_or(Err(Failure::Silent(LISTEN_MAX)))?;
        Ok(Self { link, queue, traffic, open: Some(open), opening: JoinSet::new() })
    }
}

/// Goes on until it listens.
async fn listen_again(link: Link, queue: ShortString) -> (Channel, Consumer) {
    loop {
        match listen(&link, &queue).await {
            Ok(open) => return open,
            Err(failure) => {
                // The queue may still belong to the connection that was lost.
                tracing::debug!(error = %failure, "answers cannot be heard");
                sleep(jittered(RETRY_PAUSE)).await;
            }
        }
    }
}

async fn listen(link: &Link, queue: &ShortString) -> Result<(Channel, Consumer), Failure> {
    let session = link.up().await;
    let channel = session.channel().await?;
    // Nothing is acknowledged: what was lost on the way is not to come again.
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let subscribed = async {
        declare_answers(&channel, queue).await?;
        consume(&channel, queue.clone(), options, 0).await
    };
    let consumer = session.answers(subscribed).await?;
    Ok((channel, consumer))
}

#[async_trait]
impl AnswerReader for RabbitAnswers {
    async fn heard(&mut self) -> Vec<Answer> {
        loop {
            let Some((_, consumer)) = &mut self.open else {
                if self.opening.is_empty() {
                    self.opening.spawn(listen_again(self.link.clone(), self.queue.clone()));
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
                Err(unreadable) => tracing::warn!(error = %unreadable, "an answer could not be read"),
            }
        }
    }
}
