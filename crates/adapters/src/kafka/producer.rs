//! A producer that neither loses nor duplicates nor reorders messages, until it is abandoned for another one.
//!
//! It may reach a state in which it accepts nothing more: a broker no longer knows it, or with `gapless` a message failed.
//! Then it is abandoned. Messages that it had not sent by then are never sent, and those that it had sent are a prefix of
//! those that it accepted. So a caller that sends the same again through the next producer keeps the order. Messages handed
//! over together go through one producer, all of them.

use std::sync::{PoisonError, RwLock};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer, PurgeConfig};

use super::connect::{Producing, close, producer};
use super::failure::Failure;

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

pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// `None`: the key's.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) bytes: &'a [u8],
    pub(super) headers: Option<OwnedHeaders>,
}

/// A message under way.
pub(super) struct Delivery {
    generation: u64,
    future: DeliveryFuture,
}

impl Idempotent {
    pub(super) fn new(config: ClientConfig, queued_max: usize) -> Result<Self, Failure> {
        let producer = Some(producer(&config)?);
        Ok(Self { config, queued_max, current: RwLock::new(Current { generation: 0, producer }) })
    }

    pub(super) fn send(&self, record: Record<'_>) -> Result<Delivery, Failure> {
        self.with(|generation, producer| enqueue(generation, producer, record, self.queued_max))
    }

    /// In this order, behind the messages before. After an error none of them is sent any more, nor is anything else that
    /// is under way.
    pub(super) fn send_all<'a>(&self, records: impl Iterator<Item = Record<'a>>) -> Result<Vec<Delivery>, Failure> {
        let (generation, sent) = self.with(|generation, producer| {
            let sent: Result<Vec<_>, _> = records.map(|record| enqueue(generation, producer, record, self.queued_max)).collect();
            Ok((generation, sent))
        })?;
        sent.inspect_err(|_| self.abandon(generation))
    }

    /// Waits until all replicas in sync have it. Cancel-safe.
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

    /// Gives up the messages that the producer of this generation has not sent.
    fn abandon(&self, generation: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation != generation {
            return;
        }
        if let Some(producer) = current.producer.take() {
            tracing::warn!("a Kafka producer is replaced");
            producer.purge(PurgeConfig::default().queue().inflight());
            close(producer);
        }
        current.generation += 1;
    }

    /// Gives up the messages that have not been sent, if the producer is still the one that accepted this.
    pub(super) fn abandon_with(&self, delivery: &Delivery) {
        self.abandon(delivery.generation);
    }

    /// For requests of its own.
    pub(super) fn client(&self) -> Result<Producing, Failure> {
        self.with(|_, producer| Ok(producer.clone()))
    }

    /// It is not abandoned meanwhile.
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

fn enqueue(generation: u64, producer: &Producing, record: Record<'_>, queued_max: usize) -> Result<Delivery, Failure> {
    let mut message = FutureRecord::<[u8], [u8]>::to(record.topic).payload(record.bytes);
    message.partition = record.partition;
    message.key = record.key;
    message.headers = record.headers;
    match producer.send_result(message) {
        Ok(future) => Ok(Delivery { generation, future }),
        Err((error, _)) => Err(refused(error, queued_max)),
    }
}

/// Why a message was not accepted.
pub(super) fn refused(error: KafkaError, queued_max: usize) -> Failure {
    match error {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Failure::Full(queued_max),
        error => Failure::Unreachable(error),
    }
}
