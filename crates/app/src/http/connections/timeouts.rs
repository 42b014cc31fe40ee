//! The time-outs of a connection.

use std::time::Duration;

use crate::config::HttpSettings;

/// How long parts of a request and of its answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) write: Duration,
    bytes_per_s_min: u64,
}

impl Timeouts {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        Self {
            head: Duration::from_millis(settings.head_timeout_ms),
            body: Duration::from_millis(settings.body_timeout_ms),
            write: Duration::from_millis(settings.write_timeout_ms),
            bytes_per_s_min: settings.bytes_per_s_min,
        }
    }

    /// What so many bytes may take at `http.bytes_per_s_min`.
    pub(super) fn of(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1_000) / self.bytes_per_s_min.max(1))
    }
}
