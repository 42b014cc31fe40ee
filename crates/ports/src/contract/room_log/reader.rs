//! A reader of a log, from a snapshot on, which also appends to it.

use std::sync::Arc;

use boxoffice_domain::waiting::{RoomInput, is_set_back, log_time};
use boxoffice_domain::{ConcertId, Timestamp};

use super::case::exchange;
use crate::{Exchanged, LogPosition, RECORDS_READ_MAX, RoomLog, RoomRecord};

/// How often it asks before it gives up: more answers than any case needs.
const ANSWERS_MAX: usize = 1_000;

pub(super) struct Reader {
    log: Arc<dyn RoomLog>,
    concert: ConcertId,
    /// What it began with.
    pub(super) snapshot: Vec<u8>,
    /// What came since, in order.
    pub(super) records: Vec<RoomRecord>,
    pub(super) position: LogPosition,
    /// The latest instant of an answer.
    now: Timestamp,
    /// Of the last record.
    latest: Timestamp,
}

impl Reader {
    pub(super) async fn begin(log: &Arc<dyn RoomLog>, concert: ConcertId) -> Self {
        match exchange(log, concert, LogPosition::default(), Vec::new()).await {
            Exchanged::Begin { now, position, snapshot } => {
                Self { log: Arc::clone(log), concert, snapshot, records: Vec::new(), position, now, latest: Timestamp::MIN_UTC }
            }
            other => panic!("a beginning was expected, and not {other:?}"),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// One round trip, with everything checked that holds for each; false: it must begin again.
    async fn ask(&mut self, inputs: &[RoomInput]) -> Option<bool> {
        let (now, records, appended) = match exchange(&self.log, self.concert, self.position, inputs.to_vec()).await {
            Exchanged::Records { now, records, appended } => (now, records, appended),
            Exchanged::Begin { now, position, snapshot } => {
                *self = Self { snapshot, position, now, records: Vec::new(), log: self.log.clone(), ..*self };
                return None;
            }
            other @ Exchanged::Absent { .. } => panic!("{other:?}"),
        };
        assert!(records.len() <= RECORDS_READ_MAX + usize::from(appended), "{} records", records.len());
        for record in &records {
            assert_eq!(record.seq, self.position.seq + 1, "no gap, and nothing twice");
            // No case sets a clock back by less than minutes.
            let is_later = record.at >= self.latest || is_set_back(record.at, self.latest);
            assert!(is_later, "{} after {}", record.at, self.latest);
            assert!(!record.inputs.is_empty(), "nothing is no record");
            (self.position.seq, self.latest) = (record.seq, record.at);
        }
        assert!(self.latest <= now || is_set_back(now, self.latest), "now is {now}, before {}", self.latest);
        if appended {
            assert_eq!(records.last().map(|record| record.inputs.as_slice()), Some(inputs), "one's own is the last");
            assert!(!inputs.is_empty());
        }
        self.now = log_time(now, self.now);
        self.records.extend(records);
        Some(appended)
    }

    /// One round trip; whether the inputs were appended.
    pub(super) async fn exchange(&mut self, inputs: Vec<RoomInput>) -> bool {
        self.ask(&inputs).await.expect("the position is in the log")
    }

    /// Asks until they are appended, from the snapshot again if need be.
    pub(super) async fn append(&mut self, inputs: Vec<RoomInput>) -> RoomRecord {
        for _ in 0..ANSWERS_MAX {
            if self.ask(&inputs).await == Some(true) {
                return self.records.last().cloned().expect("one's own");
            }
        }
        panic!("not appended after {ANSWERS_MAX} answers");
    }

    /// Asks until there is nothing new.
    pub(super) async fn catch_up(&mut self) {
        for _ in 0..ANSWERS_MAX {
            let read = self.position;
            if self.ask(&[]).await.is_some() && self.position == read {
                return;
            }
        }
        panic!("still something new after {ANSWERS_MAX} answers");
    }
}
