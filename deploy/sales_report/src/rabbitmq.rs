//! Events from the stream in RabbitMQ. A stream keeps no position for its readers: it is stored with the report, in the
//! same transaction. Acknowledging only lets the broker send more.

use anyhow::{Context, Result, bail};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};

use crate::taken::{BATCH_MAX, Taken};

/// A delivery's offset in the stream; in a subscription, the offset to begin at.
const OFFSET: &str = "x-stream-offset";

pub(crate) struct Events {
    channel: Channel,
    consumer: Consumer,
    /// The last delivery that was taken.
    last: Option<u64>,
    _connection: Connection,
}

impl Events {
    /// From `position` on, or from the oldest event.
    pub(crate) async fn open(url: &str, stream: &str, position: Option<u64>) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.context("RabbitMQ")?;
        let channel = connection.create_channel().await?;
        // A stream requires a bound on unacknowledged deliveries. With two batches the next one arrives while one is counted.
        channel.basic_qos(u16::try_from(2 * BATCH_MAX)?, BasicQosOptions::default()).await?;
        let from = match position {
            Some(offset) => AMQPValue::LongLongInt(i64::try_from(offset)?),
            None => AMQPValue::LongString("first".into()),
        };
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), from);
        let consumer = channel.basic_consume(stream.into(), "sales-report".into(), BasicConsumeOptions::default(), arguments).await?;
        Ok(Self { channel, consumer, last: None, _connection: connection })
    }

    pub(crate) async fn take(&mut self) -> Result<Taken> {
        let Some(first) = self.consumer.next().await else { bail!("RabbitMQ ended the subscription") };
        let (mut events, mut position) = (Vec::new(), None);
        let mut arrived = Some(first);
        while let Some(delivery) = arrived {
            let delivery = delivery.context("RabbitMQ")?;
            position = Some(offset_of(&delivery)? + 1);
            self.last = Some(delivery.delivery_tag);
            events.push(delivery.data);
            arrived = if events.len() < BATCH_MAX { self.consumer.next().now_or_never().flatten() } else { None };
        }
        Ok(Taken { events, position })
    }

    pub(crate) async fn acknowledge(&mut self) -> Result<()> {
        if let Some(last) = self.last.take() {
            self.channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }
}

fn offset_of(delivery: &Delivery) -> Result<u64> {
    let headers = delivery.properties.headers().as_ref().context("an event without headers: is this a stream?")?;
    match headers.inner().get(OFFSET) {
        Some(AMQPValue::LongLongInt(offset)) => Ok(u64::try_from(*offset)?),
        _ => bail!("an event without {OFFSET}: is this a stream?"),
    }
}
