//! The logs of waiting rooms, in this process.
//!
//! They live exactly as long as their readers, which are in the same process: so they count as not volatile, although
//! nothing is durable. They have a mutex of their own, so that a big snapshot does not delay the ledger; it is never held
//! across an await. A panic with the mutex held (a defect) poisons it: every later call fails.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use boxoffice_domain::waiting::{RoomInput, log_time};
use boxoffice_domain::{ConcertId, Timestamp};
use boxoffice_ports::{Clock, Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomLogError, RoomRecord};

use crate::room_log::{Extent, draw_epoch};

pub(super) struct MemoryRoomLog {
    logs: Mutex<HashMap<ConcertId, Log>>,
    clock: Arc<dyn Clock>,
}

struct Log {
    extent: Extent,
    /// The time of the last record, or of the log's beginning.
    latest: Timestamp,
    snapshot: Vec<u8>,
    /// The records that follow the snapshot.
    records: VecDeque<RoomRecord>,
}

impl MemoryRoomLog {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { logs: Mutex::default(), clock }
    }

    fn logs(&self) -> Result<MutexGuard<'_, HashMap<ConcertId, Log>>, RoomLogError> {
        self.logs.lock().map_err(|_| RoomLogError::Broken("an earlier call panicked half way".into()))
    }
}

impl Log {
    fn exchange(&mut self, now: Timestamp, since: LogPosition, inputs: Vec<RoomInput>) -> Exchanged {
        let now = log_time(now, self.latest);
        let Some(behind) = self.extent.behind(since) else {
            return Exchanged::Begin { now, position: self.extent.beginning(), snapshot: self.snapshot.clone() };
        };
        let appended = !inputs.is_empty() && behind <= RECORDS_READ_MAX as u64;
        if appended {
            self.extent.last += 1;
            self.latest = now;
            self.records.push_back(RoomRecord { seq: self.extent.last, at: now, inputs });
        }
        // The position is in the log, so this many records lie before it.
        let read = (since.seq - self.extent.base) as usize;
        let records = self.records.iter().skip(read).take(RECORDS_READ_MAX + usize::from(appended)).cloned().collect();
        Exchanged::Records { now, records, appended }
    }
}

#[async_trait]
impl RoomLog for MemoryRoomLog {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        let mut logs = self.logs()?;
        let now = self.clock.now();
        Ok(match logs.get_mut(&concert) {
            Some(log) => log.exchange(now, since, inputs),
            None => Exchanged::Absent { now },
        })
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let mut logs = self.logs()?;
        if logs.contains_key(&concert) {
            return Ok(false);
        }
        let extent = Extent { epoch: draw_epoch(), base: 0, last: 0 };
        logs.insert(concert, Log { extent, latest: self.clock.now(), snapshot, records: VecDeque::new() });
        Ok(true)
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let mut logs = self.logs()?;
        let Some(log) = logs.get_mut(&concert).filter(|log| log.extent.has_record(upto)) else { return Ok(false) };
        log.records.drain(..(upto.seq - log.extent.base) as usize);
        log.extent.base = upto.seq;
        log.snapshot = snapshot;
        Ok(true)
    }

    fn is_volatile(&self) -> bool {
        false
    }
}
