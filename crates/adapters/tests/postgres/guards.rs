//! What the ledger checks although its locks should make it so.

use super::support::{Place, transact};
use boxoffice_domain::Decision;
use boxoffice_ports::Guard;
use boxoffice_ports::contract::build::{charge, extend, hold, pay, refund, spend, user};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_goes_through_under_both_guards() {
    for guard in [Guard::RowLock, Guard::Version] {
        let place = Place::new();
        let store = place.open().await;
        let date = place.date(10).await;
        let (ann, bob) = (user(), user());
        let (one, two) = (hold(ann, "h1", date, &[1, 2]), hold(bob, "h2", date, &[3]));
        let (first, second) = (one.fresh.subject.into(), two.fresh.subject.into());
        let paid = pay(ann, "p", first, 0);
        let payment = paid.fresh.subject.into();
        for requests in [
            vec![charge(ann, "c", 1_000), charge(bob, "c", 1_000)],
            vec![one, two, spend(ann, "u", 5)],
            vec![paid, extend(bob, "e", second)],
            vec![refund(ann, "r", payment), charge(bob, "c2", 1)],
        ] {
            let committed = transact(&store, requests, guard).await.expect("committed");
            assert!(committed.replies.iter().all(|reply| matches!(reply.decision, Decision::Done(_))), "{committed:?}");
        }
    }
}
