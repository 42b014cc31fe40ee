//! The edges of time, to the instant, which the contract's cases cannot test because their clock runs.
//!
//! The including module defines `make_still(clock)`, which makes fresh stores that use that clock.

use std::sync::{Arc, Mutex};

use boxoffice_domain::{Rejection, Timestamp};
use boxoffice_ports::Clock;
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::contract::build::{charge, expire, extend, hold, pay, release, user};
use boxoffice_ports::contract::shop::{Shop, is_done};
use chrono::{DateTime, TimeDelta};

/// A clock that stands still until it is set.
pub(crate) struct StillClock(Mutex<Timestamp>);

impl StillClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(DateTime::UNIX_EPOCH + TimeDelta::days(20_000))))
    }

    fn set(&self, now: Timestamp) {
        *self.0.lock().expect("a clock") = now;
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        *self.0.lock().expect("a clock") += by;
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("a clock")
    }

    fn offset(&self) -> TimeDelta {
        TimeDelta::zero()
    }
}

async fn still() -> (Arc<StillClock>, Fixture) {
    let clock = StillClock::new();
    let (stores, keep) = super::make_still(clock.clone()).await;
    let moved = clock.clone();
    (clock, Fixture { stores, advance: Arc::new(move |by| moved.advance(by)), keep })
}

/// The smallest step of time.
fn us() -> TimeDelta {
    TimeDelta::microseconds(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_at_its_instant_everywhere() {
    let (clock, fixture) = still().await;
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let limit = shop.policy.max_seats_per_user;
    shop.charge(ann, 1_000_000).await;
    let held = shop.hold(ann, &[1, 2, 3, 4]).await;
    let (queries, upkeep) = (&shop.fixture.stores.queries, &shop.fixture.stores.upkeep);

    clock.set(held.expires_at - us());
    assert!(upkeep.due_holds(10).await.expect("due holds").is_empty());
    assert_eq!(queries.live_holds(ann, shop.concert).await.expect("live holds"), [held.id]);
    assert!(!is_done(&shop.one(expire(held.id)).await));
    assert_eq!(shop.refused(hold(ben, "h", shop.date, &[1])).await, Rejection::SeatUnavailable { seats: vec![1] });
    assert_eq!(shop.refused(hold(ann, "h", shop.date, &[5])).await, Rejection::SeatLimitExceeded { limit });

    clock.set(held.expires_at);
    assert_eq!(upkeep.due_holds(10).await.expect("due holds"), [held.id]);
    assert!(queries.live_holds(ann, shop.concert).await.expect("live holds").is_empty());
    for late in [pay(ann, "p", held.id, 0), extend(ann, "e", held.id), release(ann, held.id)] {
        assert_eq!(shop.refused(late).await, Rejection::HoldExpired);
    }
    assert!(is_done(&shop.one(hold(ben, "g", shop.date, &[1])).await));
    assert!(is_done(&shop.one(hold(ann, "g", shop.date, &[2, 3, 4, 5])).await), "an expired hold does not count against the limit");
    assert!(is_done(&shop.one(expire(held.id)).await));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_ends_at_its_instant_everywhere() {
    let (clock, fixture) = still().await;
    let shop = Shop::open(fixture).await;
    let (ledger, upkeep) = (&shop.fixture.stores.ledger, &shop.fixture.stores.upkeep);
    let (ann, ben) = (user(), user());
    let requests = [charge(ann, "k", 10), charge(ben, "k", 20)];
    let (key, _) = requests[0].idempotency().expect("a key");
    shop.run(requests.to_vec()).await;
    let ends = clock.now() + TimeDelta::seconds(i64::from(shop.policy.idempotency_ttl_s));

    clock.set(ends - us());
    assert_eq!(upkeep.prune_replies(10).await.expect("pruned"), 0);
    assert!(ledger.reply(key).await.expect("read").is_some());
    assert!(shop.one(requests[0].clone()).await.replayed);

    clock.set(ends);
    assert!(ledger.reply(key).await.expect("read").is_none());
    let anew = boxoffice_ports::contract::build::again(&requests[0]);
    assert!(!shop.one(anew).await.replayed);
    assert_eq!(shop.balance(ann).await, 20);
    assert_eq!(upkeep.prune_replies(10).await.expect("pruned"), 1, "the other reply: this one was renewed and expires later");
    assert!(ledger.reply(key).await.expect("read").is_some());
    shop.close().await;
}
