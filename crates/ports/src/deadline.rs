//! How long an answer is waited for.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Until when an answer is waited for, by a monotonic clock.
///
/// A request gets one on arrival and passes it down: queues, retries, connections and round trips wait for the rest of
/// it. Work on behalf of no request gets one of its own. A batch has the latest of its requests' deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// The deadline came before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out waiting for an answer")]
pub struct Overdue;

/// How much later than its deadline a request is answered at most: by then only its stored reply is looked up.
pub const GRACE: Duration = Duration::from_millis(250);

impl Deadline {
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    pub fn instant(self) -> Instant {
        self.0
    }

    /// Zero once it is over.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn is_over(self) -> bool {
        self.0 <= Instant::now()
    }

    /// For one step that has a bound of its own: the earlier of the two.
    #[must_use]
    pub fn within(self, max: Duration) -> Self {
        self.min(Self::after(max))
    }

    #[must_use]
    pub fn later_by(self, time: Duration) -> Self {
        Self(self.0 + time)
    }

    /// Waits for `answer`, and drops it if the deadline comes first. An answer that is ready counts even after the
    /// deadline.
    pub async fn bound<T>(self, answer: impl Future<Output = T>) -> Result<T, Overdue> {
        timeout_at(self.0, answer).await.map_err(|_| Overdue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_until_the_deadline() {
        let (begun, deadline) = (Instant::now(), Deadline::after(Duration::from_secs(3)));
        advance(Duration::from_secs(1)).await;
        assert_eq!(deadline.remaining(), Duration::from_secs(2));
        assert_eq!(deadline.bound(pending::<()>()).await, Err(Overdue));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert!(deadline.is_over() && deadline.remaining().is_zero());
        assert_eq!(deadline.bound(ready(7)).await, Ok(7), "it is ready");
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_has_the_earlier_of_two_deadlines() {
        let deadline = Deadline::after(Duration::from_secs(3));
        assert_eq!(deadline.within(Duration::from_secs(1)).remaining(), Duration::from_secs(1));
        assert_eq!(deadline.within(Duration::from_secs(9)), deadline);
        assert_eq!(deadline.later_by(GRACE).remaining(), Duration::from_secs(3) + GRACE);
    }
}
