//! Idempotency keys: one effect each, and every replay gets the first answer.

use boxoffice_domain::{Decision, Rejection};
use chrono::TimeDelta;

use crate::contract::Fixture;
use crate::contract::build::{self, PRICE_R, user};
use crate::contract::shop::{Shop, entry, paid, refused};

fn past_keys(shop: &Shop) -> TimeDelta {
    TimeDelta::seconds(i64::from(shop.policy.idempotency_ttl_s) + 1)
}

pub async fn replies_are_stored_and_replayed(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.charge(ann, 2 * PRICE_R).await;
    let hold = build::hold(ann, "h", shop.date, &[1, 2]);
    let held = hold.fresh.subject.into();
    let pay = build::pay(ann, "p", held, 0);
    let requests =
        [hold, build::extend(ann, "e", held), pay.clone(), build::refund(ann, "r", pay.fresh.subject.into()), build::spend(ann, "u", 300)];
    let mut first = Vec::new();
    for request in &requests {
        first.push(shop.one(request.clone()).await);
    }
    let outbox = shop.outbox().await;
    shop.advance(TimeDelta::hours(1));
    for (request, first) in requests.iter().zip(&first) {
        assert!(!first.replayed);
        let (key, fingerprint) = request.idempotency().expect("a key");
        let stored = shop.fixture.stores.ledger.reply(key).await.expect("a reply").expect("a stored reply");
        assert_eq!(stored.fingerprint, fingerprint);
        let replay = shop.one(build::again(request)).await;
        for repeated in [&stored.reply, &replay] {
            assert_eq!((&repeated.decision, repeated.decided_at, repeated.replayed), (&first.decision, first.decided_at, true));
        }
    }
    assert_eq!(shop.outbox().await, outbox, "a replay writes no event");
    assert_eq!(shop.balance(ann).await, 2 * PRICE_R - 300);
    assert!(paid(&first[3]).0.refund.is_some());
    shop.close().await;
}

pub async fn refusals_are_stored_and_replayed(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let poor = build::spend(ann, "u", 50);
    assert_eq!(shop.refused(poor.clone()).await, Rejection::InsufficientBalance);
    shop.hold(user(), &[3, 4]).await;
    let taken = build::hold(ann, "h", shop.date, &[2, 3, 4]);
    let unavailable = Rejection::SeatUnavailable { seats: vec![3, 4] };
    assert_eq!(shop.refused(taken.clone()).await, unavailable);
    let out_of_range = build::charge(ann, "c", -1);
    let first = shop.refused(out_of_range.clone()).await;
    // What would succeed now is refused as it was.
    shop.charge(ann, 1_000).await;
    shop.advance_past_holds();
    for (request, rejection) in [(poor, Rejection::InsufficientBalance), (taken, unavailable), (out_of_range, first)] {
        let replay = shop.one(build::again(&request)).await;
        assert_eq!((refused(&replay), replay.replayed), (rejection, true));
    }
    assert_eq!(shop.balance(ann).await, 1_000);
    shop.close().await;
}

pub async fn key_with_another_fingerprint_is_refused_and_not_stored(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let first = build::charge(ann, "k", 10);
    let reply = shop.one(first.clone()).await;
    let other = build::charge(ann, "k", 20);
    for _ in 0..2 {
        let reused = shop.one(other.clone()).await;
        assert_eq!((refused(&reused), reused.replayed), (Rejection::IdempotencyKeyReused, false));
    }
    let (key, fingerprint) = first.idempotency().expect("a key");
    let stored = shop.fixture.stores.ledger.reply(key).await.expect("a reply").expect("the first reply");
    assert_eq!((stored.fingerprint, stored.reply.decision), (fingerprint, reply.decision.clone()));
    assert_eq!(shop.one(build::again(&first)).await.decision, reply.decision, "the key keeps its first answer");
    assert_eq!((shop.balance(ann).await, shop.entries(ann).await.len()), (10, 1));
    shop.close().await;
}

pub async fn replies_without_a_key_are_not_stored(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let held = shop.hold(ann, &[1]).await;
    let release = build::release_by_system(held.id);
    assert!(release.idempotency().is_none());
    let first = shop.one(release.clone()).await;
    let second = shop.one(release.clone()).await;
    assert_eq!((first.replayed, second.replayed), (false, false));
    let key = boxoffice_domain::IdempotencyKey { user: ann, command: release.command_id };
    assert!(shop.fixture.stores.ledger.reply(key).await.expect("no reply").is_none());
    shop.advance(past_keys(&shop));
    assert_eq!(shop.fixture.stores.upkeep.prune_replies(100).await.expect("pruned"), 1, "only the hold's was kept");
    shop.close().await;
}

pub async fn keys_are_each_users_own(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let (of_ann, of_ben) = (build::charge(ann, "k", 10), build::charge(ben, "k", 20));
    let replies = shop.run(vec![of_ann.clone(), of_ben.clone()]).await;
    assert_eq!((entry(&replies[0]).balance, entry(&replies[1]).balance), (10, 20));
    let (key, _) = of_ann.idempotency().expect("a key");
    let stolen = boxoffice_domain::IdempotencyKey { user: ben, command: key.command };
    assert!(shop.fixture.stores.ledger.reply(stolen).await.expect("no reply").is_none());
    shop.close().await;
}

pub async fn expired_key_runs_anew_before_it_is_pruned(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let request = build::charge(ann, "k", 10);
    let (key, _) = request.idempotency().expect("a key");
    let first = entry(&shop.one(request.clone()).await);
    shop.advance(past_keys(&shop));
    assert!(shop.fixture.stores.ledger.reply(key).await.expect("no reply").is_none(), "not live any more");
    let anew = shop.one(build::again(&request)).await;
    assert!(!anew.replayed && entry(&anew).id != first.id);
    assert_eq!(shop.balance(ann).await, 20);
    let replay = shop.one(build::again(&request)).await;
    assert_eq!((replay.decision, replay.replayed), (anew.decision, true));
    // The key may even come back as something else.
    shop.advance(past_keys(&shop));
    assert_eq!(entry(&shop.one(build::charge(ann, "k", 5)).await).balance, 25);
    assert_eq!(shop.fixture.stores.upkeep.prune_replies(100).await.expect("pruned"), 0, "the row was taken over");
    shop.close().await;
}

pub async fn pruning_is_bounded_and_takes_only_expired_replies(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let upkeep = &shop.fixture.stores.upkeep;
    let ann = user();
    shop.run((0..25).map(|at| build::charge(ann, &format!("old-{at}"), 1)).collect()).await;
    assert_eq!(upkeep.prune_replies(10).await.expect("pruned"), 0);
    shop.advance(past_keys(&shop));
    let live = build::charge(ann, "new", 1);
    shop.one(live.clone()).await;
    for expected in [10, 10, 5, 0] {
        assert_eq!(upkeep.prune_replies(10).await.expect("pruned"), expected);
    }
    let replay = shop.one(build::again(&live)).await;
    assert!(replay.replayed && matches!(replay.decision, Decision::Done(_)));
    assert_eq!(shop.balance(ann).await, 26);
    shop.close().await;
}
