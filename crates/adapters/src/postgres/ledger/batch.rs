//! One batch on one of the ledger's sessions, from its load to its commit.

use super::connections::Connections;
use super::known::KnownAccounts;
use super::{held, load, write};
use crate::postgres::connect::Address;
use crate::postgres::failure::{Failure, PostgresError};
use crate::postgres::session::{SelectReadOnly, Session};
use boxoffice_domain::{Batch, Key, Request, Roots, decide_batch};
use boxoffice_ports::{Clock, Committed, Deadline, Guard, LedgerError, Traffic};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a read outside a transaction may take; its caller may give up earlier.
const READ_MAX: Duration = Duration::from_secs(5);

/// The ledger's connections, known accounts and clock.
pub(crate) struct PostgresLedger {
    connections: Connections,
    known: KnownAccounts,
    clock: Arc<dyn Clock>,
}

impl PostgresLedger {
    pub(crate) fn new(address: Address, connections: usize, clock: Arc<dyn Clock>, traffic: Arc<Traffic>) -> Self {
        Self { connections: Connections::new(address, connections, traffic), known: KnownAccounts::default(), clock }
    }

    pub(super) async fn transact(&self, batch: &Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        let lease = self.connections.get(deadline).await?;
        match self.attempt(lease.session(), batch, guard).await {
            Ok(committed) => {
                lease.give_back();
                Ok(committed)
            }
            Err(failure) => {
                lease.end(&failure).await;
                Err(match guard {
                    Guard::RowLock => failure.into(),
                    Guard::Version => failure.under_versions(),
                })
            }
        }
    }

    /// Fails unless a transaction could write now.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let lease = self.connections.get(Deadline::after(READ_MAX)).await?;
        let session = lease.session();
        match session.round_trip(session.rows::<SelectReadOnly, bool>(())).await {
            Ok(read_only) if read_only == [false] => {
                lease.give_back();
                Ok(())
            }
            outcome => {
                let failure = outcome.err().unwrap_or(PostgresError::ReadOnly.into());
                lease.end(&failure).await;
                Err(failure)
            }
        }
    }

    pub(super) async fn held(&self, requests: &[Request]) -> Result<BTreeSet<Key>, Failure> {
        let lease = self.connections.get(Deadline::after(READ_MAX)).await?;
        match held::roots(lease.session(), &Roots::of(requests)).await {
            Ok(held) => {
                lease.give_back();
                Ok(held)
            }
            Err(failure) => {
                lease.end(&failure).await;
                Err(failure)
            }
        }
    }

    async fn attempt(&self, session: &Session, batch: &Batch, guard: Guard) -> Result<Committed, Failure> {
        let roots = Roots::of(&batch.requests);
        let mut loaded = load::working_set(session, &roots, guard, &self.known, self.clock.offset()).await?;
        let replies = decide_batch(&mut loaded.set, batch);
        if loaded.set.is_unchanged() {
            session.rollback().await?;
            return Ok(Committed { replies, seats: Vec::new() });
        }
        let seats = loaded.set.seat_changes();
        write::working_set(session, loaded).await?;
        session.commit().await?;
        self.known.remember(&roots.accounts);
        Ok(Committed { replies, seats })
    }
}
