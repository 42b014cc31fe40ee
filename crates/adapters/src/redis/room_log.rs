//! The logs of the waiting rooms, kept in Redis: shared by all instances, fast, and volatile.
//!
//! # Keys
//!
//! Three keys for each concert under one hash tag, touched by scripts alone:
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `head` | hash | epoch; base and last position with the stamps of the records there; the latest time; the snapshot's size |
//! | `records` | list | from behind the base to the last: time (8 bytes, microseconds), stamp (8), inputs ([`room_wire`]) |
//! | `snapshot` | string | the room as of the base |
//! | `pieces:…` | string | a long snapshot while it is sent, for half a minute at most |
//!
//! All three or none: a log of which a part is missing, evicted or deleted, is absent. A log that is not used is deleted
//! after a week.
//!
//! # Round trips
//!
//! An exchange is one script: it checks the position, reads records from the list's end (O(missing)), and appends the
//! inputs. Without inputs it writes nothing but the expiry, once an hour. An answer takes [`RECORDS_READ_MAX`] records and
//! about [`ANSWER_BYTES_MAX`]. If more is missing, the first part comes and nothing is appended. Beginning and compacting
//! are one script too. Snapshots beyond [`PIECE_BYTES`] take a round trip more for each piece, and count only when they are
//! complete. Time is the node's, moved by the clock's offset, and never goes back within a log.
//!
//! Measured on two cores over loopback, without optimisation: 1,000,000 joins in records of 500 take 41 bytes each in
//! Redis, 2.1 s to append one record after the other and 0.9 s to read back, in 34 answers.
//!
//! # Loss
//!
//! * *The node lost everything*: absent. An instance that still has the room begins the log again; of several one does.
//! * *It came back without the latest records* (a fail-over, an old file): the first instance that read one of those finds
//!   it: the log ends before its position, or has another record there (`stamps`). The log goes on under a new
//!   epoch with the records that are left, and all instances begin again with its snapshot. Until it is found, instances
//!   that had not read the lost records go on as if these had never been.
//! * *A crash here* between any two calls leaves nothing but pieces of a snapshot, which expire.
//!
//! An appended record is in the log for as long as Redis keeps it. It survives a crash of the node with `appendonly yes` and
//! `appendfsync always`, and otherwise perhaps not. `maxmemory-policy noeviction` is the right one.
//!
//! # Failure
//!
//! Redis away, or silent: [`RoomLogError::Unavailable`] within the bound of a round trip and, in a crowd, a second more. The
//! inputs may have been appended. A Cluster's client sends a command again by itself that got no answer: a record is
//! recognised by its stamp and not appended twice. Records that make no sense here are [`RoomLogError::Broken`].

mod calls;
mod scripts;
mod stamps;

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Timestamp};
use boxoffice_ports::{Clock, Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomLogError, RoomRecord};
use chrono::DateTime;

use super::connect::Redis;
use crate::room_wire;
use calls::{Calls, PIECE_BYTES, senseless, unavailable};
use scripts::{BEGIN, Beginning, COMPACT, EXCHANGE, ExchangeAnswer};
use stamps::Stamps;

/// An answer ends with the record that reaches this size.
const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// How often a snapshot is read again that was replaced while it was read. After that the log is unavailable to a reader so
/// slow.
const BEGINNINGS_MAX: u32 = 5;
/// Lua's numbers count exactly up to here.
const EPOCHS: u64 = 1 << 53;

/// See the module's opening.
pub struct RedisRoomLog {
    calls: Calls,
    stamps: Stamps,
}

impl RedisRoomLog {
    pub fn new(redis: Redis, clock: Arc<dyn Clock>) -> Self {
        Self { calls: Calls::new(redis, clock), stamps: Stamps::default() }
    }

    /// The whole snapshot, unless it is replaced while it is read.
    async fn begun(&self, concert: ConcertId, mut beginning: Beginning) -> Result<Option<Exchanged>, RoomLogError> {
        if beginning.lost {
            tracing::warn!(concert.id = %concert, "a waiting room's log came back without its latest records");
        }
        if self.calls.rest(concert, &mut beginning).await?.is_none() {
            return Ok(None);
        }
        let position = LogPosition { epoch: beginning.epoch, seq: beginning.seq };
        self.stamps.remember(concert, position, [beginning.stamp]);
        Ok(Some(Exchanged::Begin { now: time(beginning.now)?, position, snapshot: beginning.snapshot }))
    }
}

#[async_trait]
impl RoomLog for RedisRoomLog {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        let payload = if inputs.is_empty() { Vec::new() } else { room_wire::encode(&inputs)? };
        let own_stamp: stamps::Stamp = rand::random();
        let arguments = self.calls.arguments().number(since.epoch).number(since.seq).stamp(self.stamps.get(concert, since));
        let arguments = arguments.number(fresh_epoch()).number(RECORDS_READ_MAX as u64).number(ANSWER_BYTES_MAX).number(PIECE_BYTES as u64);
        let arguments = arguments.stamp(Some(own_stamp)).bytes(payload);
        for _ in 0..BEGINNINGS_MAX {
            match ExchangeAnswer::parse(self.calls.run(concert, "pieces", &EXCHANGE, &arguments).await?).ok_or_else(senseless)? {
                ExchangeAnswer::Records { now, records: stored, own_at } => {
                    let mut records = Vec::with_capacity(stored.len() + 1);
                    for (seq, record) in (since.seq + 1..).zip(&stored) {
                        records.push(RoomRecord { seq, at: time(record.at)?, inputs: room_wire::decode(record.inputs())? });
                    }
                    if let (Some(at), Some(payload)) = (own_at, arguments.0.last()) {
                        // As the other instances will read it: the value may hold more than its bytes do.
                        let inputs = room_wire::decode(payload)?;
                        records.push(RoomRecord { seq: since.seq + records.len() as u64 + 1, at: time(at)?, inputs });
                    }
                    let stamps = stored.iter().map(|record| record.stamp).chain(own_at.map(|_| own_stamp));
                    self.stamps.remember(concert, LogPosition { epoch: since.epoch, seq: since.seq + 1 }, stamps);
                    return Ok(Exchanged::Records { now: time(now)?, records, appended: own_at.is_some() });
                }
                ExchangeAnswer::Begin(beginning) => {
                    if let Some(begun) = self.begun(concert, beginning).await? {
                        return Ok(begun);
                    }
                }
                ExchangeAnswer::Absent { now } => {
                    self.stamps.forget(concert);
                    return Ok(Exchanged::Absent { now: time(now)? });
                }
                ExchangeAnswer::Repeated => return Err(unavailable("the answer to an append was lost")),
            }
        }
        Err(unavailable("the log's snapshot is replaced faster than it can be read"))
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let arguments = self.calls.arguments().number(fresh_epoch()).stamp(Some(rand::random()));
        self.calls.put(concert, &BEGIN, arguments, &snapshot).await
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let arguments = self.calls.arguments().number(upto.epoch).number(upto.seq).stamp(self.stamps.get(concert, upto));
        self.calls.put(concert, &COMPACT, arguments, &snapshot).await
    }

    fn is_volatile(&self) -> bool {
        true
    }
}

/// Never 0, which means none.
fn fresh_epoch() -> u64 {
    rand::random_range(1..EPOCHS)
}

fn time(us: i64) -> Result<Timestamp, RoomLogError> {
    DateTime::from_timestamp_micros(us).ok_or_else(senseless)
}
