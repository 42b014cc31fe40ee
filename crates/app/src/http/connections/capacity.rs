//! The number of connections, and the spare ones beyond it.
//!
//! A process may open a limited number of files. The files that stores, logs and brokers need are set apart, and
//! [`SPARE`] connections are reserved: a connection beyond `http.connections_max` or `http.connections_per_address` is a
//! spare one, which serves health, metrics and operators only. [`super::spares`] evicts idle ones.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::HttpSettings;
use crate::http::limits::Counts;

/// Reserved connections of all workers together.
const SPARE: usize = 64;
/// The fewest reserved connections of one worker.
const SPARE_PER_WORKER_MIN: usize = 4;
/// Files that the process needs for everything else: stores, brokers, logs, workers.
const FILES_RESERVED: usize = 192;

/// See the module's opening. One for all workers.
pub(crate) struct Capacity {
    max: usize,
    pub(super) spare_per_worker: usize,
    open: AtomicUsize,
    addresses: Counts<IpAddr>,
}

/// Why a connection is a spare one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpareReason {
    /// Too many connections are open.
    Full,
    /// Too many connections of its address are open.
    Address,
}

impl Capacity {
    /// The configured number, or fewer if the system allows fewer.
    pub(crate) fn new(settings: &HttpSettings) -> Arc<Self> {
        Self::within(settings, files())
    }

    pub(super) fn within(settings: &HttpSettings, files: Option<u64>) -> Arc<Self> {
        let spare_per_worker = (SPARE / settings.worker_count()).max(SPARE_PER_WORKER_MIN);
        let kept = FILES_RESERVED + spare_per_worker * settings.worker_count();
        let allowed = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        let max = settings.connections_max.min(allowed.saturating_sub(kept).max(1));
        if max < settings.connections_max {
            tracing::warn!(
                files = allowed,
                http.connections_max = settings.connections_max,
                connections = max,
                "the limit of open files is too low for http.connections_max, which would take {}: raise it (ulimit -n, LimitNOFILE)",
                settings.connections_max.saturating_add(kept)
            );
        }
        Arc::new(Self { max, spare_per_worker, open: AtomicUsize::new(0), addresses: Counts::new(settings.connections_per_address) })
    }

    /// The most connections that may be open, spare ones aside.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> ConnectionPermit {
        let is_full = self.open.fetch_add(1, Ordering::Relaxed) >= self.max;
        let counted = address.filter(|address| self.addresses.enter(*address));
        let spare = match () {
            () if address.is_some() && counted.is_none() => Some(SpareReason::Address),
            () => is_full.then_some(SpareReason::Full),
        };
        ConnectionPermit { capacity: self.clone(), address, is_counted: Cell::new(counted.is_some()), spare: Cell::new(spare) }
    }
}

/// Counts one connection until it is dropped.
pub(crate) struct ConnectionPermit {
    capacity: Arc<Capacity>,
    address: Option<IpAddr>,
    /// Whether it counts for its address.
    is_counted: Cell<bool>,
    spare: Cell<Option<SpareReason>>,
}

impl ConnectionPermit {
    pub(super) fn is_spare(&self) -> bool {
        self.spare.get().is_some()
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Why it is a spare connection; `None` once there is room for it.
    pub(crate) fn spare(&self) -> Option<SpareReason> {
        let is_over = match self.spare.get()? {
            SpareReason::Full => self.capacity.open() <= self.capacity.max,
            SpareReason::Address => {
                let counts = self.address.is_some_and(|address| self.capacity.addresses.enter(address));
                self.is_counted.set(counts);
                counts
            }
        };
        if is_over {
            self.spare.set(None);
        }
        self.spare.get()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.capacity.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address.filter(|_| self.is_counted.get()) {
            self.capacity.addresses.leave(address);
        }
    }
}

/// How many files the process may open, after raising the limit to its maximum.
fn files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        return limit.maximum;
    }
    limit.current
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use std::net::Ipv4Addr;

    fn capacity(files: Option<u64>, change: impl FnOnce(&mut HttpSettings)) -> Arc<Capacity> {
        let mut settings = Settings::defaults().unwrap().http;
        settings.workers = 2;
        change(&mut settings);
        Capacity::within(&settings, files)
    }

    #[test]
    fn files_are_reserved_for_health_and_for_the_process() {
        assert_eq!(capacity(Some(1_024), |_| {}).max(), 1_024 - 192 - 64);
        assert_eq!(capacity(Some(1_024), |http| http.connections_max = 100).max(), 100);
        assert_eq!(capacity(None, |http| http.connections_max = 7).max(), 7);
        assert_eq!(capacity(Some(10), |_| {}).max(), 1);
    }

    #[test]
    fn a_connection_is_spare_until_there_is_room() {
        let capacity = capacity(None, |http| (http.connections_max, http.connections_per_address) = (3, 2));
        let address = |of| Some(IpAddr::from(Ipv4Addr::new(127, 0, 0, of)));
        let mut open: Vec<_> = (0..2).map(|_| capacity.enter(address(1))).collect();
        let third = capacity.enter(address(1));
        assert_eq!((open[1].spare(), third.spare()), (None, Some(SpareReason::Address)));
        let fourth = capacity.enter(address(2));
        assert_eq!(fourth.spare(), Some(SpareReason::Full));
        open.pop();
        assert_eq!((third.spare(), fourth.spare()), (None, None));
        drop((open, third, fourth));
        assert_eq!(capacity.open(), 0);
        let again: Vec<_> = (0..2).map(|_| capacity.enter(address(1))).collect();
        assert!(again.iter().all(|permit| permit.spare().is_none()), "all are released");
    }
}
