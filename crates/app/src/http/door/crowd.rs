//! How many connections there may be, and who gets one of the last.
//!
//! A process may open so many files. What stores, logs and brokers need of them is left to these, and [`SPARE`] are kept
//! back: a connection beyond `http.connections_max`, or beyond `http.connections_per_address`, gets one of them, by
//! which health, figures and operators are served and nothing else. When they are all taken, a new connection takes the
//! place of the oldest that has sent no request: so none of them can be kept by silence.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::Shared;
use crate::config::HttpSettings;
use crate::http::limits::Counts;

/// Connections kept back, of all workers together.
const SPARE: usize = 64;
/// The fewest of one worker.
const SPARE_PER_WORKER_MIN: usize = 4;
/// Files that the process needs for everything else: stores, brokers, logs, the workers' own.
const FILES_OF_OUR_OWN: usize = 192;

/// See the module's opening. One for all workers.
pub(crate) struct Crowd {
    max: usize,
    spare_per_worker: usize,
    open: AtomicUsize,
    addresses: Counts<IpAddr>,
}

/// Why a connection has one of the spare places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    /// There are too many.
    Full,
    /// There are too many of its address.
    Address,
}

impl Crowd {
    /// As many as are configured, or as the system allows.
    pub(crate) fn new(settings: &HttpSettings) -> Arc<Self> {
        Self::within(settings, files())
    }

    fn within(settings: &HttpSettings, files: Option<u64>) -> Arc<Self> {
        let spare_per_worker = (SPARE / settings.worker_count()).max(SPARE_PER_WORKER_MIN);
        let kept = FILES_OF_OUR_OWN + spare_per_worker * settings.worker_count();
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

    /// So many there may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Place {
        let is_full = self.open.fetch_add(1, Ordering::Relaxed) >= self.max;
        let counted = address.filter(|address| self.addresses.enter(*address));
        let spare = match () {
            () if address.is_some() && counted.is_none() => Some(Spare::Address),
            () => is_full.then_some(Spare::Full),
        };
        Place { crowd: self.clone(), address, is_counted: Cell::new(counted.is_some()), spare: Cell::new(spare) }
    }
}

/// One connection's, until it is dropped.
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
    /// Whether it counts as its address's.
    is_counted: Cell<bool>,
    spare: Cell<Option<Spare>>,
}

impl Place {
    pub(super) fn is_spare(&self) -> bool {
        self.spare.get().is_some()
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Why it may be served little. It is like any other once there is room.
    pub(crate) fn spare(&self) -> Option<Spare> {
        let is_over = match self.spare.get()? {
            Spare::Full => self.crowd.open() <= self.crowd.max,
            Spare::Address => {
                let counts = self.address.is_some_and(|address| self.crowd.addresses.enter(address));
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

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address.filter(|_| self.is_counted.get()) {
            self.crowd.addresses.leave(address);
        }
    }
}

/// The spare places of one worker.
#[derive(Default)]
pub(super) struct Spares(RefCell<VecDeque<Weak<Shared>>>);

impl Spares {
    /// False: there is no room, nor can be made.
    pub(super) fn admit(&self, crowd: &Crowd, connection: &Rc<Shared>) -> bool {
        let mut taken = self.0.borrow_mut();
        taken.retain(|other| other.upgrade().is_some_and(|other| other.is_spare()));
        if taken.len() >= crowd.spare_per_worker {
            let silent = taken.iter().position(|other| other.upgrade().is_some_and(|other| other.evict()));
            match silent {
                Some(silent) => _ = taken.remove(silent),
                None => return false,
            }
        }
        taken.push_back(Rc::downgrade(connection));
        true
    }
}

/// How many files the process may open, after that was raised as far as it may be.
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

    fn crowd(files: Option<u64>, change: impl FnOnce(&mut HttpSettings)) -> Arc<Crowd> {
        let mut settings = Settings::defaults().unwrap().http;
        settings.workers = 2;
        change(&mut settings);
        Crowd::within(&settings, files)
    }

    #[test]
    fn files_are_kept_for_health_and_for_ourselves() {
        assert_eq!(crowd(Some(1_024), |_| {}).max(), 1_024 - 192 - 64);
        assert_eq!(crowd(Some(1_024), |http| http.connections_max = 100).max(), 100);
        assert_eq!(crowd(None, |http| http.connections_max = 7).max(), 7);
        assert_eq!(crowd(Some(10), |_| {}).max(), 1);
    }

    #[tokio::test]
    async fn a_silent_connection_makes_room_for_a_new_one() {
        let crowd = crowd(None, |http| http.connections_max = 1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut peers, mut connections, spares) = (Vec::new(), Vec::new(), Spares::default());
        for _ in 0..=crowd.spare_per_worker + 1 {
            peers.push(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let shared = Shared::new(listener.accept().await.unwrap().0, crowd.enter(None));
            assert!(!shared.is_spare() || spares.admit(&crowd, &shared));
            connections.push(shared);
        }
        // The first has a place like any other, the second has the oldest of the spare ones.
        let closed: Vec<_> = (0..connections.len()).filter(|at| !connections[*at].is_open()).collect();
        assert_eq!((closed, crowd.open()), (vec![1], connections.len() - 1));
    }

    #[test]
    fn a_place_is_spare_until_there_is_room() {
        let crowd = crowd(None, |http| (http.connections_max, http.connections_per_address) = (3, 2));
        let address = |of| Some(IpAddr::from(Ipv4Addr::new(127, 0, 0, of)));
        let mut open: Vec<_> = (0..2).map(|_| crowd.enter(address(1))).collect();
        let third = crowd.enter(address(1));
        assert_eq!((open[1].spare(), third.spare()), (None, Some(Spare::Address)));
        let fourth = crowd.enter(address(2));
        assert_eq!(fourth.spare(), Some(Spare::Full));
        open.pop();
        assert_eq!((third.spare(), fourth.spare()), (None, None));
        drop((open, third, fourth));
        assert_eq!(crowd.open(), 0);
        let again: Vec<_> = (0..2).map(|_| crowd.enter(address(1))).collect();
        assert!(again.iter().all(|place| place.spare().is_none()), "given back");
    }
}
