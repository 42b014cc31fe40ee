//! The rate of requests of one user, in this process.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use boxoffice_domain::UserId;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::{Code, Problem};

/// After so many checks, users without recent requests are removed.
const CHECKS_PER_PRUNING: u32 = 1 << 16;

pub(crate) struct RateLimit {
    limiter: Option<DefaultKeyedRateLimiter<UserId>>,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl RateLimit {
    /// `per_second` requests for each user, twice that at once; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let limiter = NonZeroU32::new(per_second).map(|per_second| {
            let quota = Quota::per_second(per_second).allow_burst(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
            RateLimiter::keyed(quota)
        });
        Self { limiter, clock: DefaultClock::default(), checks: AtomicU32::new(0) }
    }

    pub(crate) fn check(&self, user: UserId) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_PER_PRUNING == CHECKS_PER_PRUNING - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(&user).map_err(|until| {
            let wait: Duration = until.wait_time_from(self.clock.now());
            Problem::new(Code::TooManyRequests, "more requests a second than one user may make").retry_after_s(wait.as_secs() + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn rate_is_for_each_user_with_bursts_of_twice_that() {
        let limit = RateLimit::new(1);
        let (a, b) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert!(limit.check(a).is_ok());
        assert!(limit.check(a).is_ok());
        assert_eq!(limit.check(a).unwrap_err().code(), Code::TooManyRequests);
        assert!(limit.check(b).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = RateLimit::new(0);
        let user = UserId(Uuid::from_u128(1));
        assert!((0..10_000).all(|_| limit.check(user).is_ok()));
    }
}
