//! This machine's clock and identifiers.

use boxoffice_domain::Timestamp;
use boxoffice_ports::{Clock, Ids};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::atomic::{AtomicI64, Ordering};
use uuid::Uuid;

/// The system's clock, to the microsecond. Tests may move it forward.
#[derive(Debug, Default)]
pub struct SystemClock {
    offset_us: AtomicI64,
}

impl SystemClock {
    /// Moves the clock, and with it every store that uses it.
    pub fn advance(&self, by: TimeDelta) {
        self.offset_us.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the port's adapter")]
        let us = Utc::now().timestamp_micros() + self.offset_us.load(Ordering::SeqCst);
        DateTime::from_timestamp_micros(us).unwrap_or_default()
    }

    fn offset(&self) -> TimeDelta {
        TimeDelta::microseconds(self.offset_us.load(Ordering::SeqCst))
    }
}

/// UUIDv7 by this machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn fresh(&self) -> Uuid {
        #[expect(clippy::disallowed_methods, reason = "this is the port's adapter")]
        Uuid::now_v7()
    }
}
