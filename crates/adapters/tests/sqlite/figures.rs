//! Figures, printed and never asserted on: `cargo test --release -p boxoffice-adapters --test sqlite figures -- --ignored --nocapture`.

use super::support::Place;
use boxoffice_domain::{Batch, Request, UserId};
use boxoffice_ports::contract::build::{admission, charge, demo_plan, hold, policy, seats, user};
use boxoffice_ports::{Clock, Guard, Stores};
use std::sync::Arc;
use std::time::Instant;

/// Commands of each figure.
const COMMANDS: usize = 40_000;

/// Commands a second, one batch after the other.
async fn rate(stores: &Stores, what: &str, batch: usize, requests: Vec<Request>) {
    let (policy, count) = (Arc::new(policy()), requests.len());
    let batches: Vec<Batch> = requests.chunks(batch).map(|requests| Batch::new(requests, policy.clone())).collect();
    let start = Instant::now();
    for batch in batches {
        let replies = stores.ledger.transact(batch, Guard::RowLock).await.expect("committed").replies;
        assert!(replies.iter().all(|reply| !reply.replayed));
    }
    println!("{what:<32} batches of {batch:>4}: {:>8.0} a second", count as f64 / start.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn figures_of_the_ledger() {
    let place = Place::new();
    let stores = place.open().stores();
    for batch in [1, 16, 64, 256, 500] {
        let one = user();
        let count = if batch == 1 { 2_000 } else { COMMANDS };
        let requests = (0..count).map(|at| charge(one, &format!("one-{batch}-{at}"), 1)).collect();
        rate(&stores, "charges of one wallet", batch, requests).await;
    }
    for batch in [64, 500] {
        let users: Vec<UserId> = (0..1_000).map(|_| user()).collect();
        let requests = (0..COMMANDS).map(|at| charge(users[at % users.len()], &format!("many-{batch}-{at}"), 1)).collect();
        rate(&stores, "charges of 1,000 wallets", batch, requests).await;
    }
    let mut plan = demo_plan(place.clock.now());
    plan.dates[0].seats = vec![seats(1, COMMANDS as u32 * 2, "R", 100, Some("A"))];
    let start = Instant::now();
    let imported = stores.catalog.import(vec![plan.clone()], admission()).await.expect("imported");
    println!("import of {} seats: {:?}", COMMANDS * 2, start.elapsed());
    let start = Instant::now();
    stores.catalog.import(vec![plan], admission()).await.expect("imported");
    println!("the same again: {:?}", start.elapsed());
    let date = imported[0].dates[0].id;
    for (round, batch) in [64, 500].into_iter().enumerate() {
        let first = (round * COMMANDS) as u32 + 1;
        let requests = (first..first + COMMANDS as u32).map(|seat| hold(user(), "hold", date, &[seat])).collect();
        rate(&stores, "holds of one seat", batch, requests).await;
    }
    let start = Instant::now();
    stores.queries.seats(date).await.expect("seats");
    println!("{} seats read: {:?}", COMMANDS * 2, start.elapsed());
    let start = Instant::now();
    let report = stores.audit.audit(policy().max_seats_per_user).await.expect("audited");
    println!("audit of {:?}: {:?}", report.counted, start.elapsed());
    assert_eq!(report.breaches, []);
}
