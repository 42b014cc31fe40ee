//! Seat changes, published to all instances through Redis.
//!
//! *Promise.* At most once, and correctness does not depend on it: an instance that misses a message learns of the gap and
//! reads the seats again. A listener returns [`FanoutMessage::Gap`] after every connection that it lost, and for a message that it
//! cannot read or whose form it does not know. So instances of two versions may run side by side.
//!
//! *Wire.* One channel for all dates. A message is a byte for the form and then the records, numbers with the
//! highest byte first: date (16), number (4), version (8), state (1), and for states that have them reservation (16) and
//! the end of the hold in microseconds (8).
//!
//! *Round trips.* One for each message of up to [`CHANGES_PER_MESSAGE_MAX`] changes. A listener has a connection of its
//! own. It is pinged when it is quiet, so that one that died silently is noticed, and replaced with pauses that double up
//! to [`PAUSE_MAX`].

use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{DateId, ReservationId, SeatChange, SeatKey, SeatState};
use boxoffice_ports::{Fanout, FanoutListener, FanoutMessage, Source};
use chrono::DateTime;
use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use super::connect::Redis;
use super::failure::{Failure, bounded};
use crate::pause::{doubled, jittered};

const CHANNEL: &str = "boxoffice:seats";
/// The form of a message. A new form gets a new number, and this one is read for as long as an instance may send it.
const FORM: u8 = 1;
/// The most changes of one message, about 50 kB: far below what Redis buffers for a slow listener.
const CHANGES_PER_MESSAGE_MAX: usize = 1_000;
/// A connection that was quiet for so long is pinged.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// The pause after the first failed attempt to connect, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

const AVAILABLE: u8 = 0;
const HELD: u8 = 1;
const SOLD: u8 = 2;

/// See the module's opening.
pub struct RedisFanout {
    redis: Redis,
}

impl RedisFanout {
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

#[async_trait]
impl Fanout for RedisFanout {
    async fn publish(&self, changes: Vec<SeatChange>) -> Result<(), Source> {
        // Published even without changes: that shows whether Redis can be reached.
        let nothing = changes.is_empty().then_some(&changes[..]);
        for batch in changes.chunks(CHANGES_PER_MESSAGE_MAX).chain(nothing) {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(CHANNEL).arg(encode(batch));
            self.redis.query::<redis::Value>(&publish).await?;
        }
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn FanoutListener>, Source> {
        let connection = subscribe(&self.redis).await?;
        Ok(Box::new(RedisListener { redis: self.redis.clone(), state: State::up(connection) }))
    }
}

struct RedisListener {
    redis: Redis,
    state: State,
}

enum State {
    /// Since when nothing was received.
    Up { connection: PubSub, since: Instant },
    /// How many attempts have failed, and when the next one is made. Kept here, so that a caller that stops listening and
    /// begins again does not connect more often.
    Down { failures: u32, next: Instant },
}

impl State {
    fn up(connection: PubSub) -> Self {
        Self::Up { connection, since: Instant::now() }
    }
}

#[async_trait]
impl FanoutListener for RedisListener {
    async fn next(&mut self) -> FanoutMessage {
        loop {
            match &mut self.state {
                State::Up { connection, since } => {
                    let message = timeout_at(*since + QUIET_MAX, async { connection.on_message().next().await }).await;
                    match message {
                        Ok(Some(message)) => {
                            *since = Instant::now();
                            return decode(message.get_payload_bytes()).map_or(FanoutMessage::Gap, FanoutMessage::Seats);
                        }
                        Ok(None) => self.state = State::Down { failures: 0, next: Instant::now() },
                        Err(_) => {
                            self.redis.counted(1);
                            match bounded(connection.ping::<redis::Value>()).await {
                                Ok(_) => *since = Instant::now(),
                                _ => self.state = State::Down { failures: 0, next: Instant::now() },
                            }
                        }
                    }
                }
                State::Down { failures, next } => {
                    sleep_until(*next).await;
                    match subscribe(&self.redis).await {
                        Ok(connection) => {
                            self.state = State::up(connection);
                            return FanoutMessage::Gap;
                        }
                        Err(error) => {
                            tracing::debug!(%error, "no connection for messages of other instances; trying again");
                            let pause = jittered(doubled(PAUSE_MIN, PAUSE_MAX, *failures));
                            (*failures, *next) = (failures.saturating_add(1), Instant::now() + pause);
                        }
                    }
                }
            }
        }
    }
}

/// Returns when every message that is published from now on will be received.
async fn subscribe(redis: &Redis) -> Result<PubSub, Failure> {
    redis.counted(1);
    let mut connection = redis.subscriber().await?;
    bounded(connection.subscribe(CHANNEL)).await.map(|()| connection)
}

fn encode(changes: &[SeatChange]) -> Vec<u8> {
    let mut bytes = vec![FORM];
    for SeatChange { key, version, state } in changes {
        bytes.extend_from_slice(key.date.0.as_bytes());
        bytes.extend_from_slice(&key.number.to_be_bytes());
        bytes.extend_from_slice(&version.to_be_bytes());
        match state {
            SeatState::Available => bytes.push(AVAILABLE),
            SeatState::Held { reservation, until } => {
                bytes.push(HELD);
                bytes.extend_from_slice(reservation.0.as_bytes());
                bytes.extend_from_slice(&until.timestamp_micros().to_be_bytes());
            }
            SeatState::Sold { reservation } => {
                bytes.push(SOLD);
                bytes.extend_from_slice(reservation.0.as_bytes());
            }
        }
    }
    bytes
}

/// `None` for another form, and for bytes that make no sense.
fn decode(bytes: &[u8]) -> Option<Vec<SeatChange>> {
    let (&FORM, mut rest) = bytes.split_first()? else { return None };
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let key = SeatKey { date: DateId(uuid(&mut rest)?), number: u32::from_be_bytes(take(&mut rest)?) };
        let version = i64::from_be_bytes(take(&mut rest)?);
        let state = match take::<1>(&mut rest)? {
            [AVAILABLE] => SeatState::Available,
            [HELD] => {
                let reservation = ReservationId(uuid(&mut rest)?);
                SeatState::Held { reservation, until: DateTime::from_timestamp_micros(i64::from_be_bytes(take(&mut rest)?))? }
            }
            [SOLD] => SeatState::Sold { reservation: ReservationId(uuid(&mut rest)?) },
            _ => return None,
        };
        changes.push(SeatChange { key, version, state });
    }
    Some(changes)
}

fn uuid(bytes: &mut &[u8]) -> Option<Uuid> {
    take(bytes).map(Uuid::from_bytes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    /// Two changes as they were sent when the form was introduced: it must stay readable.
    const SENT: &str = "01\
        000102030405060708090a0b0c0d0e0f0000002a0000000000000007\
        01101112131415161718191a1b1c1d1e1f00000000000f4241\
        000102030405060708090a0b0c0d0e0f0000002bffffffffffffffff00";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn changes() -> Vec<SeatChange> {
        let date = DateId(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        let reservation = ReservationId(Uuid::from_u128(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f));
        let until = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_000_001);
        let change = |number, version, state| SeatChange { key: SeatKey { date, number }, version, state };
        vec![change(42, 7, SeatState::Held { reservation, until }), change(43, -1, SeatState::Available)]
    }

    #[test]
    fn a_message_of_this_form_is_read_and_written_unchanged() {
        assert_eq!(decode(&bytes(SENT)), Some(changes()));
        assert_eq!(encode(&changes()), bytes(SENT));
        let sold = vec![SeatChange { state: SeatState::Sold { reservation: ReservationId(Uuid::from_u128(9)) }, ..changes()[0] }];
        assert_eq!(decode(&encode(&sold)), Some(sold));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    }

    #[test]
    fn another_form_and_invalid_bytes_are_none() {
        let sent = bytes(SENT);
        let mut newer = sent.clone();
        newer[0] = FORM + 1;
        assert_eq!(decode(&newer), None);
        assert_eq!(decode(&[]), None);
        let first = 1 + 16 + 4 + 8 + 1 + 16 + 8;
        for end in 2..sent.len() {
            // Cut between two records it is a message too.
            assert_eq!(decode(&sent[..end]).is_some(), end == first, "cut at {end}");
        }
        let mut state = sent;
        state[1 + 16 + 4 + 8] = 9;
        assert_eq!(decode(&state), None);
    }
}
