//! More commands than can be served, and a hundred thousand holds that end together.

use boxoffice_domain::{Actor, Batch, Command, CommandId, FreshIds, Request, SeatState, UserId};
use boxoffice_ports::{Deadline, Guard, Ids};
use boxoffice_tests::{Answer, Setup, at_once, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_queue_the_answer_is_overloaded_and_the_key_stays_free() {
    let server = Setup::default().with("strategy.queue_max=2").with("strategy.batch_max=1").start().await;
    let owner = server.person().await;
    let charge = |n: usize| owner.writing("/wallet/charges", &format!("k{n}"), &json!({ "amount": 1 }));
    let answers = at_once((0..300).map(charge).map(Answer::to).collect::<Vec<_>>()).await;
    let refused: Vec<_> = (0..300).filter(|&n| answers[n].status == 503).collect();
    assert!(!refused.is_empty() && refused.len() < 300, "{} of 300 refused", refused.len());
    assert_eq!(owner.balance().await, 300 - refused.len() as i64, "what was refused had no effect, the rest had one each");
    for n in refused {
        let problem = answers[n].clone().expect_problem(503, "overloaded");
        assert!(problem.header("retry-after").is_some());
        assert!(!Answer::to(charge(n)).await.expect(201).is_replay());
    }
    assert_eq!(owner.balance().await, 300);
    server.audit().await;
}

const HOLDS: u32 = 100_000;

/// No hold outlives the sweep (I12).
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_holds_that_end_together_are_swept_beside_other_commands() {
    let server = Setup::default().with("hold.sweep_ms=1000").start().await;
    let (_, date) = server.one_date(boxoffice_tests::seats(HOLDS, 1_000)).await;
    let date: uuid::Uuid = date.parse().unwrap();
    let (ids, stores) = (boxoffice_adapters::clock::SystemIds, server.running.stores.clone());
    let policy = std::sync::Arc::new(boxoffice_app::config::Settings::defaults().unwrap().policy());
    let hold = |seat: u32| {
        let (user, fresh) = (UserId(ids.fresh()), ids.fresh());
        Request {
            command_id: CommandId(fresh),
            actor: Actor::User(user),
            fingerprint: None,
            fresh: FreshIds { subject: fresh, entry: fresh, points: [fresh; 2] },
            command: Command::HoldSeats { user, date: date.into(), count: 1, choices: vec![vec![seat]], best: false, last: true },
        }
    };
    for first in (1..=HOLDS).step_by(1_000) {
        let holds: Vec<_> = (first..first + 1_000).map(hold).collect();
        stores
            .ledger
            .transact(Batch::new(holds, policy.clone()), Guard::RowLock, Deadline::after(std::time::Duration::from_secs(30)))
            .await
            .unwrap();
    }
    let owner = server.person().await;
    server.advance(301);
    let mut charged = 0;
    eventually("all are swept", async || {
        owner.post("/wallet/charges", &format!("k{charged}"), json!({ "amount": 1 })).await.expect(201);
        charged += 1;
        stores.upkeep.due_holds(1).await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(charged > 1, "other commands are decided in between");
    let seats = stores.queries.seats(date.into()).await.unwrap();
    assert!(seats.iter().all(|row| row.seat.state == SeatState::Available));
    server.audit().await;
}
