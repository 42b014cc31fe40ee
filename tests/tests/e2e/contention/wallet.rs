//! One hot wallet.

use super::{Site, is_slow};
use boxoffice_tests::at_once;
use serde_json::json;

const CALLERS: usize = 100;
const FUNDS: i64 = 10_000_000;
const CHARGE: i64 = 7;
const USE: i64 = 5;

/// `POST /api/v1/wallet/charges` and `POST /api/v1/wallet/uses` by a hundred callers over all instances, each with its
/// own keys: the balance is the sum of what was answered (I2). All is applied, unless the strategy refuses.
pub(super) async fn charges_and_uses_are_all_applied(site: &Site) {
    let [_, strategy, _] = site.stage.strategies;
    // 3,000 of each; 600 with a strategy that is slow on one hot row.
    let rounds = if is_slow(strategy) { 6 } else { 30 };
    // Without patience: refusals are counted.
    let owner = site.server().person().await;
    owner.charge(FUNDS).await;
    let callers = (0..CALLERS).map(|caller| {
        let owner = site.at(caller, &owner);
        async move {
            let (mut charged, mut used, mut refused) = (0, 0, 0);
            for n in 0..rounds {
                let charge = owner.post("/wallet/charges", &format!("c-{caller}-{n}"), json!({ "amount": CHARGE })).await;
                let spent = owner.post("/wallet/uses", &format!("u-{caller}-{n}"), json!({ "amount": USE, "memo": "tea" })).await;
                for (answer, applied) in [(charge, &mut charged), (spent, &mut used)] {
                    match (answer.status, answer.code()) {
                        (201, _) => *applied += 1,
                        (409, "busy") => refused += 1,
                        _ => panic!("{answer:?}"),
                    }
                }
            }
            (charged, used, refused)
        }
    });
    let counts = at_once(callers).await;
    let sum = |of: fn(&(i64, i64, i64)) -> i64| counts.iter().map(of).sum::<i64>();
    let (charged, used, refused) = (sum(|it| it.0), sum(|it| it.1), sum(|it| it.2));
    let sent = (2 * CALLERS * rounds) as i64;
    println!("{strategy}: {} of {sent} applied, {refused} refused", charged + used);
    assert_eq!(charged + used + refused, sent);
    if strategy != "simple" {
        assert_eq!(refused, 0, "a strategy that waits refuses nothing");
    }
    assert!(charged > 0 && used > 0);
    for n in 0..site.servers.len() {
        assert_eq!(site.at(n, &owner).balance().await, FUNDS + charged * CHARGE - used * USE, "instance {n}");
    }
    let newest = owner.get("/wallet/entries?limit=1").await.expect(200);
    assert_eq!(newest.number("items/0/balance"), FUNDS + charged * CHARGE - used * USE);
}
