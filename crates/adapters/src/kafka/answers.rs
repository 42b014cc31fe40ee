//! Hearing what became of an instance's commands.
//!
//! Answers for an instance lie in one partition of the answers' topic, among those for others. Reading begins where that
//! partition ended when it was opened (one round trip) and needs no group. Whose an answer is shows its header; others'
//! are not parsed. What is missed while the broker is away, or was deleted before it was read, is lost, which is harmless.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, InstanceId};
use futures_util::{FutureExt, StreamExt};
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::connect::{ANSWER_MAX, Failure, Told, close, consumer, has_header, is_over, pause, waiting};
use super::log::{INSTANCE, Shared};
use crate::wire;

/// A whole reading's worth: what is behind it is heard the next time.
const HEARD_MAX: usize = 1_000;

/// See the module's opening.
pub(super) struct KafkaAnswers {
    shared: Arc<Shared>,
    instance: InstanceId,
    name: Vec<u8>,
    /// `None` when it has come to an end, until it is made again.
    consumer: Option<StreamConsumer<Told>>,
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
            tracing::warn!(%error, "unreadable answers");
            Vec::new()
        })
    }
}

/// Returns when every answer told from now on will be heard.
async fn listen(shared: &Shared, instance: InstanceId) -> Result<StreamConsumer<Told>, Failure> {
    let mut config = consumer(&shared.brokers, &format!("{}.{instance}", shared.answers));
    // What was deleted before it was read is gone.
    config.set("auto.offset.reset", "latest");
    let mut consumer: StreamConsumer<Told> = config.create_with_context(Told).map_err(Failure::Settings)?;
    let partition = shared.answer_partition(instance);
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        let topic = shared.answers.clone();
        let assigned = waiting(move || {
            let assigned = consumer.fetch_watermarks(&topic, partition, ANSWER_MAX).and_then(|(_, end)| {
                let mut from = TopicPartitionList::new();
                from.add_partition_offset(&topic, partition, Offset::Offset(end))?;
                consumer.assign(&from)
            });
            (consumer, assigned)
        });
        match assigned.await? {
            (assigned, Ok(())) => return Ok(assigned),
            // The leader of a new topic, or a new leader, may not know yet that it is.
            (refused, Err(error)) if Instant::now() < deadline => {
                tracing::debug!(%error, "no answers are heard yet");
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
    async fn heard(&mut self) -> Vec<Answer> {
        loop {
            let Some(consumer) = &self.consumer else {
                match listen(&self.shared, self.instance).await {
                    Ok(consumer) => self.consumer = Some(consumer),
                    Err(error) => {
                        tracing::debug!(%error, "no answers are heard for now");
                        pause().await;
                    }
                }
                continue;
            };
            let first = match consumer.recv().await {
                Ok(first) => first,
                Err(error) => {
                    tracing::debug!(%error, "kafka consumer");
                    if is_over(consumer) {
                        close(self.consumer.take());
                    }
                    continue;
                }
            };
            let mut answers = self.parse(&first);
            let mut rest = consumer.stream();
            while answers.len() < HEARD_MAX
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
