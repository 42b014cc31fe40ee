//! Who relays which shard of the outbox, when several instances do.

use super::support::Place;
use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{InstanceId, Outbox};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(5);

fn relay(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(n))
}

async fn claim(outbox: &Arc<dyn Outbox>, relays: &[u128]) -> Vec<BTreeSet<u32>> {
    let mut all = Vec::new();
    for &n in relays {
        all.push(outbox.claim(relay(n), LEASE).await.expect("a claim").into_iter().collect());
    }
    all
}

/// Every shard has exactly one of `owned`, and nobody more than an equal share.
fn shared_out(owned: &[BTreeSet<u32>]) {
    let all: BTreeSet<u32> = owned.iter().flatten().copied().collect();
    assert_eq!(all, (0..OUTBOX_SHARDS).collect(), "nothing is left over");
    assert_eq!(owned.iter().map(BTreeSet::len).sum::<usize>(), OUTBOX_SHARDS as usize, "nobody has what another has: {owned:?}");
    let share = (OUTBOX_SHARDS as usize).div_ceil(owned.len());
    assert!(owned.iter().all(|mine| mine.len() <= share), "{owned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_shared_out_among_the_relays_that_live() {
    let place = Place::new();
    let outbox = place.open().await.stores().outbox;
    shared_out(&claim(&outbox, &[1]).await);
    // Who comes later gets a share as soon as the others have said that they live.
    claim(&outbox, &[2, 3, 1]).await;
    shared_out(&claim(&outbox, &[2, 3, 1]).await);
    // One that goes leaves its own to the others at once; one that says nothing more when its lease has ended.
    outbox.release(relay(1)).await.expect("given back");
    claim(&outbox, &[2, 3]).await;
    shared_out(&claim(&outbox, &[2, 3]).await);
    place.clock.advance(chrono::TimeDelta::from_std(LEASE).expect("a lease"));
    shared_out(&claim(&outbox, &[3]).await);
    // And if it was only late, it shares again.
    claim(&outbox, &[2]).await;
    claim(&outbox, &[3]).await;
    shared_out(&claim(&outbox, &[2, 3]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_as_soon_as_ever_when_the_clock_is_set_back() {
    let place = Place::new();
    let outbox = place.open().await.stores().outbox;
    claim(&outbox, &[1, 2, 1]).await;
    shared_out(&claim(&outbox, &[1, 2]).await);
    place.clock.advance(-chrono::TimeDelta::hours(1));
    // One has died: its shards are not given away before a lease has passed, and not much later.
    assert!(claim(&outbox, &[2]).await[0].len() < OUTBOX_SHARDS as usize);
    place.clock.advance(chrono::TimeDelta::from_std(LEASE).expect("a lease"));
    shared_out(&claim(&outbox, &[2]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_at_once_never_give_a_shard_to_two() {
    let place = Place::new();
    let outbox = place.open().await.stores().outbox;
    for _ in 0..20 {
        let mut claims = JoinSet::new();
        for n in 1..=5 {
            let outbox = outbox.clone();
            claims.spawn(async move { outbox.claim(relay(n), LEASE).await.expect("a claim") });
        }
        claims.join_all().await;
    }
    shared_out(&claim(&outbox, &[1, 2, 3, 4, 5]).await);
}
