//! Kafka and RabbitMQ: the logs of the strategies named after them, and the sink of events. Only brokers that the
//! configuration uses are connected to; a build without a broker's feature refuses it by name.

use super::error::StartError;
#[cfg(feature = "rabbitmq")]
use crate::config::QueueTypeName;
use crate::config::{EventSinkName, Settings, StrategyName};
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
use crate::http::Health;
use crate::http::Probe;
#[cfg(feature = "kafka")]
use boxoffice_adapters::kafka::{KafkaLog, KafkaOptions, KafkaSink, KafkaSinkOptions};
use boxoffice_adapters::log_sink::LogSink;
#[cfg(feature = "rabbitmq")]
use boxoffice_adapters::rabbitmq::{QueueType, RabbitLog, RabbitOptions, RabbitSink};
use boxoffice_engine::Supervisor;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
use boxoffice_ports::Source;
use boxoffice_ports::{CommandLog, EventSink, Traffic};
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
use futures_util::FutureExt;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// See the module's opening.
pub(super) struct BrokerParts {
    #[cfg(feature = "kafka")]
    kafka_log: Option<Arc<KafkaLog>>,
    #[cfg(feature = "rabbitmq")]
    rabbitmq_log: Option<Arc<RabbitLog>>,
    sink: Option<Arc<dyn EventSink>>,
    probes: Vec<Arc<dyn Probe>>,
}

impl BrokerParts {
    #[cfg_attr(not(any(feature = "kafka", feature = "rabbitmq")), allow(unused_variables, reason = "without a broker nothing is sent"))]
    pub(super) async fn open(settings: &Settings, traffic: &Arc<Traffic>, tasks: &Arc<Supervisor>) -> Result<Self, StartError> {
        refuse_what_is_lacking(settings)?;
        #[cfg_attr(not(any(feature = "kafka", feature = "rabbitmq")), allow(unused_mut, reason = "without a broker there is no probe"))]
        let mut probes: Vec<Arc<dyn Probe>> = Vec::new();
        #[cfg(feature = "kafka")]
        let kafka_log = match settings.strategy.class_with(StrategyName::Kafka) {
            Some(_) => {
                let log = KafkaLog::open(kafka_options(settings, traffic, tasks)).await.map_err(failed("kafka.brokers"))?;
                let ping: PingOf<KafkaLog> = |log| async { health(log.ping().await) }.boxed();
                probes.push(Arc::new(Commands { name: "kafka", log: log.clone(), ping }));
                Some(log)
            }
            None => None,
        };
        #[cfg(feature = "rabbitmq")]
        let rabbitmq_log = match settings.strategy.class_with(StrategyName::Rabbitmq) {
            Some(_) => {
                let log = RabbitLog::open(rabbitmq_options(settings, traffic, tasks)).map(Arc::new).map_err(failed("rabbitmq.url"))?;
                let ping: PingOf<RabbitLog> = |log| async { health(log.ping().await) }.boxed();
                probes.push(Arc::new(Commands { name: "rabbitmq", log: log.clone(), ping }));
                Some(log)
            }
            None => None,
        };
        let sink: Option<Arc<dyn EventSink>> = match settings.events.sink {
            EventSinkName::None => None,
            EventSinkName::Log => Some(Arc::new(LogSink::stdout())),
            #[cfg(feature = "kafka")]
            EventSinkName::Kafka => {
                let (brokers, events_topic) = (settings.kafka.brokers.clone(), settings.kafka.events_topic.clone());
                let options = KafkaSinkOptions { brokers, events_topic, partitions: settings.kafka.partitions, traffic: traffic.clone() };
                Some(KafkaSink::open(options).await.map_err(failed("kafka.brokers"))?)
            }
            #[cfg(feature = "rabbitmq")]
            EventSinkName::Rabbitmq => {
                let (url, exchange) = (settings.rabbitmq.url.expose(), &settings.rabbitmq.events_exchange);
                Some(Arc::new(RabbitSink::open(url, exchange, traffic.clone(), &**tasks).map_err(failed("rabbitmq.url"))?))
            }
            #[cfg(not(all(feature = "kafka", feature = "rabbitmq")))]
            lacking => return Err(lacking_sink(lacking)),
        };
        Ok(Self {
            #[cfg(feature = "kafka")]
            kafka_log,
            #[cfg(feature = "rabbitmq")]
            rabbitmq_log,
            sink,
            probes,
        })
    }

    /// The log of a strategy that keeps one.
    pub(super) fn log(&self, name: StrategyName) -> Result<Arc<dyn CommandLog>, StartError> {
        let log: Option<Arc<dyn CommandLog>> = match name {
            #[cfg(feature = "kafka")]
            StrategyName::Kafka => self.kafka_log.clone().map(|log| log as _),
            #[cfg(feature = "rabbitmq")]
            StrategyName::Rabbitmq => self.rabbitmq_log.clone().map(|log| log as _),
            _ => None,
        };
        log.ok_or(StartError::Lacking { key: "strategy", name: name.name(), feature: name.name() })
    }

    pub(super) fn sink(&self) -> Option<Arc<dyn EventSink>> {
        self.sink.clone()
    }

    /// Readiness checks the logs of commands alone. Events wait in the outbox, and their age is a metric.
    pub(super) fn probes(&self) -> Vec<Arc<dyn Probe>> {
        self.probes.clone()
    }
}

fn refuse_what_is_lacking(settings: &Settings) -> Result<(), StartError> {
    for (there, name) in [(cfg!(feature = "kafka"), StrategyName::Kafka), (cfg!(feature = "rabbitmq"), StrategyName::Rabbitmq)] {
        if let Some(key) = settings.strategy.class_with(name).filter(|_| !there) {
            return Err(StartError::Lacking { key, name: name.name(), feature: name.name() });
        }
    }
    Ok(())
}

#[cfg(not(all(feature = "kafka", feature = "rabbitmq")))]
fn lacking_sink(sink: EventSinkName) -> StartError {
    StartError::Lacking { key: "events.sink", name: sink.name(), feature: sink.name() }
}

#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
fn failed<E: Into<Source>>(key: &'static str) -> impl FnOnce(E) -> StartError {
    move |failure| StartError::Broker { key, source: failure.into() }
}

#[cfg(feature = "kafka")]
fn kafka_options(settings: &Settings, traffic: &Arc<Traffic>, tasks: &Arc<Supervisor>) -> KafkaOptions {
    let kafka = &settings.kafka;
    KafkaOptions {
        brokers: kafka.brokers.clone(),
        commands_topic: kafka.commands_topic.clone(),
        group: kafka.group.clone(),
        partitions: kafka.partitions,
        // Each has one commit in flight, like a lane.
        readers: settings.lane_count(),
        retention: settings.command_retention(),
        traffic: traffic.clone(),
        tasks: tasks.clone(),
    }
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq_options(settings: &Settings, traffic: &Arc<Traffic>, tasks: &Arc<Supervisor>) -> RabbitOptions {
    let rabbitmq = &settings.rabbitmq;
    RabbitOptions {
        url: rabbitmq.url.expose().to_owned(),
        name: rabbitmq.commands_queue.clone(),
        shards: rabbitmq.shards,
        queue_type: match rabbitmq.queue_type {
            QueueTypeName::Auto => None,
            QueueTypeName::Classic => Some(QueueType::Classic),
            QueueTypeName::Quorum => Some(QueueType::Quorum),
        },
        retention: settings.command_retention(),
        batch: u16::try_from(settings.strategy.batch_max).unwrap_or(u16::MAX),
        traffic: traffic.clone(),
        tasks: tasks.clone(),
    }
}

/// Whether commands can be appended to a log.
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
struct Commands<L> {
    name: &'static str,
    log: Arc<L>,
    ping: PingOf<L>,
}

#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
type PingOf<L> = for<'a> fn(&'a L) -> BoxFuture<'a, Health>;

#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
impl<L: Send + Sync> Probe for Commands<L> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self) -> BoxFuture<'_, Health> {
        (self.ping)(&self.log)
    }
}

#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
fn health<E: Into<Source>>(pinged: Result<(), E>) -> Health {
    pinged.map_or_else(|failure| Health::Failed(failure.into()), |()| Health::Good)
}
