//! A sales report from the events: seats sold, money taken, refunds, by concert. A model for programs that listen.
//!
//! ```sh
//! boxoffice-sales-report sales.db kafka 127.0.0.1:9092
//! boxoffice-sales-report sales.db rabbitmq amqp://guest:guest@127.0.0.1:5672/%2f
//! ```
//!
//! Events come *at least once*, in order for each seat, reservation and wallet, and in no order across them. To be right
//! all the same, a listener
//!
//! 1. notes each event's `source` and `id` in the same transaction as what the event changes, and passes over what is
//!    noted ([`report`]): so a repetition changes nothing;
//! 2. tells the broker how far it is only after that transaction ([`kafka`], [`rabbitmq`]): so a crash repeats events and
//!    loses none;
//! 3. adds and subtracts instead of assigning, or relies on the order of one key only: a refund may be heard of before
//!    another concert's sale;
//! 4. passes over types it does not know, and stops at a version it does not know ([`event`]): guessing would make the
//!    report wrong without anybody noticing.
//!
//! *When something fails* it ends with an error, and starting it again is always right: let a supervisor do that. One
//! process keeps one report; two with files of their own would each get a part of the events.

mod event;
mod kafka;
mod rabbitmq;
mod report;
#[cfg(test)]
mod tests;

use anyhow::Result;
use clap::{Parser, Subcommand};
use report::Report;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// Events of one transaction, at most: the more, the fewer flushes, and the more is repeated after a crash.
const BATCH_MAX: usize = 500;

/// Keeps a sales report from boxoffice's events
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the report is kept; created when it is missing
    report: PathBuf,
    /// Ends once nothing has come for so many seconds
    #[arg(long, value_name = "SECONDS")]
    until_idle: Option<u64>,
    #[command(subcommand)]
    from: Broker,
}

#[derive(Debug, Subcommand)]
enum Broker {
    /// events.sink = "kafka"
    Kafka {
        /// Separated by commas
        brokers: String,
        /// kafka.events_topic
        #[arg(default_value = "boxoffice.events")]
        topic: String,
        /// Where the brokers remember how far this report is
        #[arg(long, default_value = "sales-report")]
        group: String,
    },
    /// events.sink = "rabbitmq"
    Rabbitmq {
        url: String,
        /// rabbitmq.events_exchange
        #[arg(default_value = "boxoffice.events")]
        stream: String,
    },
}

/// What was taken from a broker and not yet acknowledged.
struct Taken {
    events: Vec<Vec<u8>>,
    /// Where the reading goes on, when the broker does not remember that for us.
    position: Option<u64>,
}

enum Source {
    Kafka(kafka::Events),
    Rabbitmq(rabbitmq::Events),
}

impl Source {
    async fn open(from: &Broker, report: &mut Report) -> Result<Self> {
        Ok(match from {
            Broker::Kafka { brokers, topic, group } => Self::Kafka(kafka::Events::open(brokers, topic, group)?),
            Broker::Rabbitmq { url, stream } => Self::Rabbitmq(rabbitmq::Events::open(url, stream, report.position()?).await?),
        })
    }

    /// Waits for an event; what else is here already comes with it.
    async fn take(&mut self) -> Result<Taken> {
        match self {
            Self::Kafka(events) => events.take().await,
            Self::Rabbitmq(events) => events.take().await,
        }
    }

    /// Nothing of what was taken need come again.
    async fn acknowledge(&mut self) -> Result<()> {
        match self {
            Self::Kafka(events) => events.acknowledge(),
            Self::Rabbitmq(events) => events.acknowledge().await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { report, until_idle, from } = Arguments::parse();
    let mut report = Report::open(&report)?;
    let mut source = Source::open(&from, &mut report).await?;
    loop {
        let taken = match until_idle {
            None => source.take().await?,
            Some(seconds) => match timeout(Duration::from_secs(seconds), source.take()).await {
                Ok(taken) => taken?,
                Err(_) => return Ok(()),
            },
        };
        // The order of these two is the whole point.
        let changed = report.apply(&taken.events, taken.position)?;
        source.acknowledge().await?;
        if changed {
            println!("{}", report.text()?);
        }
    }
}
