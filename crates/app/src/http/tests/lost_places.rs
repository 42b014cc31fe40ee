//! Requests of entries that the room has lost, and leaving.

use boxoffice_domain::{Batch, IdempotencyKey};
use boxoffice_engine::HoldReturns;
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, MockQueries, MockWaitingRoom, StoredAnswer};

use super::*;

/// A room that has lost all entries, and restores one from its token's claim.
fn forgetful(restored: Option<QueueStatus>) -> MockWaitingRoom {
    let mut room = MockWaitingRoom::new();
    room.expect_place().returning(|_, _| Ok(None));
    room.expect_touch().returning(|_, _| Ok(None));
    room.expect_restore().times(1).returning(move |concert, claim| {
        assert_eq!((concert.0, claim.user.0, claim.place), (Uuid::from_u128(3), Uuid::from_u128(1), 1));
        Ok(restored.map(|status| Place {
            entry: claim.entry,
            user: claim.user,
            lane: claim.lane,
            status,
            arrival: claim.place,
            ahead: Some(0),
            active_until: claim.active_until,
            eta: None,
            chance: None,
            sale_starts_at: None,
            draw: None,
        }))
    });
    room
}

#[actix_web::test]
async fn a_place_that_the_room_has_lost_is_restored_from_its_token() {
    for (restored, shown) in [(Some(QueueStatus::Waiting), "waiting"), (Some(QueueStatus::Active), "active"), (None, "expired")] {
        let app = app_with(|parts| parts.room = Arc::new(forgetful(restored))).await;
        let until = (restored == Some(QueueStatus::Active)).then_some(60);
        let poll =
            request(Method::GET, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, until));
        let answer = send(&app, poll).await;
        assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some(shown)));
    }
    // Nothing is restored for a token that is not genuine.
    let app = app_with(|parts| {
        let mut room = MockWaitingRoom::new();
        room.expect_restore().never();
        parts.room = Arc::new(room);
    })
    .await;
    let forged = request(Method::GET, "/api/v1/queue").insert_header(bearer(&app, 2, false)).insert_header(queue_token(&app, 1, 3, None));
    assert_eq!(send(&app, forged).await.problem(), (403, "queue_token_invalid"));
}

#[actix_web::test]
async fn a_hold_and_leaving_restore_a_lost_place_first() {
    let hold = json!({"date_id": Uuid::from_u128(5), "seats": [1]}).to_string();
    let app = app_with(|parts| parts.room = Arc::new(forgetful(Some(QueueStatus::Waiting)))).await;
    let post = request(Method::POST, "/api/v1/reservations")
        .insert_header(bearer(&app, 1, false))
        .insert_header(queue_token(&app, 1, 3, Some(60)))
        .insert_header(("Content-Type", "application/json"))
        .insert_header(("Idempotency-Key", "k"))
        .set_payload(hold);
    let refused = send(&app, post).await;
    assert_eq!(refused.problem(), (403, "queue_waiting"), "there was no turn to restore");
    assert_eq!(refused.body["queue"]["status"], "waiting");

    let left = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = left.clone();
    let app = app_with(move |parts| {
        let mut room = forgetful(Some(QueueStatus::Waiting));
        room.expect_leave().returning(move |_, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        parts.room = Arc::new(room);
    })
    .await;
    let leave = request(Method::DELETE, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, None));
    assert_eq!(send(&app, leave).await.status, 204);
    assert_eq!(left.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A ledger that waits for a permit before each commit.
struct Gated(tokio::sync::Semaphore);

#[async_trait::async_trait]
impl Ledger for Gated {
    async fn transact(&self, _: Batch, _: Guard, _: Deadline) -> Result<Committed, LedgerError> {
        self.0.acquire().await.map_err(|closed| LedgerError::Unavailable(closed.into()))?.forget();
        Ok(Committed { replies: Vec::new(), seats: Vec::new() })
    }

    async fn reply(&self, _: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        Ok(None)
    }
}

#[actix_web::test]
async fn leaving_goes_on_when_its_caller_disconnects() {
    let (ledger, left) = (Arc::new(Gated(tokio::sync::Semaphore::new(0))), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let (gated, counted) = (ledger.clone(), left.clone());
    let app = app_with(move |parts| {
        let mut queries = MockQueries::new();
        queries.expect_live_holds().returning(|_, _| Ok(vec![Uuid::from_u128(7).into()]));
        parts.returns = HoldReturns::new(gated, Arc::new(queries), parts.ids.clone(), parts.policy.clone());
        let mut room = forgetful(Some(QueueStatus::Waiting));
        room.expect_leave().returning(move |_, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        parts.room = Arc::new(room);
    })
    .await;
    let leave = request(Method::DELETE, "/api/v1/queue").insert_header(bearer(&app, 1, false)).insert_header(queue_token(&app, 1, 3, None));
    let gone = tokio::time::timeout(std::time::Duration::from_millis(200), send(&app, leave)).await;
    assert!(gone.is_err(), "it waits for the holds");
    ledger.0.add_permits(1);
    let ended = async {
        while left.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("the place ends");
}
