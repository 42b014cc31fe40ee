//! A sales report from the events: seats sold, money taken, refunds, by concert. An example of a consumer of events.
//!
//! ```sh
//! boxoffice-sales-report sales.db kafka 127.0.0.1:9092
//! boxoffice-sales-report sales.db rabbitmq amqp://guest:guest@127.0.0.1:5672/%2f
//! ```
//!
//! Events come *at least once*, in order for each seat, reservation and wallet, and in no order across them. To be right
//! all the same, a consumer
//!
//! 1. stores each event's `source` and `id` in the same transaction as the event's change, and skips an event that is
//!    stored ([`report`]): so a repetition changes nothing;
//! 2. acknowledges to the broker only after that transaction ([`kafka`], [`rabbitmq`]): so a crash repeats events and
//!    loses none;
//! 3. adds and subtracts instead of assigning, or relies on the order of one key only: a refund may come before another
//!    concert's sale;
//! 4. skips types it does not know, and stops at a version it does not know ([`event`]): guessing would make the report
//!    wrong without a sign of it.
//!
//! *When something fails* it ends with an error, and starting it again is always right: let a supervisor do that. One
//! process keeps one report; two with files of their own would each get a part of the events.

mod event;
mod kafka;
mod rabbitmq;
mod report;
mod taken;
#[cfg(test)]
mod tests;

use anyhow::Result;
use clap::{Parser, Subcommand};
use report::Report;
use std::path::PathBuf;
use std::time::Duration;
use taken::Taken;
use tokio::time::timeout;

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
        /// The consumer group: the brokers keep its position
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

    /// Waits for an event, and takes those that have already arrived behind it.
    async fn take(&mut self) -> Result<Taken> {
        match self {
            Self::Kafka(events) => events.take().await,
            Self::Rabbitmq(events) => events.take().await,
        }
    }

    /// Acknowledges all events that were taken.
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
        // In this order: a crash in between repeats events, and the report skips them.
        let changed = report.apply(&taken.events, taken.position)?;
        source.acknowledge().await?;
        if changed {
            println!("{}", report.text()?);
        }
    }
}
