//! A lease that is renewed while it is held, and given back on every path.
//!
//! A [`Claim`] exists from before the first command that might take a lock. Dropping it, at any point, gives back in the
//! background what may have been taken, even by a command still under way. A [`RenewedLease`] is a claim that was taken.
//! It is renewed at a third of its time to live, so that one renewal may fail and the next still comes in time.
//!
//! *Lost* is a lease that another owner has, or whose time to live has passed on this process's monotonic clock. That time
//! counts from before the command was sent that last set it, so it ends here before it ends in the store. The loss is
//! reported, not enforced. There is no fencing: between the last renewal that succeeded and the report, another owner may
//! have the lock too. The ledger's own guards keep the data correct.
//!
//! *Crash.* A process that ends without giving back leaves its keys until their time to live has passed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_ports::Lease;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::queue::QueueHead;

/// Renewals in one time to live.
const RENEWALS: u32 = 3;
/// How soon a renewal without an answer is retried, in parts of the time to live.
const RETRIES: u32 = 12;

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    /// It lasts for another time to live, counted from before the command.
    Held,
    /// Another owner has it, or none.
    Lost,
    /// There was no answer.
    Unknown,
}

/// What a lease holds: the keys of one owner.
#[async_trait]
pub(super) trait Held: Send + Sync + 'static {
    async fn extend(&self) -> Extended;
    /// Whether no key was taken, and no answer is missing.
    fn left_nothing(&self) -> bool;
    /// Gives back the keys that are still its own and touches no others, however often it is called. Returns within a round
    /// trip, and goes on in the background if that was not enough. Whether another process waits for one of them.
    async fn give_back(self: Arc<Self>) -> bool;
}

/// See the module's opening.
pub(super) struct Claim<H: Held> {
    held: Arc<H>,
    /// The place in this process's queue, given up last.
    head: Option<QueueHead>,
    /// Whether it was not given back yet.
    armed: bool,
}

impl<H: Held> Claim<H> {
    pub(super) fn new(held: H, head: Option<QueueHead>) -> Self {
        Self { held: Arc::new(held), head, armed: true }
    }

    pub(super) fn held(&self) -> &Arc<H> {
        &self.held
    }

    /// It was taken, and lasts until `until` unless it is renewed.
    pub(super) fn into_lease(self, until: Instant, ttl: Duration) -> RenewedLease<H> {
        let (is_lost, lost) = watch::channel(false);
        let renewal = tokio::spawn(renew(self.held.clone(), until, ttl, is_lost)).abort_handle();
        RenewedLease { claim: self, lost, renewal: Renewal(renewal) }
    }

    async fn give_back(mut self) {
        self.armed = false;
        // In a task, so that it goes on if the caller stops waiting. A panic in it is a defect, which the panic hook logs.
        let _ = tokio::spawn(end(self.held.clone(), self.head.take())).await;
    }
}

impl<H: Held> Drop for Claim<H> {
    fn drop(&mut self) {
        // Outside of a runtime there is nothing to run it, and the keys expire.
        if self.armed
            && !self.held.left_nothing()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(end(self.held.clone(), self.head.take()));
        }
    }
}

async fn end<H: Held>(held: Arc<H>, head: Option<QueueHead>) {
    let wanted = held.give_back().await;
    if let Some(head) = head {
        head.leave(wanted);
    }
}

/// See the module's opening.
pub(super) struct RenewedLease<H: Held> {
    claim: Claim<H>,
    lost: watch::Receiver<bool>,
    renewal: Renewal,
}

/// Ends the renewing when it is dropped.
struct Renewal(AbortHandle);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl<H: Held> Lease for RenewedLease<H> {
    async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error: it is no longer renewed, though it was not given back. A defect has ended the renewing.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    async fn release(self: Box<Self>) {
        let Self { claim, renewal, .. } = *self;
        drop(renewal);
        claim.give_back().await;
    }
}

/// Renews it until it is lost.
async fn renew<H: Held>(held: Arc<H>, mut until: Instant, ttl: Duration, is_lost: watch::Sender<bool>) {
    let mut pause = ttl / RENEWALS;
    loop {
        let wake = (Instant::now() + pause).min(until);
        sleep_until(wake).await;
        let asked = Instant::now();
        if asked >= until {
            break;
        }
        match timeout_at(until, held.extend()).await {
            Ok(Extended::Held) => (until, pause) = (asked + ttl, ttl / RENEWALS),
            Ok(Extended::Unknown) => pause = ttl / RETRIES,
            Ok(Extended::Lost) | Err(_) => break,
        }
    }
    tracing::warn!(ttl_ms = ttl.as_millis() as u64, "a lease was lost");
    is_lost.send_replace(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::sleep;

    const TTL: Duration = Duration::from_secs(3);

    /// Answers as scripted, then [`Extended::Held`].
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<Vec<Extended>>,
        extended: Arc<AtomicU32>,
        given_back: Arc<AtomicU32>,
        untouched: bool,
    }

    #[async_trait]
    impl Held for Scripted {
        fn left_nothing(&self) -> bool {
            self.untouched
        }

        async fn extend(&self) -> Extended {
            self.extended.fetch_add(1, Ordering::SeqCst);
            self.answers.lock().unwrap().pop().unwrap_or(Extended::Held)
        }

        async fn give_back(self: Arc<Self>) -> bool {
            tokio::task::yield_now().await;
            self.given_back.fetch_add(1, Ordering::SeqCst);
            false
        }
    }

    /// Is renewed in this manner.
    struct Renewing(fn() -> BoxFuture<'static, Extended>);

    #[async_trait]
    impl Held for Renewing {
        fn left_nothing(&self) -> bool {
            false
        }

        async fn extend(&self) -> Extended {
            (self.0)().await
        }

        async fn give_back(self: Arc<Self>) -> bool {
            false
        }
    }

    struct Counts {
        extended: Arc<AtomicU32>,
        given_back: Arc<AtomicU32>,
    }

    fn lease(answers: &[Extended]) -> (Box<RenewedLease<Scripted>>, Counts) {
        let held = Scripted { answers: Mutex::new(answers.iter().rev().copied().collect()), ..Scripted::default() };
        let counts = Counts { extended: held.extended.clone(), given_back: held.given_back.clone() };
        (Box::new(Claim::new(held, None).into_lease(Instant::now() + TTL, TTL)), counts)
    }

    async fn is_lost(lease: &RenewedLease<Scripted>, within: Duration) -> bool {
        tokio::time::timeout(within, lease.lost()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_at_a_third_of_its_time_and_no_longer_after_release() {
        let (lease, counts) = lease(&[]);
        assert!(!is_lost(&lease, TTL * 10 + TTL / 6).await);
        assert_eq!(counts.extended.load(Ordering::SeqCst), 30);
        lease.release().await;
        sleep(TTL * 10).await;
        assert_eq!((counts.extended.load(Ordering::SeqCst), counts.given_back.load(Ordering::SeqCst)), (30, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_another_owner_took_is_lost_at_the_next_renewal() {
        let (lease, counts) = lease(&[Extended::Held, Extended::Lost]);
        let before = Instant::now();
        lease.lost().await;
        assert_eq!(before.elapsed(), TTL / 3 * 2);
        assert!(is_lost(&lease, Duration::ZERO).await, "a later caller learns it as well");
        sleep(TTL).await;
        assert_eq!(counts.extended.load(Ordering::SeqCst), 2, "it is not renewed again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_without_an_answer_is_retried_until_the_time_to_live_has_passed() {
        let (survives, _) = lease(&[Extended::Unknown; 7]);
        assert!(!is_lost(&survives, TTL * 3).await);
        let (dies, _) = lease(&[Extended::Unknown; 40]);
        let before = Instant::now();
        dies.lost().await;
        assert_eq!(before.elapsed(), TTL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_loses_the_lease_when_the_time_to_live_has_passed() {
        let lease = Claim::new(Renewing(|| Box::pin(std::future::pending())), None).into_lease(Instant::now() + TTL, TTL);
        let before = Instant::now();
        lease.lost().await;
        assert_eq!(before.elapsed(), TTL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_panics_loses_the_lease() {
        let lease = Claim::new(Renewing(|| panic!("a defect")), None).into_lease(Instant::now() + TTL, TTL);
        tokio::time::timeout(TTL, lease.lost()).await.expect("its holder learns it");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_gives_back_and_so_does_a_release_that_is_not_awaited() {
        let (lease_one, counts) = lease(&[]);
        drop(lease_one);
        sleep(TTL * 2).await;
        assert_eq!((counts.given_back.load(Ordering::SeqCst), counts.extended.load(Ordering::SeqCst)), (1, 0));

        let (lease_two, counts) = lease(&[]);
        let mut releasing = lease_two.release();
        assert!(futures_util::poll!(&mut releasing).is_pending());
        drop(releasing);
        sleep(TTL).await;
        assert_eq!(counts.given_back.load(Ordering::SeqCst), 1);

        for (untouched, times) in [(true, 0), (false, 1)] {
            let held = Scripted { untouched, ..Scripted::default() };
            let given_back = held.given_back.clone();
            drop(Claim::new(held, None));
            sleep(TTL).await;
            assert_eq!(given_back.load(Ordering::SeqCst), times, "a key that was taken, and no other");
        }
    }
}
