//! The store's time, on this instance.
//!
//! Truth about an expiry comes from the store's clock, in the deciding transaction. What is shown, signed or refused
//! before the store is asked goes by the same clock, as far as it is known here. That is the time that was read last,
//! and what has passed since by the monotonic clock. So a machine whose clock is wrong, or is set during a sale, ends
//! no buyer's turn and shows no held seat as free.
//!
//! *Cost.* One statement every [`REFRESH`].

use std::sync::{Arc, RwLock};
use std::time::Duration;

use boxoffice_domain::Timestamp;
use boxoffice_ports::{Clock, Queries, Source, StoreError};
use chrono::TimeDelta;
use tokio::time::Instant;

use crate::sync::{read, write};

/// How often the store is asked.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);
/// An answer that took longer is too imprecise, and is dropped.
const SLOW: Duration = Duration::from_millis(500);
/// How far the time here may be from the store's: half of what an answer may take.
pub(crate) const ERROR_MAX: Duration = Duration::from_millis(250);

/// Another clock's time, between the times it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteTime {
    now: Timestamp,
    at: Instant,
    /// How far tests had moved the clocks when it was read.
    offset: TimeDelta,
}

impl RemoteTime {
    /// It is `now` by that clock.
    pub(crate) fn new(now: Timestamp, clock: &dyn Clock) -> Self {
        Self { now, at: Instant::now(), offset: clock.offset() }
    }

    /// That clock was never read: it stands long ago.
    pub(crate) fn unknown() -> Self {
        Self { now: Timestamp::UNIX_EPOCH, at: Instant::now(), offset: TimeDelta::zero() }
    }

    pub(crate) fn now(&self, clock: &dyn Clock) -> Timestamp {
        self.now + TimeDelta::from_std(self.elapsed()).unwrap_or_default() + (clock.offset() - self.offset)
    }

    /// Since it was read.
    pub(crate) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }
}

/// See the module's opening.
pub struct StoreTime {
    queries: Arc<dyn Queries>,
    /// Read only for how far tests move it.
    clock: Arc<dyn Clock>,
    last_read: RwLock<RemoteTime>,
}

impl StoreTime {
    pub async fn start(queries: Arc<dyn Queries>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let (time, _) = ask(&*queries, &*clock).await?;
        Ok(Arc::new(Self { queries, clock, last_read: RwLock::new(time) }))
    }

    pub(crate) async fn refresh(&self) -> Result<(), Source> {
        let (time, took) = ask(&*self.queries, &*self.clock).await?;
        self.keep(time, took);
        Ok(())
    }

    fn keep(&self, time: RemoteTime, took: Duration) {
        if took <= SLOW {
            *write(&self.last_read) = time;
        }
    }
}

/// Reads the store's time, which was right about half way through the round trip, and how long that took.
async fn ask(queries: &dyn Queries, clock: &dyn Clock) -> Result<(RemoteTime, Duration), StoreError> {
    loop {
        let (asked, offset) = (Instant::now(), clock.offset());
        let now = queries.now().await?;
        // If a test moved the clocks meanwhile, it is unknown whether that was before or after the store's answer.
        if clock.offset() == offset {
            let took = asked.elapsed();
            let now = now + TimeDelta::from_std(took / 2).unwrap_or_default();
            return Ok((RemoteTime { now, at: Instant::now(), offset }, took));
        }
    }
}

impl Clock for StoreTime {
    fn now(&self) -> Timestamp {
        read(&self.last_read).now(&*self.clock)
    }

    fn offset(&self) -> TimeDelta {
        self.clock.offset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use boxoffice_ports::{MockClock, MockQueries};
    use std::sync::Mutex;
    use tokio::time::advance;

    /// The time of a store that reads 1,000 at first, on a machine whose own clock is wrong.
    async fn started(offset: &Arc<Mutex<TimeDelta>>) -> Arc<StoreTime> {
        let (mut clock, mut queries) = (MockClock::new(), MockQueries::new());
        let (read, moved) = (offset.clone(), offset.clone());
        clock.expect_offset().returning(move || *read.lock().unwrap());
        clock.expect_now().returning(|| at(-1_000_000));
        queries.expect_now().times(1).returning(|| Ok(at(1_000)));
        // The clocks are moved after the store's answer.
        queries.expect_now().times(..=1).returning(move || {
            *moved.lock().unwrap() += TimeDelta::seconds(60);
            Ok(at(1_500))
        });
        queries.expect_now().returning(|| Ok(at(2_000)));
        StoreTime::start(Arc::new(queries), Arc::new(clock)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_the_stores_time_and_passes_by_itself() {
        let offset = Arc::default();
        let time = started(&offset).await;
        assert_eq!(time.now(), at(1_000));
        advance(Duration::from_secs(7)).await;
        assert_eq!(time.now(), at(1_007));
        *offset.lock().unwrap() = TimeDelta::seconds(60);
        assert_eq!(time.now(), at(1_067), "tests move it");
        time.refresh().await.unwrap();
        assert_eq!(time.now(), at(2_000), "an answer of the store has its own offset");
        advance(Duration::from_secs(1)).await;
        assert_eq!(time.now(), at(2_001));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_dropped() {
        let time = started(&Arc::default()).await;
        let read_at = |s| RemoteTime::new(at(s), &*time.clock);
        time.keep(read_at(3_000), SLOW + Duration::from_millis(1));
        assert_eq!(time.now(), at(1_000));
        time.keep(read_at(500), SLOW);
        assert_eq!(time.now(), at(500), "the store's clock was set back");
    }
}
