//! Deleting a log that is no longer needed, and asking a broker for its version.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::protocol::connection::AMQPMethod;
use lapin::protocol::{AMQPClass, parse_class};
use lapin::types::AMQPValue;
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Address;
use super::failure::Failure;
use super::topology::{Names, QueueType};

/// The longest that either may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The first bytes that a client sends.
const GREETING: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// Type, channel and length of a frame.
const FRAME_HEAD: usize = 7;
/// The longest frame before a length is negotiated; brokers send a few hundred bytes.
const FRAME_MAX: usize = 128 * 1024;

/// Deletes the queues and the exchange of a log, with all that is in them; any that are missing are no error. The log must
/// be closed.
pub async fn remove(url: &str, name: &str, shards: u32) -> Result<(), Failure> {
    let (address, names) = (Address::parse(url)?, Names::new(name, shards, QueueType::Default)?);
    let removed = async {
        let connection = Connection::connect_uri(address.uri(0), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for shard in 0..names.shards() {
            channel.queue_delete(names.shard(shard), QueueDeleteOptions::default()).await?;
        }
        channel.queue_delete(names.dead(), QueueDeleteOptions::default()).await?;
        channel.exchange_delete(names.dead(), ExchangeDeleteOptions::default()).await?;
        connection.close(lapin::protocol::constants::REPLY_SUCCESS, "OK".into()).await?;
        Ok(())
    };
    timeout(ANSWER_MAX, removed).await.unwrap_or(Err(Failure::Silent(ANSWER_MAX)))
}

/// The version that the broker announces to every client, before authentication. `None` if it announces none.
pub async fn server_version(url: &str) -> Result<Option<String>, Failure> {
    let address = Address::parse(url)?;
    let greeting = timeout(ANSWER_MAX, greeting(&address)).await.map_err(|_| Failure::Silent(ANSWER_MAX))?;
    let bytes = greeting.map_err(|error| Failure::Settings(format!("the version of RabbitMQ cannot be read: {error}")))?;
    let Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) = parse_class(&*bytes) else { return Ok(None) };
    Ok(match start.server_properties.inner().get("version") {
        Some(AMQPValue::LongString(version)) => Some(version.to_string()),
        _ => None,
    })
}

/// The first frame of a broker, without its head and end.
async fn greeting(address: &Address) -> std::io::Result<Vec<u8>> {
    let authority = address.uri(0).authority;
    let mut stream = TcpStream::connect((authority.host.as_str(), authority.port)).await?;
    stream.write_all(&GREETING).await?;
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    if length > FRAME_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
