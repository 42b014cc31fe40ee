//! A fresh database, copied from a migrated one, and access to it from outside the store.

use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::postgres::{self, PostgresOptions, PostgresStore};
use boxoffice_domain::{Batch, ConcertId, DateId, Request};
use boxoffice_ports::contract::build::{fresh, policy};
use boxoffice_ports::{Clock, Committed, Deadline, Guard, Ledger, LedgerError, Traffic};
use boxoffice_services::Postgres;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// The longest wait of a test.
const WAIT_MAX: Duration = Duration::from_secs(30);
const TEMPLATE: &str = "migrated";

/// A migrated database, and the clock of the stores on it.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) clock: Arc<SystemClock>,
}

impl Place {
    /// On the cluster that all tests share.
    pub(crate) fn new() -> Self {
        Self::on(Postgres::shared())
    }

    pub(crate) fn on(cluster: &Postgres) -> Self {
        let migrate = |url: &str| assert!(!postgres::migrate(url).expect("migrated").is_empty());
        cluster.template(TEMPLATE, migrate).expect("a template");
        Self { url: cluster.database_like(TEMPLATE).expect("a database"), clock: Arc::new(SystemClock::default()) }
    }

    /// The ledger waits long enough for a row that a test can see it wait.
    pub(crate) fn options(&self) -> PostgresOptions {
        let more = if self.url.contains('?') { '&' } else { '?' };
        self.options_at(&format!("{}{more}options=-c%20lock_timeout%3D2s", self.url))
    }

    pub(crate) fn options_at(&self, url: &str) -> PostgresOptions {
        PostgresOptions { url: url.to_owned(), connections: 8, lanes: 2, traffic: Arc::new(Traffic::default()) }
    }

    pub(crate) async fn open(&self) -> Arc<PostgresStore> {
        self.open_with(self.clock.clone()).await
    }

    pub(crate) async fn open_with(&self, clock: Arc<dyn Clock>) -> Arc<PostgresStore> {
        PostgresStore::open(self.options(), clock).await.expect("a store")
    }

    /// Another program's connection.
    pub(crate) async fn outside(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.outside().await.batch_execute(sql).await.expect(sql);
    }

    /// The first column of each row, as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.outside().await.query(sql, &[]).await.expect(sql);
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }

    /// Waits until so many sessions of this database wait for a lock.
    pub(crate) async fn until_blocked(&self, count: usize) {
        let waiting = format!(
            "SELECT 'blocked' FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE NOT l.granted AND a.datname = current_database() HAVING count(*) >= {count}"
        );
        self.until("sessions wait for a lock", &waiting).await;
    }

    /// Waits until `sql` has a row.
    pub(crate) async fn until(&self, what: &str, sql: &str) {
        let outside = self.outside().await;
        let found = async {
            while outside.query(sql, &[]).await.expect(sql).is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, found).await.unwrap_or_else(|_| panic!("timed out waiting until {what}"));
    }

    /// A date of so many seats at 100 each, open for booking.
    pub(crate) async fn date(&self, seats: u32) -> DateId {
        let (concert, date): (ConcertId, DateId) = (fresh(), fresh());
        self.run(&format!(
            "INSERT INTO concerts (id, key, name, venue, time_zone, mode, max_active)
             VALUES ('{concert}', '{concert}', 'Moonlight Tour', 'Olympic Hall', 'UTC', 'running', 100);
             INSERT INTO dates (id, concert_id, key, starts_at, booking_opens_at, booking_closes_at, refund_closes_at,
                 seats_total, price_min, price_max, seats_version)
             VALUES ('{date}', '{concert}', 'day-1', now() + interval '30 days', now() - interval '1 hour', now() + interval '29 days',
                 now() + interval '28 days', {seats}, 100, 100, 1);
             INSERT INTO seats (date_id, number, grade, price, state, version)
             SELECT '{date}', number, 'R', 100, 'available', 1 FROM generate_series(1, {seats}) number;"
        ))
        .await;
        date
    }
}

pub(crate) async fn transact(store: &PostgresStore, requests: Vec<Request>, guard: Guard) -> Result<Committed, LedgerError> {
    store.transact(Batch::new(requests, Arc::new(policy())), guard, Deadline::after(WAIT_MAX)).await
}
