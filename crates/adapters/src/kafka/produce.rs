//! The producer that neither loses nor doubles nor reorders what it takes, until it is abandoned for another one.
//!
//! It may come to a point where it takes nothing more (a broker no longer knows it, say, or with `gapless` a message
//! failed): then it is abandoned. What it had not sent by then it never sends, and what it had sent is a prefix of what
//! it took, so whoever sends the same again through the next one keeps the order. Messages handed over together are
//! either all its own or all the next one's.

use std::sync::{PoisonError, RwLock};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer, PurgeConfig};

use super::connect::{Failure, Producing, close, producer};

pub(super) struct Idempotent {
    config: ClientConfig,
    queued_max: usize,
    current: RwLock<Current>,
}

struct Current {
    generation: u64,
    /// `None` once it is abandoned, until something is to be sent.
    producer: Option<Producing>,
}

pub(super) struct Message<'a> {
    pub(super) topic: &'a str,
    /// `None`: that of the key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) bytes: &'a [u8],
    pub(super) headers: Option<OwnedHeaders>,
}

/// A message on its way.
pub(super) struct Delivery {
    generation: u64,
    future: DeliveryFuture,
}

impl Idempotent {
    pub(super) fn new(config: ClientConfig, queued_max: usize) -> Result<Self, Failure> {
        let producer = Some(producer(&config)?);
        Ok(Self { config, queued_max, current: RwLock::new(Current { generation: 0, producer }) })
    }

    pub(super) fn send(&self, message: Message<'_>) -> Result<Delivery, Failure> {
        self.with(|generation, producer| enqueue(generation, producer, message, self.queued_max))
    }

    /// In this order, behind what was sent before. After an error none of them is sent any more, nor anything else
    /// that is on its way.
    pub(super) fn send_all<'a>(&self, messages: impl Iterator<Item = Message<'a>>) -> Result<Vec<Delivery>, Failure> {
        let (generation, sent) = self.with(|generation, producer| {
            let sent: Result<Vec<_>, _> = messages.map(|message| enqueue(generation, producer, message, self.queued_max)).collect();
            Ok((generation, sent))
        })?;
        sent.inspect_err(|_| self.abandon(generation))
    }

    /// Waits until it is safe. Cancel-safe.
    pub(super) async fn delivered(&self, delivery: &mut Delivery) -> Result<(), Failure> {
        let error = match (&mut delivery.future).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err((error, _))) => error,
            Err(_) => KafkaError::Canceled,
        };
        let over = self.with(|generation, producer| Ok(generation == delivery.generation && producer.client().fatal_error().is_some()));
        if over? {
            self.abandon(delivery.generation);
        }
        Err(Failure::Unreachable(error))
    }

    /// Gives up what the producer of this generation has not sent.
    fn abandon(&self, generation: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation != generation {
            return;
        }
        if let Some(producer) = current.producer.take() {
            tracing::warn!("a kafka producer is replaced");
            producer.purge(PurgeConfig::default().queue().inflight());
            close(producer);
        }
        current.generation += 1;
    }

    /// Gives up what has not been sent, if the producer is still the one that took this.
    pub(super) fn abandon_with(&self, delivery: &Delivery) {
        self.abandon(delivery.generation);
    }

    /// For asking it something.
    pub(super) fn client(&self) -> Result<Producing, Failure> {
        self.with(|_, producer| Ok(producer.clone()))
    }

    /// Nobody abandons it meanwhile.
    fn with<T>(&self, work: impl FnOnce(u64, &Producing) -> Result<T, Failure>) -> Result<T, Failure> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(producer) = &current.producer {
                return work(current.generation, producer);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let generation = current.generation;
        let next = match current.producer.take() {
            Some(producer) => producer,
            None => producer(&self.config)?,
        };
        work(generation, current.producer.insert(next))
    }
}

impl Drop for Idempotent {
    fn drop(&mut self) {
        close(self.current.get_mut().unwrap_or_else(PoisonError::into_inner).producer.take());
    }
}

fn enqueue(generation: u64, producer: &Producing, message: Message<'_>, queued_max: usize) -> Result<Delivery, Failure> {
    let mut record = FutureRecord::<[u8], [u8]>::to(message.topic).payload(message.bytes);
    record.partition = message.partition;
    record.key = message.key;
    record.headers = message.headers;
    match producer.send_result(record) {
        Ok(future) => Ok(Delivery { generation, future }),
        Err((error, _)) => Err(refused(error, queued_max)),
    }
}

/// Why a message was not taken.
pub(super) fn refused(error: KafkaError, queued_max: usize) -> Failure {
    match error {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Failure::Full(queued_max),
        error => Failure::Unreachable(error),
    }
}
