//! What the engine counts about itself, for metrics and benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that is read for display alone, so relaxed order is enough.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Takes back what was added.
    pub(crate) fn sub(&self, by: u64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Stats {
    /// Commands that were decided, replays and refusals included.
    pub commands: Gauge,
    /// Batches that were committed.
    pub batches: Gauge,
    /// Batches that were run again.
    pub retries: Gauge,
    /// Batches that were cut in two because the store refused them.
    pub bisections: Gauge,
    /// Commands turned away because too many were waiting, or because they had waited too long.
    pub overloaded: Gauge,
    /// Commands that waited apart for a row which another transaction kept locked.
    pub held_commands: Gauge,
    /// Commands refused because another command kept what they need.
    pub busy: Gauge,
    /// Offers of best seats that were sent to be decided: one for each grant, unless other callers were quicker.
    pub best_offers: Gauge,
    /// Microseconds spent in ledger calls.
    pub ledger_us: Gauge,
    /// Commands that asked for a lock, whether they got it or not.
    pub lock_waits: Gauge,
    /// Microseconds from asking for a lock to getting it, or to giving up.
    pub lock_wait_us: Gauge,
    /// Microseconds from getting a lock to having released it.
    pub lock_held_us: Gauge,
    /// Holds whose expiry was written by the sweep.
    pub swept_holds: Gauge,
    /// Commands that this instance appended to a log and that have no answer yet. Goes down as well.
    pub logged_commands: Gauge,
    /// Commands whose callers got a receipt instead of the outcome, because it took too long or they asked not to wait.
    pub accepted_commands: Gauge,
    /// Commands from a log that could not be decided and lie with the dead letters.
    pub dead_commands: Gauge,
    /// Events taken out of the outbox.
    pub relayed_events: Gauge,
    /// Events that still wait in the outbox, and how long the oldest has, milliseconds. Both go down as well.
    pub unsent_events: Gauge,
    pub unsent_age_ms: Gauge,
    pub promoted: Gauge,
    /// Turns that ended because their buyers were gone.
    pub abandoned: Gauge,
    /// Open connections that get the frames of a waiting room. Both go down as well.
    pub sse_streams: Gauge,
    pub websockets: Gauge,
    /// Frames handed to listeners.
    pub frames_sent: Gauge,
    /// Listeners ended because they did not take their frames.
    pub slow_listeners: Gauge,
}
