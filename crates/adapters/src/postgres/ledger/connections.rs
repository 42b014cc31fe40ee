//! The ledger's connections: each serves one transaction at a time.
//!
//! As many as there are lanes, and some for strategies that write one command at a time. Whoever finds none free waits
//! for [`WAIT_MAX`], in order, and then fails as unavailable; nothing was sent. One that ended while it lay idle (the
//! server was started again) is replaced when its turn comes. One that is not given back is closed: a transaction that
//! was interrupted is the server's to roll back.

use super::all_statements;
use crate::postgres::connect::{Address, Role};
use crate::postgres::failure::Failure;
use crate::postgres::session::Session;
use boxoffice_ports::Traffic;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

const WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) struct Connections {
    address: Address,
    traffic: Arc<Traffic>,
    /// The last one used is the first to be used again.
    idle: Mutex<Vec<Session>>,
    turns: Semaphore,
}

impl Connections {
    pub(super) fn new(address: Address, connections: usize, traffic: Arc<Traffic>) -> Self {
        Self { address, traffic, idle: Mutex::default(), turns: Semaphore::new(connections.max(1)) }
    }

    pub(super) async fn get(&self) -> Result<Lease<'_>, Failure> {
        let turn = tokio::time::timeout(WAIT_MAX, self.turns.acquire()).await;
        let turn = turn.map_err(|_| Failure::Gone("no ledger connection was free in time"))?;
        let turn = turn.map_err(|_| Failure::Gone("the ledger has stopped"))?;
        while let Some(session) = self.idle().pop() {
            if !session.is_closed() && !self.address.is_retired(session.made()) {
                return Ok(Lease { session, connections: self, _turn: turn });
            }
        }
        let made = Instant::now();
        let client = self.address.connect(Role::Ledger).await?.drive();
        let session = Session::prepare(client, made, &all_statements(), self.traffic.clone()).await?;
        Ok(Lease { session, connections: self, _turn: turn })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session of one's own. Dropped without [`Lease::give_back`] it is closed.
pub(super) struct Lease<'a> {
    session: Session,
    connections: &'a Connections,
    _turn: SemaphorePermit<'a>,
}

impl Lease<'_> {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Ends the use of it after `failure`: a session that can serve no more is closed, any other rolled back and given
    /// back.
    pub(super) async fn end(self, failure: &Failure) {
        if failure.is_read_only() {
            self.connections.address.retire(self.session.made());
        }
        if !failure.ends_session() && self.session.rollback().await.is_ok() {
            self.give_back();
        }
    }

    /// To be called when no transaction is open on it.
    pub(super) fn give_back(self) {
        self.connections.idle().push(self.session);
    }
}
