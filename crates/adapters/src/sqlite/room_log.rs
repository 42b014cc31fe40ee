//! The logs of waiting rooms, in the file.
//!
//! Appends go through the one writer, which gives them their order; other queued work shares their commit. A record is on
//! the disk before it is answered. An exchange without inputs reads a snapshot of the file: it waits for no writer and
//! sees every answered append. Time is this machine's and goes back within a log only if its clock was set back, because
//! the log's row keeps the last record's time. Each call is one transaction; a crash leaves all of it or nothing.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{At, row, rows, run, statements};
use super::writer::{Session, Share};
use crate::room_log::{Extent, draw_epoch};
use crate::room_wire::{decode, encode};
use crate::sql::rows::stored;
use async_trait::async_trait;
use boxoffice_domain::waiting::{RoomInput, log_time};
use boxoffice_domain::{ConcertId, Timestamp};
use boxoffice_ports::{Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomLogError, RoomRecord};
use diesel::sql_types::{BigInt, Binary};
use diesel::{Connection, SqliteConnection};
use std::sync::Arc;

statements! {
    SelectLog -> (BigInt, BigInt, BigInt, BigInt) = "SELECT epoch, base_seq, last_seq, latest_at FROM room_logs WHERE concert_id = ?";
    SelectSnapshot -> Binary = "SELECT snapshot FROM room_snapshots WHERE concert_id = ? AND seq = ?";
    SelectRecords -> (BigInt, BigInt, Binary) =
        "SELECT seq, at, inputs FROM room_records WHERE concert_id = ? AND seq > ? ORDER BY seq LIMIT ?";
    InsertLog = "INSERT INTO room_logs (concert_id, epoch, base_seq, last_seq, latest_at) VALUES (?, ?, 0, 0, ?)
        ON CONFLICT (concert_id) DO NOTHING";
    InsertSnapshot = "INSERT INTO room_snapshots (concert_id, seq, snapshot) VALUES (?, ?, ?)";
    InsertRecord = "INSERT INTO room_records (concert_id, seq, at, inputs) VALUES (?, ?, ?, ?)";
    UpdateLast = "UPDATE room_logs SET last_seq = ?, latest_at = ? WHERE concert_id = ?";
    UpdateBase = "UPDATE room_logs SET base_seq = ? WHERE concert_id = ?";
    DeleteSnapshots = "DELETE FROM room_snapshots WHERE concert_id = ? AND seq < ?";
    DeleteRecords = "DELETE FROM room_records WHERE concert_id = ? AND seq <= ?";
}

struct SqliteRoomLog {
    store: Arc<SqliteStore>,
}

impl SqliteStore {
    /// The logs of the waiting rooms that live in this file.
    pub fn room_log(self: &Arc<Self>) -> Arc<dyn RoomLog> {
        Arc::new(SqliteRoomLog { store: self.clone() })
    }
}

/// The result of an exchange, its records not yet decoded.
struct Found {
    now: Timestamp,
    kind: Kind,
}

enum Kind {
    Absent,
    Begin {
        position: LogPosition,
        snapshot: Vec<u8>,
    },
    Records {
        records: Vec<(i64, At, Vec<u8>)>,
        /// The number of the appended record, which comes last.
        own: Option<u64>,
    },
}

/// Reads the records after `since`; `now` is the clock's time. `append` is called with the log's extent and the new record's
/// time, if the log exists and the caller is not too far behind.
fn exchange(
    conn: &mut SqliteConnection,
    concert: ConcertId,
    since: LogPosition,
    now: Timestamp,
    append: impl FnOnce(&mut SqliteConnection, Extent, Timestamp) -> Result<Option<u64>, Failure>,
) -> Result<Found, Failure> {
    let Some((extent, latest)) = log(conn, concert)? else { return Ok(Found { now, kind: Kind::Absent }) };
    let now = log_time(now, latest);
    let Some(behind) = extent.behind(since) else {
        let snapshot: Option<Vec<u8>> = row::<SelectSnapshot, _, _>(conn, (concert, stored(extent.base)?))?;
        let snapshot = snapshot.ok_or_else(|| Failure::Data("a log has no snapshot".to_owned()))?;
        return Ok(Found { now, kind: Kind::Begin { position: extent.beginning(), snapshot } });
    };
    let records = rows::<SelectRecords, _, _>(conn, (concert, stored(since.seq)?, RECORDS_READ_MAX as i64))?;
    let own = if behind <= RECORDS_READ_MAX as u64 { append(conn, extent, now)? } else { None };
    Ok(Found { now, kind: Kind::Records { records, own } })
}

fn log(conn: &mut SqliteConnection, concert: ConcertId) -> Result<Option<(Extent, Timestamp)>, Failure> {
    let found: Option<(i64, i64, i64, At)> = row::<SelectLog, _, _>(conn, (concert,))?;
    let extent =
        |epoch: i64, base: i64, last: i64| Extent { epoch: epoch.unsigned_abs(), base: base.unsigned_abs(), last: last.unsigned_abs() };
    Ok(found.map(|(epoch, base, last, latest)| (extent(epoch, base, last), latest.0)))
}

impl SqliteRoomLog {
    async fn append(&self, concert: ConcertId, since: LogPosition, inputs: Vec<u8>) -> Result<Found, Failure> {
        let work = move |session: &mut Session| {
            let now = session.clock.now();
            exchange(&mut session.conn, concert, since, now, |conn, extent, at| {
                let own = extent.last + 1;
                Failure::check_count("room records", run::<InsertRecord>(conn, (concert, stored(own)?, At(at), inputs.as_slice()))?, 1)?;
                Failure::check_count("room logs", run::<UpdateLast>(conn, (stored(own)?, At(at), concert))?, 1)?;
                Ok(Some(own))
            })
        };
        self.store.writer.write(Share::Small, work).await
    }

    async fn read(&self, concert: ConcertId, since: LogPosition) -> Result<Found, Failure> {
        let now = self.store.clock.now();
        self.store.readers.read(move |conn| conn.transaction(|conn| exchange(conn, concert, since, now, |_, _, _| Ok(None)))).await
    }
}

#[async_trait]
impl RoomLog for SqliteRoomLog {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        let found = if inputs.is_empty() { self.read(concert, since).await } else { self.append(concert, since, encode(&inputs)?).await };
        let Found { now, kind } = found?;
        Ok(match kind {
            Kind::Absent => Exchanged::Absent { now },
            Kind::Begin { position, snapshot } => Exchanged::Begin { now, position, snapshot },
            Kind::Records { records, own } => {
                let record =
                    |(seq, at, inputs): (i64, At, Vec<u8>)| Ok(RoomRecord { seq: seq.unsigned_abs(), at: at.0, inputs: decode(&inputs)? });
                let mut records = records.into_iter().map(record).collect::<Result<Vec<_>, RoomLogError>>()?;
                records.extend(own.map(|seq| RoomRecord { seq, at: now, inputs }));
                Exchanged::Records { now, records, appended: own.is_some() }
            }
        })
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let epoch = draw_epoch();
        let work = move |session: &mut Session| {
            let now = session.clock.now();
            if run::<InsertLog>(&mut session.conn, (concert, stored(epoch)?, At(now)))? == 0 {
                return Ok(false);
            }
            Failure::check_count("room snapshots", run::<InsertSnapshot>(&mut session.conn, (concert, 0, snapshot.as_slice()))?, 1)?;
            Ok(true)
        };
        Ok(self.store.writer.write(Share::Small, work).await?)
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let work = move |session: &mut Session| {
            let conn = &mut session.conn;
            if !log(conn, concert)?.is_some_and(|(extent, _)| extent.has_record(upto)) {
                return Ok(false);
            }
            let seq = stored(upto.seq)?;
            Failure::check_count("room snapshots", run::<InsertSnapshot>(conn, (concert, seq, snapshot.as_slice()))?, 1)?;
            Failure::check_count("room logs", run::<UpdateBase>(conn, (seq, concert))?, 1)?;
            run::<DeleteSnapshots>(conn, (concert, seq))?;
            run::<DeleteRecords>(conn, (concert, seq))?;
            Ok(true)
        };
        Ok(self.store.writer.write(Share::Small, work).await?)
    }

    fn is_volatile(&self) -> bool {
        false
    }
}
