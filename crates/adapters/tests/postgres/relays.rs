//! How several relaying instances share out the shards of the outbox.

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

/// Every shard has exactly one owner, and no owner has more than an equal share.
fn shared_out(owned: &[BTreeSet<u32>]) {
    let all: BTreeSet<u32> = owned.iter().flatten().copied().collect();
    assert_eq!(all, (0..OUTBOX_SHARDS).collect(), "every shard has an owner");
    assert_eq!(owned.iter().map(BTreeSet::len).sum::<usize>(), OUTBOX_SHARDS as usize, "no shard has two owners: {owned:?}");
    let share = (OUTBOX_SHARDS as usize).div_ceil(owned.len());
    assert!(owned.iter().all(|mine| mine.len() <= share), "{owned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_shared_out_among_the_relays_that_live() {
    let place = Place::new();
    let outbox = place.open().await.stores().outbox;
    shared_out(&claim(&outbox, &[1]).await);
    // A later relay gets its share once the others have renewed their claims.
    claim(&outbox, &[2, 3, 1]).await;
    shared_out(&claim(&outbox, &[2, 3, 1]).await);
    // A relay that stops releases its shards at once; one that falls silent loses them when its lease ends.
    outbox.release(relay(1)).await.expect("given back");
    claim(&outbox, &[2, 3]).await;
    shared_out(&claim(&outbox, &[2, 3]).await);
    place.clock.advance(chrono::TimeDelta::from_std(LEASE).expect("a lease"));
    shared_out(&claim(&outbox, &[3]).await);
    // If it was only late, it gets a share again.
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
    // Relay 1 has died: its shards are reassigned once a lease has passed, and no earlier.
    assert!(claim(&outbox, &[2]).await[0].len() < OUTBOX_SHARDS as usize);
    place.clock.advance(chrono::TimeDelta::from_std(LEASE).expect("a lease"));
    shared_out(&claim(&outbox, &[2]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_claims_never_give_a_shard_to_two_relays() {
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
