//! PostgreSQL: one database, any number of instances of this program.
//!
//! Invariant: an answered command is on the server's disk (`synchronous_commit` is on), and a read that begins after an
//! answer sees it. Ledger transactions and everything else use connections of their own, so that reads never queue
//! behind writes. Time is the server's.
//!
//! # Layout
//!
//! * [`mod@connect`]: the address, TLS, and a connection's settings. [`migrate`](mod@migrate): the schema.
//! * [`pool`]: connections for everything but the ledger. [`session`]: a ledger's connection. [`bridge`]: diesel's values
//!   and rows on tokio-postgres, and why both are there.
//! * [`sql`], [`rows`]: statements that stay prepared, and the SQL types of records.
//! * [`failure`]: errors, and how they are classed.
//! * One file for each port: [`ledger`], [`queries`], [`catalog`], [`upkeep`], [`outbox`], [`audit`], [`secrets`],
//!   [`room_mirror`], [`mod@room_log`].

mod audit;
mod bridge;
mod catalog;
mod connect;
mod failure;
mod ledger;
mod migrate;
mod outbox;
mod pool;
mod queries;
mod room_log;
mod room_mirror;
mod rows;
mod scratch;
mod secrets;
mod session;
mod sql;
mod upkeep;

pub use migrate::{migrate, revert};
pub use scratch::{create_database, drop_database, server_version};

use crate::stores::stores;
use boxoffice_ports::{Clock, StoreError, Stores, Traffic};
use connect::Address;
use failure::Failure;
use ledger::PostgresLedger;
use migrate::check_schema;
use pool::{Conn, Readers};
use std::sync::Arc;

/// Connections for commands that wait by themselves for a row another transaction has locked. Made when needed.
const WAITING: usize = 2;

/// Where the database is, and how many connections one instance opens.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=require`
    pub url: String,
    /// Besides one for each lane: half for reading, half for strategies that write one command at a time.
    pub connections: usize,
    /// How many batches may be in flight.
    pub lanes: usize,
    pub traffic: Arc<Traffic>,
}

/// One open database.
pub struct PostgresStore {
    readers: Readers,
    ledger: Arc<PostgresLedger>,
    clock: Arc<dyn Clock>,
}

impl PostgresStore {
    /// Connects to a database that [`migrate`](fn@migrate) has brought up to date; fails as unavailable, with the reason,
    /// if it cannot be reached or is not current.
    pub async fn open(options: PostgresOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let address = Address::parse(&options.url)?;
        let direct = (options.connections / 2).max(1);
        let readers = Readers::new(address.clone(), options.connections.saturating_sub(direct), options.traffic.clone())?;
        check_schema(&mut readers.get().await?).await?;
        let ledger = PostgresLedger::new(address, options.lanes + direct + WAITING, clock.clone(), options.traffic);
        Ok(Arc::new(Self { readers, ledger: Arc::new(ledger), clock }))
    }

    /// The database behind each port.
    pub fn stores(self: &Arc<Self>) -> Stores {
        stores(self)
    }

    /// The offset added to the server's clock, in microseconds.
    fn offset_us(&self) -> i64 {
        self.clock.offset().num_microseconds().unwrap_or(i64::MAX)
    }

    /// A connection for reading, and for writes of all but the ledger.
    async fn conn(&self) -> Result<Conn, Failure> {
        self.readers.get().await
    }
}
