//! Readiness: which checks it shows, and when it is 503.

use boxoffice_ports::{MockUpkeep, MockWaitingRoom, RoomError, Tasks, WhenFailing};

use super::*;

#[actix_web::test]
async fn readiness_names_what_is_down() {
    let store_down = |parts: &mut Parts| {
        let mut upkeep = MockUpkeep::new();
        upkeep.expect_check().returning(|| Err(StoreError::Unavailable("disk I/O error at /secret".into())));
        parts.stores.upkeep = Arc::new(upkeep);
    };
    let room_down = |parts: &mut Parts| {
        let mut room = MockWaitingRoom::new();
        room.expect_ping().returning(|| Err(RoomError::Unavailable("connection refused".into())));
        parts.room = Arc::new(room);
    };
    for (what, app, expected) in [
        ("nothing", app().await, (200, true, true)),
        ("the store", app_with(store_down).await, (503, false, true)),
        ("the waiting room", app_with(room_down).await, (503, true, false)),
    ] {
        let ready = send(&app, request(Method::GET, "/health/ready")).await;
        let ok = |at: usize, name: &str| {
            let check = &ready.body["checks"][at];
            assert_eq!((&check["name"], check["detail"].is_null()), (&json!(name), check["ok"] == true), "{what}: {}", ready.body);
            check["ok"] == true
        };
        assert_eq!((ready.status, ok(0, "store"), ok(1, "queue")), expected, "{what}");
        assert!(!ready.body.to_string().contains("secret"), "the reason is only logged: {}", ready.body);
        assert_eq!(send(&app, request(Method::GET, "/health/live")).await.status, 200, "{what}");
    }
}

#[actix_web::test]
async fn readiness_names_the_servers_of_the_locks() {
    struct Nodes(usize);
    impl Probe for Nodes {
        fn name(&self) -> &'static str {
            "redlock"
        }

        fn check(&self) -> futures_util::future::BoxFuture<'_, Health> {
            Box::pin(async { Health::of_nodes(5, &["redis://a", "redis://b", "redis://c"][..self.0]) })
        }
    }
    for (down, status, ok) in [(0, 200, true), (2, 200, true), (3, 503, false)] {
        let app = app_with(|parts| parts.probes.push(Arc::new(Nodes(down)))).await;
        let ready = send(&app, request(Method::GET, "/health/ready")).await;
        let check = &ready.body["checks"][2];
        assert_eq!((ready.status, &check["name"], check["ok"] == true), (status, &json!("redlock"), ok), "{}", ready.body);
        assert_eq!(check["detail"].as_str().map(|detail| detail.contains("redis://b")), (down > 0).then_some(true), "{check}");
    }
}

#[actix_web::test]
async fn readiness_names_a_task_that_fails_again_and_again() {
    for (when_failing, status, ok) in [(WhenFailing::Impaired, 200, true), (WhenFailing::NotReady, 503, false)] {
        let app = app().await;
        let tasks: Arc<dyn Tasks> = app.tasks.clone();
        assert_eq!(send(&app, request(Method::GET, "/health/ready")).await.status, 200);
        let _kept = tasks.keep("relay.3", when_failing, || async { panic!("a defect") });
        let named = async {
            loop {
                let ready = send(&app, request(Method::GET, "/health/ready")).await;
                if let Some(check) =
                    ready.body["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == "task.relay.3"))
                {
                    return (ready.status, check["ok"] == true);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(5), named).await.unwrap(), (status, ok));
    }
}
