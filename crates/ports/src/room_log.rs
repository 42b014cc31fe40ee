//! The log of a waiting room: its inputs, in the one order in which all instances read them, so that each comes to the same
//! room. There is one log for each concert.

use async_trait::async_trait;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_domain::{ConcertId, Timestamp};

use crate::Source;

/// The most records of one answer, beside the one that it appends. A reader that has more to read asks again.
pub const RECORDS_READ_MAX: usize = 1_000;

/// Up to where a reader has read a room's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Which log: drawn when the log begins. 0: none was read yet.
    pub epoch: u64,
    /// The last record that was read, from 1; 0: only the snapshot at its beginning.
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

/// The answer of a room's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Exchanged {
    Records {
        /// As `RoomRecord::at`, and never before the last record.
        now: Timestamp,
        /// What follows the reader's position, in order and without a gap; perhaps not all of it.
        records: Vec<RoomRecord>,
        /// Whether the inputs were appended: then theirs is the last record of the log.
        appended: bool,
    },
    /// The reader's position is not in the log (any more): the reader begins again with this snapshot, which replaces
    /// everything up to `position`. Nothing was appended.
    Begin { now: Timestamp, position: LogPosition, snapshot: Vec<u8> },
    /// There is no log for this concert. Nothing was appended.
    Absent { now: Timestamp },
}

#[derive(Debug, thiserror::Error)]
pub enum RoomLogError {
    /// It cannot be reached or does not answer in time. The inputs may have been appended.
    #[error("the waiting room's log is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// Its content is not readable by this version.
    #[error("the waiting room's log cannot be read: {0}")]
    Broken(#[source] Source),
}

/// Each call is one round trip and atomic; what was appended is as durable as the adapter promises before it returns.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RoomLog: Send + Sync {
    /// Reads what follows `since`, and appends `inputs` as one record with the store's time. Appends nothing if there are
    /// no inputs, or if more records must be read first than one answer holds.
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError>;
    /// Begins a log with a snapshot if there is none. Returns whether it did; of several concurrent calls one does.
    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
    /// Replaces everything up to the record `upto` by a snapshot. Returns whether it did: not if that record is not in
    /// the log (any more).
    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError>;
    /// Whether a log can be lost, for instance because it is kept in the memory of another server.
    fn is_volatile(&self) -> bool;
}
