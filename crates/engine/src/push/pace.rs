//! How often listeners get shared frames.

use std::time::Duration;

/// So many places of each lane get a shared frame every second.
pub const NEAR: u64 = 10_000;

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub near: Duration,
    pub far: Duration,
    /// Over how long the start of a sale is announced to the entries that waited for it.
    pub spread: Duration,
    /// So many places of each lane are near.
    pub nearest: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { near: Duration::from_secs(1), far: Duration::from_secs(5), spread: Duration::from_millis(1_500), nearest: NEAR }
    }
}
