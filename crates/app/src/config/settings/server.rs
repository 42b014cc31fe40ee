//! The process: its HTTP server and its logs.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZero;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// 0: one for each core.
    pub workers: usize,
    pub max_body_bytes: usize,
    /// 0: no limit.
    pub requests_per_second_per_user: u32,
    /// Beyond it, only health checks, metrics and operators are served.
    pub connections_max: usize,
    /// Streams and sockets. 0: no limit, as for the next ones.
    pub connections_per_user: u32,
    pub connections_per_address: u32,
    pub requests_in_flight_per_user: u32,
    pub head_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub write_timeout_ms: u64,
    /// The rate below which a body or a reader exceeds its time-out.
    pub bytes_per_s_min: u64,
    /// Bytes of bodies that have begun and not ended. 0: no limit, as for the next ones.
    pub body_bytes_in_all: u64,
    pub body_bytes_per_user: u64,
    pub body_bytes_per_address: u64,
}

impl HttpSettings {
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 { self.workers } else { cores() }
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Directives such as `info,boxoffice=debug`.
    pub log: String,
    pub log_format: LogFormat,
}
