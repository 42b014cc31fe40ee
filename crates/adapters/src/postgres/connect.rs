//! Connecting: the address, TLS, and the settings of a connection.
//!
//! `sslmode=require` (or `verify-ca`, `verify-full`) in the address encrypts, and verifies the server's certificate and
//! name against the roots that this system trusts (`SSL_CERT_FILE` names others). Without it the connection is plain:
//! encryption without verification would not stop an impostor. The address may hold a password, so it is neither logged
//! nor part of an error.
//!
//! A session that cannot write (of a standby, or of a database made read-only) is rejected, and the next of several hosts
//! is tried. `target_session_attrs=any` in the address accepts it, for commands that only read. When a server stops
//! taking writes, all its sessions are [retired](Address::retire), even those that only read: the database may have moved
//! on without that server.

use super::failure::{Failure, PostgresError, cannot_connect};
use boxoffice_ports::Deadline;
use futures_util::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long one of several addresses may take to answer before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When a silent connection is probed, and after how long without an answer it is given up. A server that vanished is
/// noticed, even in the middle of a commit.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Ledger transactions.
    Ledger,
    /// Everything else.
    Reader,
}

impl Role {
    /// Settings of its sessions.
    ///
    /// Ledger statements are planned once, often on an empty database, and for all sizes of arrays. Only plans that go
    /// by index and loop over the array are allowed: a plan made early might read whole tables later.
    /// `lock_timeout` bounds how long a batch waits for a row that another transaction has locked (the time of many
    /// flushes, so that ordinary commits are waited for). `idle_in_transaction_session_timeout` bounds how long a hung
    /// instance keeps its rows locked.
    fn options(self) -> &'static str {
        match self {
            Self::Ledger => {
                "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off -c jit=off \
                 -c plan_cache_mode=force_generic_plan -c lock_timeout=100ms -c idle_in_transaction_session_timeout=5s \
                 -c synchronous_commit=on -c timezone=UTC"
            }
            Self::Reader => {
                "-c jit=off -c lock_timeout=5s -c statement_timeout=60s -c idle_in_transaction_session_timeout=30s \
                 -c synchronous_commit=on -c timezone=UTC"
            }
        }
    }

    fn application_name(self) -> &'static str {
        match self {
            Self::Ledger => "boxoffice ledger",
            Self::Reader => "boxoffice",
        }
    }
}

/// Where the server is, and how to connect to it.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// When a server last stopped taking writes. Shared by all pools.
    retired: Arc<Mutex<Option<Instant>>>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        // Certificates are always verified, so the stricter modes mean the same as `require` here.
        let url = url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        // The parser's own message may repeat a part of the address.
        let mut config: Config = url.parse().map_err(|_| cannot_connect("the address is not one of PostgreSQL"))?;
        config.connect_timeout(CONNECT_TIMEOUT).keepalives(true).keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(KEEPALIVE_RETRIES).tcp_user_timeout(SILENCE_MAX);
        if !url.contains("target_session_attrs") {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let tls = (config.get_ssl_mode() == SslMode::Require).then(trusting_system_roots).transpose()?;
        Ok(Self { config, tls, retired: Arc::default() })
    }

    /// Retires all sessions made up to now, because the one made at `made` takes no writes any more. Sessions made since
    /// the last retirement stay, however many older ones report the same.
    pub(super) fn retire(&self, made: Instant) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if retired.is_none_or(|before| before < made) {
            *retired = Some(Instant::now());
        }
    }

    /// Whether a session made at `made` must not be used again.
    pub(super) fn is_retired(&self, made: Instant) -> bool {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|retired| made <= retired)
    }

    /// A connection with its driver, which the caller runs, by `deadline`: a hung server may accept a connection and then
    /// never answer.
    pub(super) async fn connect(&self, role: Role, deadline: Deadline) -> Result<Connected, Failure> {
        deadline.bound(self.make(role)).await.unwrap_or_else(|overdue| Err(cannot_connect(overdue)))
    }

    async fn make(&self, role: Role) -> Result<Connected, Failure> {
        let mut config = self.config.clone();
        // The address's own options come last and win.
        let given = config.get_options().unwrap_or_default();
        let options = format!("{} {given}", role.options());
        config.options(options);
        if config.get_application_name().is_none() {
            config.application_name(role.application_name());
        }
        let refused = |error: tokio_postgres::Error| cannot_connect(PostgresError::Server(error));
        match &self.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
                Ok(Connected::Plain(client, connection))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(refused)?;
                Ok(Connected::Encrypted(client, connection))
            }
        }
    }
}

type Driver<T> = tokio_postgres::Connection<tokio_postgres::Socket, T>;
type Encrypted = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream;

pub(super) enum Connected {
    Plain(Client, Driver<tokio_postgres::tls::NoTlsStream>),
    Encrypted(Client, Driver<Encrypted>),
}

impl Connected {
    /// Drives the connection in a task that ends with its client.
    pub(super) fn drive(self) -> Client {
        let (client, cut) = self.drive_apart();
        cut.never();
        client
    }

    /// The same with a handle that cuts the connection: a dropped client waits for the answers it is still owed, for ever
    /// if the server hangs.
    pub(super) fn drive_apart(self) -> (Client, Cut) {
        let (client, driver) = match self {
            Self::Plain(client, driver) => (client, tokio::spawn(quietly(driver))),
            Self::Encrypted(client, driver) => (client, tokio::spawn(quietly(driver))),
        };
        (client, Cut(Some(driver.abort_handle())))
    }
}

/// Cuts a connection when it is dropped, even with answers outstanding.
pub(super) struct Cut(Option<AbortHandle>);

impl Cut {
    /// The connection ends with its client.
    fn never(mut self) {
        self.0 = None;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}

/// Drives a connection. The waiter for an answer gets the error that ends it; the server's notices are dropped.
async fn quietly<T>(mut driver: Driver<T>)
where
    T: tokio_postgres::tls::TlsStream + Unpin,
{
    while let Some(Ok(_)) = poll_fn(|context| driver.poll_message(context)).await {}
}

fn trusting_system_roots() -> Result<MakeRustlsConnect, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(cannot_connect("sslmode=require: this system has no trusted certificates (SSL_CERT_FILE names some)"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(cannot_connect)?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
