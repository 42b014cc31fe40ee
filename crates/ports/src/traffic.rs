//! Counts of what adapters send.

use std::sync::atomic::{AtomicU64, Ordering};

/// What adapters send over the wire, counted so that strategies can be compared. Read for display alone.
#[derive(Debug, Default)]
pub struct Traffic {
    statements: AtomicU64,
    commits: AtomicU64,
    redis_commands: AtomicU64,
    broker_messages: AtomicU64,
}

/// The counts at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Statements sent to the ledger's database, BEGIN and COMMIT included.
    pub statements: u64,
    /// Transactions that wrote and were committed.
    pub commits: u64,
    /// Commands sent to Redis, scripts and publications counted as one each.
    pub redis_commands: u64,
    /// Messages published to a broker, and read from it.
    pub broker_messages: u64,
}

impl Traffic {
    pub fn statements(&self, count: u64) {
        self.statements.fetch_add(count, Ordering::Relaxed);
    }

    pub fn commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn redis_commands(&self, count: u64) {
        self.redis_commands.fetch_add(count, Ordering::Relaxed);
    }

    pub fn broker_messages(&self, count: u64) {
        self.broker_messages.fetch_add(count, Ordering::Relaxed);
    }

    pub fn counts(&self) -> TrafficCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TrafficCounts {
            statements: read(&self.statements),
            commits: read(&self.commits),
            redis_commands: read(&self.redis_commands),
            broker_messages: read(&self.broker_messages),
        }
    }
}
