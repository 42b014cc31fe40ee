//! Lists, whose things one may see, the outbox and the secrets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_domain::{Event, ReservationId};
use chrono::TimeDelta;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::contract::Fixture;
use crate::contract::build::{self, PRICE_R, fresh, user};
use crate::contract::shop::{Shop, paid};
use crate::{InstanceId, Page, Unsent};

/// Reads a list to its end, three at a time, and checks that only the last page claims to be it.
async fn read_all<T, C, F>(mut page: impl FnMut(Option<C>) -> F, cursor: impl Fn(&T) -> C) -> Vec<T>
where
    F: Future<Output = Result<Page<T>, crate::StoreError>>,
{
    const PAGES_MAX: usize = 100;
    let (mut all, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let next = page(after).await.expect("a page");
        assert!(next.items.len() <= 3);
        assert!(!next.more || next.items.len() == 3, "more follows only a full page");
        all.extend(next.items);
        after = all.last().map(&cursor);
        if !next.more {
            return all;
        }
    }
    panic!("no end after {PAGES_MAX} pages");
}

pub async fn entries_are_paged(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    shop.charge(user(), 1).await;
    for amount in 1..=6 {
        shop.charge(ann, amount).await;
    }
    let queries = &shop.fixture.stores.queries;
    let all = read_all(|after| queries.entries(ann, after, 3), |entry| entry.seq).await;
    assert_eq!(all.iter().map(|entry| entry.amount).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    assert!(read_all(|after| queries.entries(user(), after, 3), |entry| entry.seq).await.is_empty());
    // A page that ends exactly at the end reports that nothing follows.
    let page = queries.entries(ann, None, 6).await.expect("a page");
    assert_eq!((page.items.len(), page.more), (6, false));
    shop.close().await;
}

pub async fn points_entries_are_paged(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    for number in 1..=4 {
        shop.buy(ann, &[number]).await;
    }
    shop.buy(user(), &[9]).await;
    let queries = &shop.fixture.stores.queries;
    let all = read_all(|after| queries.points_entries(ann, after, 3), |entry| entry.seq).await;
    assert_eq!(all.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert!(all.iter().all(|entry| entry.user == ann && entry.points == PRICE_R * 5 / 100));
    shop.close().await;
}

pub async fn reservations_and_payments_are_paged(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let ann = user();
    let mut bought = Vec::new();
    for number in 1..=4 {
        bought.push(shop.buy(ann, &[number]).await);
        shop.buy(user(), &[10 + number]).await;
    }
    // The limit is used up on this date, so there are holds of another one between.
    for number in 1..=3 {
        shop.one(build::hold(ann, &format!("h{number}"), shop.other_date, &[number])).await;
    }
    let queries = &shop.fixture.stores.queries;
    let reservations = read_all(|after| queries.reservations(ann, after, 3), |reservation| reservation.id).await;
    assert_eq!(reservations.len(), 7);
    assert!(reservations.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    assert_eq!(reservations[6], bought[0].1);
    assert!(reservations[..3].iter().all(|reservation| reservation.date.id == shop.other_date));
    let payments = read_all(|after| queries.payments(ann, after, 3), |row| row.payment.id).await;
    let expected: Vec<_> = bought.into_iter().rev().collect();
    let payments: Vec<_> = payments.into_iter().map(|row| (row.payment, row.reservation)).collect();
    assert_eq!(payments, expected);
    shop.close().await;
}

pub async fn other_users_things_are_not_there(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let (ann, ben) = (user(), user());
    let (payment, reservation) = shop.buy(ann, &[1]).await;
    shop.hold(ann, &[2]).await;
    let queries = &shop.fixture.stores.queries;
    assert!(queries.reservation(ann, reservation.id).await.expect("a reservation").is_some());
    assert!(queries.reservation(ben, reservation.id).await.expect("none").is_none());
    assert!(queries.payment(ann, payment.id).await.expect("a payment").is_some());
    assert!(queries.payment(ben, payment.id).await.expect("none").is_none());
    assert!(queries.reservation(ann, build::fresh()).await.expect("none").is_none());
    assert!(queries.payment(ann, build::fresh()).await.expect("none").is_none());
    assert!(queries.reservations(ben, None, 10).await.expect("a page").items.is_empty());
    assert!(queries.payments(ben, None, 10).await.expect("a page").items.is_empty());
    assert!(queries.live_holds(ben, shop.concert).await.expect("live holds").is_empty());
    assert_eq!(queries.live_holds(ann, shop.concert).await.expect("live holds").len(), 1);
    assert!(queries.live_holds(ann, build::fresh()).await.expect("live holds").is_empty());
    assert_eq!(queries.wallet(ben).await.expect("a wallet"), crate::WalletRow::default());
    assert_eq!(queries.revenue(build::fresh()).await.expect("revenue"), 0);
    shop.close().await;
}

pub async fn outbox_keeps_each_seats_order_and_deletes_by_id(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let outbox = &shop.fixture.stores.outbox;
    for number in 1..=8 {
        let ann = user();
        let hold = build::hold(ann, "h", shop.date, &[number, 30 + number]);
        let held = ReservationId(hold.fresh.subject);
        let pay = build::pay(ann, "p", held, 0);
        let refund = build::refund(ann, "r", pay.fresh.subject.into());
        shop.run(vec![build::charge(ann, "c", 3 * PRICE_R), hold]).await;
        let replies = shop.run(vec![pay, refund]).await;
        assert!(paid(&replies[1]).0.refund.is_some());
    }
    let mut by_seat: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    let rows = shop.outbox().await;
    for row in &rows {
        assert_eq!(row.shard, row.event.shard());
        if let Event::Seat { seat, .. } = row.event {
            by_seat.entry(seat).or_default().push(row.event.kind());
        }
    }
    assert_eq!(by_seat.len(), 16);
    for (seat, events) in by_seat {
        assert_eq!(events, ["reservation.held", "reservation.confirmed", "reservation.cancelled"], "seat {seat}");
    }
    let mut total = 0;
    for shard in 0..OUTBOX_SHARDS {
        let all = outbox.unsent(shard, 1_000).await.expect("the outbox");
        total += all.len();
        assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
        let first = outbox.unsent(shard, 2).await.expect("the outbox");
        assert_eq!(first, all[..all.len().min(2)], "bounded, oldest first");
        // The first stays, the second goes: deletion is by id and not up to one.
        if let [_, second, ..] = all.as_slice() {
            outbox.sent(shard, vec![second.id]).await.expect("sent");
            outbox.sent(shard, vec![second.id]).await.expect("sending again is harmless");
            let rest = outbox.unsent(shard, 1_000).await.expect("the outbox");
            assert_eq!(rest.len(), all.len() - 1);
            assert!(rest[0] == all[0] && !rest.contains(second));
        }
        // As many rows as ids between the first and the last, and not the same ones.
        if let [_, second, third, fourth, ..] = all.as_slice() {
            outbox.sent(shard, vec![second.id, fourth.id]).await.expect("sent");
            let rest = outbox.unsent(shard, 1_000).await.expect("the outbox");
            assert!(rest.contains(third) && !rest.contains(fourth), "what was not sent stays");
        }
        outbox.sent(shard, all.iter().map(|row| row.id).collect()).await.expect("sent");
        assert!(outbox.unsent(shard, 1_000).await.expect("the outbox").is_empty());
        // Ids go on ascending over an emptied shard.
        if let Some(last) = all.last() {
            assert!(rows.iter().filter(|row| row.shard == shard).all(|row| row.id <= last.id));
        }
    }
    assert_eq!(total, rows.len());
    shop.close().await;
}

pub async fn outbox_rows_are_set_aside_until_they_are_taken(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let outbox = &shop.fixture.stores.outbox;
    let ann = user();
    shop.run((0..4).map(|n| build::charge(ann, &format!("c{n}"), 5)).collect()).await;
    let all = shop.outbox().await;
    let [first, second, third, fourth] = all.as_slice() else { panic!("an event a charge: {all:?}") };
    let shard = first.shard;
    let unsent = async || outbox.unsent(shard, 10).await.expect("the outbox");
    let aside = async |limit| outbox.aside(shard, limit).await.expect("what was set aside");
    assert!(aside(10).await.is_empty());
    for _ in 0..2 {
        outbox.set_aside(shard, vec![third.id, first.id]).await.expect("set aside; again is harmless");
        assert_eq!(unsent().await, [second.clone(), fourth.clone()], "those behind it go on");
        assert_eq!(aside(10).await, [first.clone(), third.clone()], "whole, oldest first");
    }
    assert_eq!(aside(1).await, std::slice::from_ref(first));
    assert_eq!(outbox.backlog().await.expect("a count").count, 2, "what was set aside was sent");
    for _ in 0..2 {
        outbox.taken(shard, vec![first.id, second.id]).await.expect("taken; again is harmless");
        assert_eq!((unsent().await.len(), aside(10).await), (2, vec![third.clone()]));
    }
    shop.close().await;
}

pub async fn secrets_are_made_once(fixture: Fixture) {
    let secrets = Arc::clone(&fixture.stores.secrets);
    let mut tasks = JoinSet::new();
    for at in 0..50u8 {
        let secrets = Arc::clone(&secrets);
        tasks.spawn(async move { secrets.secret("queue".to_owned(), vec![at; 32]).await.expect("a secret") });
    }
    let all: HashSet<Vec<u8>> = tasks.join_all().await.into_iter().collect();
    assert_eq!(all.len(), 1, "each caller gets the same");
    let other = secrets.secret("bearer".to_owned(), vec![0, 255, 7]).await.expect("a secret");
    assert_eq!(other, [0, 255, 7]);
    let again = secrets.secret("bearer".to_owned(), vec![1]).await.expect("a secret");
    assert_eq!(again, other);
}

/// What is unsent is counted and has an age, and one relay alone has every shard.
pub async fn outbox_counts_what_waits_and_gives_a_lone_relay_every_shard(fixture: Fixture) {
    let shop = Shop::open(fixture).await;
    let outbox = shop.fixture.stores.outbox.clone();
    let (relay, lease) = (InstanceId(fresh::<Uuid>()), Duration::from_secs(5));
    for _ in 0..2 {
        assert_eq!(outbox.claim(relay, lease).await.expect("a claim"), (0..OUTBOX_SHARDS).collect::<Vec<_>>());
    }
    outbox.release(relay).await.expect("given back");
    let other = InstanceId(fresh::<Uuid>());
    assert_eq!(outbox.claim(other, lease).await.expect("a claim").len(), OUTBOX_SHARDS as usize);
    assert_eq!(outbox.backlog().await.expect("a count"), Unsent::default());
    shop.run((0..3).map(|n| build::charge(user(), &format!("c{n}"), 5)).collect()).await;
    (shop.fixture.advance)(TimeDelta::seconds(90));
    shop.run(vec![build::charge(user(), "later", 5)]).await;
    let unsent = outbox.backlog().await.expect("a count");
    assert!(unsent.count == 4 && (90..600).contains(&unsent.oldest.as_secs()), "{unsent:?}");
    for row in shop.outbox().await {
        outbox.sent(row.shard, vec![row.id]).await.expect("sent");
    }
    assert_eq!(outbox.backlog().await.expect("a count"), Unsent::default());
}
