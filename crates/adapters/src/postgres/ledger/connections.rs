//! The ledger's connections: each serves one transaction at a time.
//!
//! There is one for each lane, and some for strategies that write one command at a time. If none is free, callers wait in
//! order, and fail as unavailable at their deadline; nothing was sent. The same deadline bounds connecting, start-up, TLS
//! and preparing included. A connection that ended while idle (the server was restarted) is replaced at its next use. One
//! that is not given back is cut: the server rolls an interrupted transaction back.

use super::statements::all_statements;
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
    /// The one used last is used first.
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Connections {
    pub(super) fn new(address: Address, connections: usize, traffic: Arc<Traffic>) -> Self {
        Self { address, traffic, idle: Mutex::default(), permits: Semaphore::new(connections.max(1)) }
    }

    /// A session for a transaction that begins to commit by `deadline`.
    pub(super) async fn get(&self, deadline: Deadline) -> Result<Lease<'_>, Failure> {
        let permit = deadline.bound(self.permits.acquire()).await;
        let permit = permit.map_err(|_| Failure::Unavailable("timed out waiting for a free ledger connection"))?;
        let permit = permit.map_err(|_| Failure::Unavailable("the ledger has stopped"))?;
        while let Some(mut session) = self.idle().pop() {
            if !session.is_closed() && !self.address.is_retired(session.made()) {
                session.lend(deadline);
                return Ok(Lease { session, connections: self, _permit: permit });
            }
        }
        let made = Instant::now();
        let (client, cut) = self.address.connect(Role::Ledger, deadline).await?.drive_apart();
        let session = Session::prepare(client, cut, made, &all_statements(), self.traffic.clone(), deadline).await?;
        Ok(Lease { session, connections: self, _permit: permit })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session for one caller. Dropped without [`Lease::give_back`], it is closed.
pub(super) struct Lease<'a> {
    session: Session,
    connections: &'a Connections,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Ends the lease after `failure`: a session that can serve no more is closed, any other is rolled back and given
    /// back.
    pub(super) async fn end(self, failure: &Failure) {
        if failure.is_read_only() {
            self.connections.address.retire(self.session.made());
        }
        if !failure.ends_session() && self.session.rollback().await.is_ok() {
            self.give_back();
        }
    }

    /// Call only when no transaction is open on it.
    pub(super) fn give_back(self) {
        self.connections.idle().push(self.session);
    }
}
