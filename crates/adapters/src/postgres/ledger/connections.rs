//! The ledger's connections: each serves one transaction at a time.
//!
//! As many as there are lanes, and some for strategies that write one command at a time. Whoever finds none free waits in
//! order, and at its deadline fails as unavailable; nothing was sent. Connecting has the same deadline, with start-up, TLS
//! and preparing. One that ended while it lay idle (the server was started again) is replaced when its turn comes. One
//! that is not given back is cut: a transaction that was interrupted is the server's to roll back.

use super::all_statements;
use crate::postgres::connect::{Address, Role};
use crate::postgres::failure::Failure;
use crate::postgres::session::Session;
use boxoffice_ports::{Deadline, Traffic};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

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

    /// One for a transaction that begins to commit by `deadline`.
    pub(super) async fn get(&self, deadline: Deadline) -> Result<Lease<'_>, Failure> {
        let turn = deadline.bound(self.turns.acquire()).await;
        let turn = turn.map_err(|_| Failure::Gone("no ledger connection was free in time"))?;
        let turn = turn.map_err(|_| Failure::Gone("the ledger has stopped"))?;
        while let Some(mut session) = self.idle().pop() {
            if !session.is_closed() && !self.address.is_retired(session.made()) {
                session.lend(deadline);
                return Ok(Lease { session, connections: self, _turn: turn });
            }
        }
        let made = Instant::now();
        let (client, cut) = self.address.connect(Role::Ledger, deadline).await?.drive_apart();
        let session = Session::prepare(client, cut, made, &all_statements(), self.traffic.clone(), deadline).await?;
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
