//! Why the lab cannot measure.

use boxoffice_app::config::ConfigError;
use boxoffice_app::wiring::StartError;
use boxoffice_ports::{CatalogError, LedgerError, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{store} serves one instance at a time; name a PostgreSQL (store.postgres_url) for more")]
    OneInstance { store: &'static str },
    #[error("{what} must be from 1 to {max}")]
    Range { what: &'static str, max: u32 },
    #[error("no strategy can be run here: {0}")]
    Nothing(String),
    #[error("a temporary folder cannot be made: {0}")]
    Folder(#[source] std::io::Error),
    #[error("threads for the callers cannot be started: {0}")]
    Threads(#[source] std::io::Error),
    #[error("the server does not answer: {0}")]
    Connection(#[source] std::io::Error),
    #[error("a token cannot be signed: {0}")]
    Token(#[source] jsonwebtoken::errors::Error),
    #[error("the data of a run cannot be seeded: {0}")]
    Seeding(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("wallets cannot be funded: {0}")]
    Ledger(#[from] LedgerError),
    #[error("interrupted; what was set up is taken down")]
    Interrupted,
}
