//! Connections for everything but the ledger's transactions, which have their own: no read queues behind a write.
//!
//! At most `connections` are open. A connection that ended while idle (the server was restarted) is replaced at its next
//! use. A connection is closed if it is dropped within a transaction, or before a statement was answered: no later caller
//! waits behind that statement, and the server rolls back. A session that can serve no more is closed, too.
//!
//! *Bounds.* A caller abandons a read at its own deadline by dropping it. For callers without a deadline, [`WAIT_MAX`]
//! bounds the wait for a connection, connecting included, and [`STATEMENT_MAX`] each statement.

use super::connect::{Address, Connected, Role};
use super::failure::{Failure, PostgresError, cannot_connect, timed_out};
use boxoffice_ports::{Deadline, Overdue, Traffic};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{ConnectionError, QueryResult};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest wait for a statement: a season's seats take a second or two.
const STATEMENT_MAX: Duration = Duration::from_secs(10);
/// The same for imports and audits, whose statements the server itself ends earlier.
const LONG_STATEMENT_MAX: Duration = Duration::from_secs(65);

pub(super) struct Readers {
    pool: Pool<AsyncPgConnection>,
    address: Address,
    traffic: Arc<Traffic>,
}

impl Readers {
    pub(super) fn new(address: Address, connections: usize, traffic: Arc<Traffic>) -> Result<Self, Failure> {
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        let shared = address.clone();
        config.custom_setup = Box::new(move |_| {
            let address = address.clone();
            async move { establish(&address).await.map_err(|failure| ConnectionError::BadConnection(failure.to_string())) }.boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(String::new(), config);
        let pool = Pool::builder(manager).max_size(connections.max(1)).build();
        Ok(Self { pool: pool.map_err(cannot_connect)?, address: shared, traffic })
    }

    /// A connection for one caller, until it is dropped.
    pub(super) async fn get(&self) -> Result<Conn, Failure> {
        let got = Deadline::after(WAIT_MAX).bound(self.current()).await;
        let object = got.map_err(|_| Failure::Unavailable("timed out waiting for a free connection"))??;
        let made = Object::metrics(&object).created;
        Ok(Conn {
            object: Some(object),
            address: self.address.clone(),
            made,
            traffic: self.traffic.clone(),
            in_transaction: false,
            close: false,
            unanswered: false,
            statement_max: STATEMENT_MAX,
        })
    }

    /// A connection that is not retired. Retired ones found on the way are closed.
    async fn current(&self) -> Result<Object<AsyncPgConnection>, Failure> {
        loop {
            let object = self.pool.get().await.map_err(cannot_connect)?;
            if !self.address.is_retired(Object::metrics(&object).created) {
                return Ok(object);
            }
            drop(Object::take(object));
        }
    }
}

/// One connection for diesel.
pub(super) async fn establish(address: &Address) -> Result<AsyncPgConnection, Failure> {
    let connection = match address.connect(Role::Reader, Deadline::after(WAIT_MAX)).await? {
        Connected::Plain(client, driver) => AsyncPgConnection::try_from_client_and_connection(client, driver).await,
        Connected::Encrypted(client, driver) => AsyncPgConnection::try_from_client_and_connection(client, driver).await,
    };
    connection.map_err(cannot_connect)
}

/// A pooled connection.
pub(super) struct Conn {
    /// Taken out of the pool when it must not be used again.
    object: Option<Object<AsyncPgConnection>>,
    address: Address,
    made: Instant,
    traffic: Arc<Traffic>,
    in_transaction: bool,
    /// Its session can serve no more: it is closed when dropped.
    close: bool,
    /// A statement was sent and is not answered yet.
    unanswered: bool,
    statement_max: Duration,
}

/// Whether a transaction sees concurrent commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    ReadCommitted,
    /// One snapshot, no writes.
    ReadOnly,
}

impl Conn {
    /// # Panics
    /// Never: it is there until the connection is dropped.
    pub(super) fn diesel(&mut self) -> &mut AsyncPgConnection {
        match &mut self.object {
            Some(object) => object,
            None => unreachable!("a connection is taken out only when it is dropped"),
        }
    }

    /// For statements that may take long.
    #[must_use]
    pub(super) fn patient(self) -> Self {
        let mut conn = self;
        conn.statement_max = LONG_STATEMENT_MAX;
        conn
    }

    /// Call before sending a statement; returns the deadline of its answer. Until [`Conn::answered`], dropping the
    /// connection closes it.
    pub(super) fn asks(&mut self) -> Deadline {
        self.traffic.statements(1);
        self.unanswered = true;
        Deadline::after(self.statement_max)
    }

    /// Call with the statement's answer.
    pub(super) async fn answered<T>(&mut self, answer: Result<QueryResult<T>, Overdue>) -> Result<T, Failure> {
        let answer = answer.map_err(timed_out)?;
        self.unanswered = false;
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Begins a transaction. Until [`Conn::commit`] or [`Conn::rollback`] has succeeded, dropping the connection closes
    /// it.
    pub(super) async fn begin(&mut self, isolation: Isolation) -> Result<(), Failure> {
        self.in_transaction = true;
        self.simple(match isolation {
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::ReadOnly => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        })
        .await
    }

    /// Call only after every earlier statement has succeeded: PostgreSQL answers the COMMIT of a failed transaction
    /// without an error, and rolls back.
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        self.simple("COMMIT").await?;
        self.in_transaction = false;
        self.traffic.commit();
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Failure> {
        self.simple("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn simple(&mut self, sql: &str) -> Result<(), Failure> {
        let until = self.asks();
        let done = until.bound(self.diesel().batch_execute(sql)).await;
        self.answered(done).await
    }

    /// The failure behind a statement's error. diesel does not report that the server ended the session, so another query
    /// on the connection finds out.
    pub(super) async fn failure(&mut self, error: DieselError) -> Failure {
        let failure = match error {
            // Not an empty query, which succeeds even in a failed transaction that was left open.
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, _)
                if self.diesel().is_broken() || (!self.in_transaction && !self.is_well().await) =>
            {
                PostgresError::Lost(error.into())
            }
            error => PostgresError::Diesel(error),
        };
        let failure = failure.into();
        self.close_after(&failure);
        failure
    }

    /// After a `failure` that ends the session, dropping the connection closes it.
    pub(super) fn close_after(&mut self, failure: &Failure) {
        self.close |= failure.ends_session();
        if failure.is_read_only() {
            self.address.retire(self.made);
        }
    }

    async fn is_well(&mut self) -> bool {
        self.unanswered = true;
        let answer = Deadline::after(STATEMENT_MAX).bound(self.diesel().batch_execute("SELECT")).await;
        self.unanswered = answer.is_err();
        matches!(answer, Ok(Ok(())))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if (self.in_transaction || self.close || self.unanswered)
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
    }
}
