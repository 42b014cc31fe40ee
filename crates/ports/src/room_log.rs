use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Timestamp};

use crate::Source;

/// How many records one answer takes, beside the one that it appends. Whoever has more of them to read asks again.
pub const RECORDS_READ_MAX: usize = 1_000;

/// How far a reader is in a room's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Which log: drawn when it begins. 0: none was read yet.
    pub epoch: u64,
    /// The last record that was read, from 1; 0: only the snapshot that it began with.
    pub seq: u64,
}

/// What was appended in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct RoomRecord {
    /// One more than the record before.
    pub seq: u64,
    /// The store's time, moved by the clock's offset. Within a log it goes back only when the clock was set back
    /// ([`boxoffice_domain::waiting::log_time`]).
    pub at: Timestamp,
    pub inputs: Vec<RoomInput>,
}

/// What came of asking a room's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Exchanged {
    Records {
        /// As `RoomRecord::at`, and never before the last of them.
        now: Timestamp,
        /// What follows the reader's position, in order and without a gap; not always all of it.
        records: Vec<RoomRecord>,
        /// Whether the inputs were appended: then theirs is the last record, and there are no more.
        appended: bool,
    },
    /// The reader's position is not in the log (any more): it begins again with this snapshot, which stands for
    /// everything up to `position`. Nothing was appended.
    Begin { now: Timestamp, position: LogPosition, snapshot: Vec<u8> },
    /// There is no log for this concert. Nothing was appended.
    Absent { now: Timestamp },
}

#[derive(Debug, thiserror::Error)]
pub enum RoomLogError {
    /// It cannot be reached or does not answer in time. What was to be appended may have been.
    #[error("the waiting room's log is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// What it holds makes no sense to this version.
    #[error("the waiting room's log cannot be read: {0}")]
    Broken(#[source] Source),
}

/// What the waiting rooms were told, in the one order that all instances read it in, so that each of them comes to the
/// same room. One log for each concert.
///
/// Each call is one round trip and atomic; what was appended is as durable as the adapter promises before it returns.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RoomLog: Send + Sync {
    /// Reads what follows `since`, and appends `inputs` as one record with the store's time, unless there are none, or
    /// more records to be read first than one answer takes.
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError>;
    /// Begins a log with a snapshot where there is none. Whether it did; of several at once one does.
    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
    /// Puts a snapshot in the place of everything up to `upto`, the record that it ends with. Whether it did: not when
    /// that record is not in the log (any more).
    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
    /// Whether a log may be lost, as what lies in memory elsewhere may.
    fn is_volatile(&self) -> bool;
}
