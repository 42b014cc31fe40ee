//! The logs of the waiting rooms, kept in Redis: shared by all instances, quick, and volatile.
//!
//! # What lies where
//!
//! Three keys a concert under one hash tag, touched by scripts alone:
//!
//! | key | is | holds |
//! | --- | --- | --- |
//! | `head` | hash | epoch; base and last position with the stamps of the records there; the latest time; the snapshot's size |
//! | `records` | list | from behind the base to the last: time (8 bytes, microseconds), stamp (8), inputs ([`room_wire`]) |
//! | `snapshot` | string | the room as of the base |
//! | `pieces:…` | string | a long snapshot on its way in, for half a minute at most |
//!
//! All three or none: a log of which a part is missing, evicted or deleted, is absent. A log that nobody touches goes
//! away after [`LOG_KEPT_S`].
//!
//! # Round trips
//!
//! An exchange is one script: position checked, records read from the list's end (O(missing)), inputs appended. Without
//! inputs it writes nothing, but for the expiry, once an hour. An answer takes [`RECORDS_READ_MAX`] records and
//! about [`ANSWER_BYTES_MAX`]; when more is missing, the first part comes and nothing is appended. Beginning and compacting
//! are one script too. Snapshots beyond [`PIECE_BYTES`] take a round trip more for each piece, and count only when
//! they are complete. Time is the node's, moved by the clock's offset, and never goes back within a log.
//!
//! Measured on two cores over loopback, without optimisation: 1,000,000 joins in records of 500 take 41 bytes each in
//! Redis, 2.1 s to append one record after the other and 0.9 s to read back, in 34 answers.
//!
//! # Loss
//!
//! * *The node lost everything*: absent. Whoever still has the room begins the log again; of several one does.
//! * *It came back without the latest records* (a fail-over, an old file): found by the first who read one of those,
//!   because the log ends before its position or has another record there (`stamps`). The log goes on under a new
//!   epoch with what there is, and everybody begins again with its snapshot. Until somebody finds it, those who had not
//!   read what was lost go on as if it had never been.
//! * *A crash here* between any two calls leaves nothing but pieces of a snapshot, which expire.
//!
//! What was told as appended is in the log for as long as Redis remembers: with `appendonly yes` and `appendfsync
//! always` over a crash of the node, otherwise not for sure. `maxmemory-policy noeviction` is the one that fits.
//!
//! # Failure
//!
//! Redis away, or silent: [`RoomLogError::Unavailable`] within a round trip's bound and, in a crowd, [`CALL_WAIT_MAX`];
//! what was to be appended may have been. A Cluster's client sends again by itself what got no answer: a record is known
//! by its stamp and not appended twice. Records that make no sense here are [`RoomLogError::Broken`].

mod script;
mod snapshot;
mod stamps;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Timestamp};
use boxoffice_ports::{Clock, Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomLogError, RoomRecord, Source};
use chrono::DateTime;
use redis::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connect::{Redis, Script};
use crate::room_wire;
use script::{Arguments, BEGIN, Beginning, COMPACT, EXCHANGE, Said};
use snapshot::PIECE_BYTES;
use stamps::Stamps;

/// A log that nobody touches goes away after this time, in seconds: longer than any entry of a room is kept.
const LOG_KEPT_S: u64 = 7 * 24 * 3_600;
/// An answer ends with the record that reaches this size.
const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// How often a snapshot is asked for again that another one took the place of while it was read. Then the log is
/// unavailable to somebody so slow.
const BEGINNINGS_MAX: u32 = 5;
/// Calls of this instance that Redis is given at a time, so that those behind them in a crowd do not count their wait as
/// Redis's silence.
const CALLS_MAX: usize = 256;
/// How long a call waits for that. Then more is asked than Redis answers, or it hangs.
const CALL_WAIT_MAX: Duration = Duration::from_secs(1);
/// Lua's numbers count exactly up to here.
const EPOCHS: u64 = 1 << 53;

/// See the module's opening.
pub struct RedisRoomLog {
    redis: Redis,
    clock: Arc<dyn Clock>,
    calls: Semaphore,
    stamps: Stamps,
}

impl RedisRoomLog {
    pub fn new(redis: Redis, clock: Arc<dyn Clock>) -> Self {
        Self { redis, clock, calls: Semaphore::new(CALLS_MAX), stamps: Stamps::default() }
    }

    /// What every script is told first.
    fn arguments(&self) -> Arguments {
        let offset_us = self.clock.offset().num_microseconds().unwrap_or(i64::MAX);
        Arguments::default().number(offset_us).number(LOG_KEPT_S)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, RoomLogError> {
        let turn = timeout(CALL_WAIT_MAX, self.calls.acquire()).await;
        turn.map_err(|_| unavailable("too many calls wait for Redis"))?.map_err(unavailable)
    }

    /// One call of a script.
    async fn run(&self, concert: ConcertId, pieces: &str, script: &Script, arguments: &Arguments) -> Result<Value, RoomLogError> {
        let _turn = self.turn().await?;
        self.redis.run(script, &script::keys(concert, pieces), &arguments.0).await.map_err(unavailable)
    }

    /// The whole snapshot, unless another one took its place on the way.
    async fn begun(&self, concert: ConcertId, mut beginning: Beginning) -> Result<Option<Exchanged>, RoomLogError> {
        if beginning.lost {
            tracing::warn!(concert.id = %concert, "a waiting room's log came back without its latest records");
        }
        if self.rest(concert, &mut beginning).await?.is_none() {
            return Ok(None);
        }
        let position = LogPosition { epoch: beginning.epoch, seq: beginning.seq };
        self.stamps.see(concert, position, [beginning.stamp]);
        Ok(Some(Exchanged::Begin { now: time(beginning.now)?, position, snapshot: beginning.snapshot }))
    }
}

#[async_trait]
impl RoomLog for RedisRoomLog {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        let payload = if inputs.is_empty() { Vec::new() } else { room_wire::encode(&inputs)? };
        let own_stamp: stamps::Stamp = rand::random();
        let arguments = self.arguments().number(since.epoch).number(since.seq).stamp(self.stamps.get(concert, since));
        let arguments = arguments.number(fresh_epoch()).number(RECORDS_READ_MAX as u64).number(ANSWER_BYTES_MAX).number(PIECE_BYTES as u64);
        let arguments = arguments.stamp(Some(own_stamp)).bytes(payload);
        for _ in 0..BEGINNINGS_MAX {
            match Said::parse(self.run(concert, "pieces", &EXCHANGE, &arguments).await?).ok_or_else(senseless)? {
                Said::Records { now, records: stored, own_at } => {
                    let mut records = Vec::with_capacity(stored.len() + 1);
                    for (seq, record) in (since.seq + 1..).zip(&stored) {
                        records.push(RoomRecord { seq, at: time(record.at)?, inputs: room_wire::decode(record.inputs())? });
                    }
                    if let (Some(at), Some(payload)) = (own_at, arguments.0.last()) {
                        // As everybody else will read it: what was given may say more than its bytes.
                        let inputs = room_wire::decode(payload)?;
                        records.push(RoomRecord { seq: since.seq + records.len() as u64 + 1, at: time(at)?, inputs });
                    }
                    let stamps = stored.iter().map(|record| record.stamp).chain(own_at.map(|_| own_stamp));
                    self.stamps.see(concert, LogPosition { epoch: since.epoch, seq: since.seq + 1 }, stamps);
                    return Ok(Exchanged::Records { now: time(now)?, records, appended: own_at.is_some() });
                }
                Said::Begin(beginning) => {
                    if let Some(begun) = self.begun(concert, beginning).await? {
                        return Ok(begun);
                    }
                }
                Said::Absent { now } => {
                    self.stamps.forget(concert);
                    return Ok(Exchanged::Absent { now: time(now)? });
                }
                Said::Repeated => return Err(unavailable("the answer to what was appended was lost")),
            }
        }
        Err(unavailable("the log's snapshot changes faster than it can be read"))
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let arguments = self.arguments().number(fresh_epoch()).stamp(Some(rand::random()));
        self.put(concert, &BEGIN, arguments, &snapshot).await
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let arguments = self.arguments().number(upto.epoch).number(upto.seq).stamp(self.stamps.get(concert, upto));
        self.put(concert, &COMPACT, arguments, &snapshot).await
    }

    fn is_volatile(&self) -> bool {
        true
    }
}

/// Never 0, which stands for none.
fn fresh_epoch() -> u64 {
    rand::random_range(1..EPOCHS)
}

fn time(us: i64) -> Result<Timestamp, RoomLogError> {
    DateTime::from_timestamp_micros(us).ok_or_else(senseless)
}

fn unavailable(error: impl Into<Source>) -> RoomLogError {
    RoomLogError::Unavailable(error.into())
}

/// A script of another version, or somebody else's keys.
fn senseless() -> RoomLogError {
    RoomLogError::Broken("the answer of the waiting room's log makes no sense".into())
}
