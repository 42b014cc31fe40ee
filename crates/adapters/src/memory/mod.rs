//! Everything in this process: a store, a waiting room and a lock for tests and for trying things out.
//!
//! Nothing is durable: what a client was told lasts as long as the process.
//!
//! *Locking.* One mutex stands over all rows. It is never held across an await, and calls are short, so the runtime's
//! threads are not kept. A panic with the mutex held (a defect) poisons the store: every later call fails, since
//! half a change may be in it.

mod audit;
mod catalog;
mod chores;
mod ledger;
mod lock;
mod mirror;
mod queries;
mod room_log;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard};

use boxoffice_domain::Timestamp;
use boxoffice_ports::{Clock, StoreError, Stores};

pub use lock::MemoryLock;

use room_log::MemoryRoomLog;
use tables::Tables;

/// Ledger, queries, catalogue, upkeep, outbox, audit and secrets over the same rows.
pub struct MemoryStore {
    tables: Mutex<Tables>,
    room_logs: Arc<MemoryRoomLog>,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// An empty store; its time is the clock's.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { tables: Mutex::default(), room_logs: Arc::new(MemoryRoomLog::new(clock.clone())), clock })
    }

    /// The same store behind each port.
    pub fn stores(self: &Arc<Self>) -> Stores {
        Stores {
            ledger: self.clone(),
            queries: self.clone(),
            catalog: self.clone(),
            upkeep: self.clone(),
            outbox: self.clone(),
            audit: self.clone(),
            secrets: self.clone(),
            mirror: self.clone(),
        }
    }

    fn tables(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        self.tables.lock().map_err(|_| StoreError::Broken("an earlier call failed half way".into()))
    }

    /// The rows, and the instant at which they are looked at.
    fn tables_now(&self) -> Result<(MutexGuard<'_, Tables>, Timestamp), StoreError> {
        let tables = self.tables()?;
        Ok((tables, self.clock.now()))
    }
}
