//! Why a server, or a command beside one, cannot start.

use crate::http;
use crate::season::SeasonError;
use boxoffice_ports::Source;
use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] crate::config::ConfigError),
    #[error("{key} = \"{name}\" needs a build with the feature `{feature}`")]
    Lacking { key: &'static str, name: &'static str, feature: &'static str },
    /// For commands that run beside a server or after it.
    #[error("store.backend = \"memory\" keeps nothing outside the server's own process")]
    NothingKept,
    #[error("store.sqlite_path: {0} does not exist")]
    NoStore(String),
    #[error("{key} = \"{place}\": {source}")]
    Store { key: &'static str, place: String, source: Source },
    #[error("{key}: {source}")]
    Redis { key: &'static str, source: Source },
    #[error("{key}: {source}")]
    Broker { key: &'static str, source: Source },
    #[error("strategy: the command log cannot be read: {0}")]
    Log(#[source] Source),
    #[error("store.postgres_url: a scratch database cannot be created there: {0}")]
    Scratch(#[source] Source),
    #[error("the waiting room cannot be opened: {0}")]
    Room(#[source] Source),
    #[error(transparent)]
    Season(#[from] SeasonError),
    #[error("the background work cannot start: {0}")]
    Background(#[source] Source),
    #[error(transparent)]
    Http(#[from] http::SetupError),
    #[error("http.listen: {listen} cannot be bound: {source}")]
    Bind { listen: SocketAddr, source: io::Error },
}
