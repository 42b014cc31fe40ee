//! Everything in this process: a store, the logs of waiting rooms, and a lock, for tests and for a first try.
//!
//! Nothing is durable: an answered command lasts as long as the process.
//!
//! *Locking.* One mutex guards all rows. It is never held across an await, and calls are short, so they do not block the
//! runtime's threads. A panic with the mutex held (a defect) poisons the store: every later call fails, since it may
//! hold half a change.
//!
//! One file for each port: [`ledger`], [`queries`], [`catalog`], [`upkeep`], [`outbox`], [`audit`], [`secrets`],
//! [`room_mirror`], [`mod@room_log`], [`mod@lock`]. [`tables`]: the rows and their indexes.

mod audit;
mod catalog;
mod ledger;
mod lock;
mod outbox;
mod queries;
mod room_log;
mod room_mirror;
mod secrets;
mod tables;
mod upkeep;

use std::sync::{Arc, Mutex, MutexGuard};

use boxoffice_domain::Timestamp;
use boxoffice_ports::{Clock, RoomLog, StoreError, Stores};

pub use lock::MemoryLock;

use crate::stores::stores;
use room_log::MemoryRoomLog;
use tables::Tables;

/// One set of rows for all the store's ports.
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
        stores(self)
    }

    /// The logs of the waiting rooms that live with this store.
    pub fn room_log(&self) -> Arc<dyn RoomLog> {
        self.room_logs.clone()
    }

    fn tables(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        self.tables.lock().map_err(|_| StoreError::Broken("an earlier call panicked half way".into()))
    }

    /// The rows, and the instant at which the call sees them.
    fn tables_now(&self) -> Result<(MutexGuard<'_, Tables>, Timestamp), StoreError> {
        let tables = self.tables()?;
        Ok((tables, self.clock.now()))
    }
}
