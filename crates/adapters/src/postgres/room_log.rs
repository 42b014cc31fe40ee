//! The logs of waiting rooms, in the database: for any number of instances, with nothing in memory that may be lost.
//!
//! **Atomic over instances.** Each call is one statement that is its own transaction; one that takes several SQL
//! statements is a function (`migrations/postgres`). An append locks the log's row `FOR NO KEY UPDATE`, then reads the
//! clock, so the order of records is the order of their numbers and of their times. Lock order: a new snapshot's row, then
//! the log's, then records and older snapshots; appends lock the log's alone. An exchange without inputs takes no lock and
//! writes nothing: it reads log, snapshot and records in one snapshot of the database.
//!
//! **Round trips**: one each. A record is on the server's disk before it is answered. A caller's own inputs are not sent
//! back.
//!
//! **Time** is the server's, moved by the clock's offset. The log's row keeps the last record's time; no later record has
//! an earlier time, unless the server's clock was set back (`room_time`).
//!
//! **Failure.** A call without an answer may have been committed: the connection may have ended between the two. A crash
//! leaves all of a call or nothing.

use super::PostgresStore;
use super::failure::Failure;
use super::sql::{row, rows, statements};
use crate::room_log::draw_epoch;
use crate::room_wire::{decode, encode};
use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Timestamp};
use boxoffice_ports::{Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomLogError, RoomRecord};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Timestamptz};
use std::sync::Arc;

type AnswerTypes =
    (Nullable<BigInt>, Nullable<BigInt>, Timestamptz, Nullable<Binary>, Nullable<BigInt>, Nullable<Timestamptz>, Nullable<Binary>);

statements! {
    Exchange -> AnswerTypes = "SELECT * FROM room_exchange($1, $2, $3, $4, $5, $6)";
    Read -> AnswerTypes = "SELECT * FROM room_read($1, $2, $3, $4, $5, NULL)";
    Begin -> Bool = "SELECT room_begin($1, $2, $3, $4)";
    Compact -> Bool = "SELECT room_compact($1, $2, $3, $4)";
}

/// Epoch, number of the snapshot, now, the snapshot if the position is outside the log. Then a record's number, time and
/// inputs; the caller's own record comes without inputs.
type Answer = (Option<i64>, Option<i64>, Timestamp, Option<Vec<u8>>, Option<i64>, Option<Timestamp>, Option<Vec<u8>>);

struct PostgresRoomLog {
    store: Arc<PostgresStore>,
}

impl PostgresStore {
    /// The logs of the waiting rooms that live in this database, for any number of instances.
    pub fn room_log(self: &Arc<Self>) -> Arc<dyn RoomLog> {
        Arc::new(PostgresRoomLog { store: self.clone() })
    }
}

/// A position that is out of range becomes one that no log has.
fn asked(position: LogPosition) -> (i64, i64) {
    (i64::try_from(position.epoch).unwrap_or(0), i64::try_from(position.seq).unwrap_or(i64::MAX))
}

fn answered(rows: Vec<Answer>, mut own: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
    let contradiction = || Failure::Data("an exchange contradicts itself".to_owned());
    let mut records = Vec::with_capacity(rows.len());
    let (mut instant, mut appended) = (None, false);
    for (epoch, base, now, snapshot, seq, at, inputs) in rows {
        let (Some(epoch), Some(base)) = (epoch, base) else { return Ok(Exchanged::Absent { now }) };
        if let Some(snapshot) = snapshot {
            let position = LogPosition { epoch: epoch.unsigned_abs(), seq: base.unsigned_abs() };
            return Ok(Exchanged::Begin { now, position, snapshot });
        }
        instant = Some(now);
        let (seq, at, inputs) = match (seq, at, inputs) {
            (None, None, None) => continue,
            (Some(seq), Some(at), Some(inputs)) if !appended => (seq, at, decode(&inputs)?),
            (Some(seq), Some(at), None) if !appended => {
                appended = true;
                (seq, at, std::mem::take(&mut own))
            }
            _ => return Err(contradiction().into()),
        };
        records.push(RoomRecord { seq: seq.unsigned_abs(), at, inputs });
    }
    Ok(Exchanged::Records { now: instant.ok_or_else(contradiction)?, records, appended })
}

#[async_trait]
impl RoomLog for PostgresRoomLog {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        let ((epoch, seq), offset_us, records_max) = (asked(since), self.store.offset_us(), RECORDS_READ_MAX as i64);
        let mut conn = self.store.conn().await?;
        let found: Vec<Answer> = if inputs.is_empty() {
            rows::<Read, _, _>(&mut conn, (concert, offset_us, epoch, seq, records_max)).await?
        } else {
            let encoded = encode(&inputs)?;
            rows::<Exchange, _, _>(&mut conn, (concert, offset_us, epoch, seq, records_max, encoded.as_slice())).await?
        };
        answered(found, inputs)
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let epoch = i64::try_from(draw_epoch()).unwrap_or(i64::MAX);
        let binds = (concert, self.store.offset_us(), epoch, snapshot.as_slice());
        let began: Option<bool> = row::<Begin, _, _>(&mut self.store.conn().await?, binds).await?;
        Ok(began == Some(true))
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let (epoch, seq) = asked(upto);
        let compacted: Option<bool> =
            row::<Compact, _, _>(&mut self.store.conn().await?, (concert, epoch, seq, snapshot.as_slice())).await?;
        Ok(compacted == Some(true))
    }

    fn is_volatile(&self) -> bool {
        false
    }
}
