//! Reading the answers to an instance's commands.
//!
//! Answers for an instance lie in one partition of the answers' topic, among those for others. Reading begins where that
//! partition ended when it was opened (one round trip) and needs no group. A header names the instance that an answer is
//! for; answers for others are not parsed. Answers that are missed while the broker is away, or deleted before they are
//! read, are lost, which is harmless.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, InstanceId};
use futures_util::{FutureExt, StreamExt};
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::connect::{ANSWER_MAX, ClientLog, blocking, close, consumer, has_header, is_over, pause};
use super::failure::Failure;
use super::shared::{INSTANCE, Shared};
use crate::wire;

/// The most answers of one call, a message more or less; the rest come with the next.
const ANSWERS_MAX: usize = 1_000;

/// See the module's opening.
pub(super) struct KafkaAnswers {
    shared: Arc<Shared>,
    instance: InstanceId,
    name: Vec<u8>,
    /// `None` when it has ended, until it is made again.
    consumer: Option<StreamConsumer<ClientLog>>,
}

impl KafkaAnswers {
    pub(super) async fn open(shared: Arc<Shared>, instance: InstanceId) -> Result<Self, Failure> {
        let consumer = Some(listen(&shared, instance).await?);
        Ok(Self { shared, instance, name: instance.to_string().into_bytes(), consumer })
    }

    fn parse(&self, message: &BorrowedMessage<'_>) -> Vec<Answer> {
        self.shared.traffic.broker_messages(1);
        if !has_header(message.headers(), INSTANCE, &self.name) {
            return Vec::new();
        }
        wire::parse_answers(message.payload().unwrap_or_default()).unwrap_or_else(|error| {
            tracing::warn!(%error, "answers could not be read");
            Vec::new()
        })
    }
}

/// Returns when every answer that is sent from now on will be read.
async fn listen(shared: &Shared, instance: InstanceId) -> Result<StreamConsumer<ClientLog>, Failure> {
    let mut config = consumer(&shared.brokers, &format!("{}.{instance}", shared.answers));
    // Answers that were deleted before they were read are gone.
    config.set("auto.offset.reset", "latest");
    let mut consumer: StreamConsumer<ClientLog> = config.create_with_context(ClientLog).map_err(Failure::Settings)?;
    let partition = shared.answer_partition(instance);
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        let topic = shared.answers.clone();
        let assigned = blocking(move || {
            let assigned = consumer.fetch_watermarks(&topic, partition, ANSWER_MAX).and_then(|(_, end)| {
                let mut from = TopicPartitionList::new();
                from.add_partition_offset(&topic, partition, Offset::Offset(end))?;
                consumer.assign(&from)
            });
            (consumer, assigned)
        });
        match assigned.await? {
            (assigned, Ok(())) => return Ok(assigned),
            // A new leader, or the leader of a new topic, may not know yet that it leads.
            (refused, Err(error)) if Instant::now() < deadline => {
                tracing::debug!(%error, "answers cannot be read yet");
                consumer = refused;
            }
            (refused, Err(error)) => {
                close(refused);
                return Err(Failure::Unreachable(error));
            }
        }
        pause().await;
    }
}

#[async_trait]
impl AnswerReader for KafkaAnswers {
    async fn next(&mut self) -> Vec<Answer> {
        loop {
            let Some(consumer) = &self.consumer else {
                match listen(&self.shared, self.instance).await {
                    Ok(consumer) => self.consumer = Some(consumer),
                    Err(error) => {
                        tracing::debug!(%error, "answers cannot be read for now");
                        pause().await;
                    }
                }
                continue;
            };
            let first = match consumer.recv().await {
                Ok(first) => first,
                Err(error) => {
                    tracing::debug!(%error, "Kafka consumer");
                    if is_over(consumer) {
                        close(self.consumer.take());
                    }
                    continue;
                }
            };
            let mut answers = self.parse(&first);
            let mut rest = consumer.stream();
            while answers.len() < ANSWERS_MAX
                && let Some(Ok(message)) = rest.next().now_or_never().flatten()
            {
                answers.extend(self.parse(&message));
            }
            if !answers.is_empty() {
                return answers;
            }
        }
    }
}

impl Drop for KafkaAnswers {
    fn drop(&mut self) {
        close(self.consumer.take());
    }
}
