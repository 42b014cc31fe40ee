//! A log that fails on request, and counts its exchanges.

use super::*;
use async_trait::async_trait;
use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::RoomInput;
use boxoffice_ports::{Exchanged, LogPosition, RoomLogError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How every exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Before the log receives anything.
    Before,
    /// After the append: the answer is lost.
    After,
}

pub(super) struct Faulty {
    log: Arc<dyn RoomLog>,
    /// Whether it reports that it may lose records, as Redis does.
    is_volatile: bool,
    fault: Mutex<Option<Fault>>,
    exchanges: AtomicU64,
    appends: AtomicU64,
    compacts: AtomicU64,
}

impl Faulty {
    pub(super) fn new(log: Arc<dyn RoomLog>, is_volatile: bool) -> Arc<Self> {
        let (fault, [exchanges, appends, compacts]) = Default::default();
        Arc::new(Self { log, is_volatile, fault, exchanges, appends, compacts })
    }

    pub(super) fn fail(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(super) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::SeqCst)
    }

    /// Exchanges that had something to append.
    pub(super) fn appends(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    /// Snapshots that replaced records.
    pub(super) fn compacts(&self) -> u64 {
        self.compacts.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl RoomLog for Faulty {
    async fn exchange(&self, concert: ConcertId, since: LogPosition, inputs: Vec<RoomInput>) -> Result<Exchanged, RoomLogError> {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        self.appends.fetch_add(u64::from(!inputs.is_empty()), Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        let away = || RoomLogError::Unavailable("the log is away".into());
        if fault == Some(Fault::Before) {
            return Err(away());
        }
        let exchanged = self.log.exchange(concert, since, inputs).await?;
        if fault.is_some() { Err(away()) } else { Ok(exchanged) }
    }

    async fn begin(&self, concert: ConcertId, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        self.log.begin(concert, snapshot).await
    }

    async fn compact(&self, concert: ConcertId, upto: LogPosition, snapshot: Vec<u8>) -> Result<bool, RoomLogError> {
        let compacted = self.log.compact(concert, upto, snapshot).await?;
        self.compacts.fetch_add(u64::from(compacted), Ordering::SeqCst);
        Ok(compacted)
    }

    fn is_volatile(&self) -> bool {
        self.is_volatile
    }
}
