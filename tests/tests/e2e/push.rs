//! Streams of a queue: their frames agree with polling.

use crate::queue::admit;
use boxoffice_tests::{Answer, HANDSHAKE, Kind, Listener, Person, Server, Setup, eventually, seats};
use serde_json::{Value, json};

const KINDS: [Kind; 2] = [Kind::Sse, Kind::WebSocket];

async fn line(servers: &[Server], concert: &str, count: usize) -> Vec<Person> {
    let mut line = Vec::with_capacity(count);
    for at in 0..count {
        let mut person = servers[at % servers.len()].person().await;
        // A room may open a moment after its concert shows.
        eventually("the room is open", async || (person.join(concert).await.status == 201).then_some(())).await;
        line.push(person);
    }
    line
}

/// Waits until the frames agree with polling.
async fn agree(person: &mut Person, listener: &mut Listener) {
    let why = format!("{:?} agrees with polling", listener.standing);
    eventually(&why, async || {
        listener.catch_up();
        let polled = person.status().await;
        let standing = listener.standing.as_ref()?;
        let same =
            (standing.status.as_str(), standing.ahead.map(|ahead| ahead as i64)) == (&*polled.text("status"), polled.at("ahead").as_i64());
        same.then_some(())
    })
    .await;
}

/// `GET /api/v1/queue/stream`, `GET /api/v1/queue/socket`.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_users_own_frame_and_goes_on_with_shared_ones() {
    let server = Setup::default().with("admission.max_active=1").start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let mut line = line(std::slice::from_ref(&server), &concert, 4).await;
    for kind in KINDS {
        let mut listener = line[3].listen(kind).await;
        let first = listener.next().await.unwrap();
        let mut polled = line[3].status().await.body;
        assert!(polled.as_object_mut().unwrap().remove("token").is_some());
        for (key, value) in polled.as_object().unwrap() {
            assert_eq!(&first[key], value, "{key}, {kind:?}");
        }
        assert_eq!((&first["type"], first.get("token")), (&json!("queue"), None));
        assert!(first["seq"].is_u64() && first["admitted"].is_u64(), "{first}");
    }
    let mut events = line[3].listen(Kind::Sse).await;
    let mut socket = line[3].listen(Kind::WebSocket).await;
    for listener in [&mut events, &mut socket] {
        listener.until("paused").await;
        listener.until("position").await;
    }
    line[1].delete("/queue").await.expect(204);
    for listener in [&mut events, &mut socket] {
        let frame = loop {
            let frame = listener.until("position").await;
            if frame["left"] != json!([]) {
                break frame;
            }
        };
        assert_eq!((&frame["left"], &frame["admitted"]), (&json!([2]), &json!(0)));
        assert!(frame["admitted_per_s"].is_number(), "{frame}");
        assert_eq!(listener.standing.as_ref().unwrap().ahead, Some(2));
    }
    admit(&server, &concert, json!({ "mode": "running" })).await.expect(200);
    events.until("running").await;
    line[0].await_turn().await;
    line[0].delete("/queue").await.expect(204);
    line[2].await_turn().await;
    line[2].delete("/queue").await.expect(204);
    for listener in [&mut events, &mut socket] {
        let frame = listener.until("active").await;
        assert!(frame.get("token").is_none());
    }
    line[3].await_turn().await;
    line[3].delete("/queue").await.expect(204);
    assert_eq!((events.to_the_end().await, socket.to_the_end().await), (None, Some(1_000)));
    assert_eq!(socket.standing.as_ref().unwrap().status, "left");
    let mut late = line[3].listen(Kind::WebSocket).await;
    assert_eq!(late.next().await.unwrap()["status"], "left", "an entry that has ended gets one frame");
    assert_eq!(late.to_the_end().await, Some(1_000));
}

/// `GET /api/v1/queue/stream`, `GET /api/v1/queue/socket`.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_refused_for_each_fault() {
    let server = Setup::default().with("http.connections_per_user=2").start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    let mut person = server.person().await;
    person.join(&concert).await.expect(201);
    let token = person.queue_token.clone().unwrap();
    let refused = async |path: &str, headers: &[(&str, &str)]| {
        let (status, body) = Listener::open(&server.base, &format!("/api/v1/queue/{path}"), headers).await.expect_err(path);
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let forged = format!("{}A", &token[..token.len() - 1]);
    assert_eq!(refused("stream", &[]).await, (403, "queue_token_required".into()));
    assert_eq!(refused("socket", &HANDSHAKE).await, (403, "queue_token_required".into()));
    assert_eq!(refused(&format!("stream?token={}", forged.replace("AA", "BB")), &[]).await, (403, "queue_token_invalid".into()));
    assert_eq!(refused(&format!("stream?token={token}"), &[("Queue-Token", &token)]).await, (403, "queue_token_invalid".into()));
    assert_eq!(refused(&format!("stream?token={token}&more=1"), &[]).await, (400, "invalid_request".into()));
    assert_eq!(refused(&format!("socket?token={token}"), &[]).await, (400, "invalid_request".into()));
    let old: Vec<_> = HANDSHAKE.iter().map(|(name, value)| if value == &"13" { (*name, "8") } else { (*name, *value) }).collect();
    assert_eq!(refused(&format!("socket?token={token}"), &old).await, (400, "invalid_request".into()));
    let open = (person.listen(Kind::Sse).await, person.listen(Kind::WebSocket).await);
    for kind in KINDS {
        let (status, body) = person.try_listen(kind, &[]).await.expect_err("a third");
        assert_eq!((status, body["code"].as_str()), (429, Some("too_many_requests")));
    }
    drop(open);
    eventually("room for another", async || person.try_listen(Kind::Sse, &[]).await.ok()).await;
}

/// `GET /api/v1/queue/stream` with `Last-Event-ID`.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_resumed_where_it_was_lost() {
    let server = Server::start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let mut line = line(std::slice::from_ref(&server), &concert, 5).await;
    let mut stays = line[4].listen(Kind::Sse).await;
    let mut lost = line[4].listen(Kind::Sse).await;
    lost.until("position").await;
    let standing = lost.standing.clone().unwrap();
    drop(lost);
    line[0].delete("/queue").await.expect(204);
    while stays.standing.as_ref().is_none_or(|standing| standing.ahead != Some(3)) {
        stays.next().await.unwrap();
    }
    let mut resumed = line[4].try_listen(Kind::Sse, &[("Last-Event-ID", &standing.seq.to_string())]).await.unwrap();
    resumed.standing = Some(standing);
    assert_eq!(resumed.next().await.unwrap()["type"], "position", "a resumed stream begins with the frames that were missed");
    agree(&mut line[4], &mut resumed).await;
    let mut anew = line[4].try_listen(Kind::Sse, &[("Last-Event-ID", "12")]).await.unwrap();
    assert_eq!(anew.next().await.unwrap()["type"], "queue", "a stream that cannot be resumed begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_closed_with_a_time_to_come_back_when_the_server_stops() {
    let server = Server::start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    let mut person = server.person().await;
    person.join(&concert).await.expect(201);
    let (mut events, mut socket) = (person.listen(Kind::Sse).await, person.listen(Kind::WebSocket).await);
    events.next().await;
    assert!(events.retry_ms().is_some(), "a stream carries how long to wait before it is opened again");
    let began = tokio::time::Instant::now();
    server.running.stop().await;
    assert_eq!((events.to_the_end().await, socket.to_the_end().await), (None, Some(1_001)));
    assert!(socket.retry_ms().is_some(), "and so does the close of a socket");
    assert!(began.elapsed() < boxoffice_tests::PATIENCE);
}

async fn polling_and_streams_agree(setup: Setup) {
    let servers = setup.with("admission.max_active=3").start_many(2).await;
    let (concert, _) = servers[0].one_date(seats(500, 1_000)).await;
    servers[1].shows(&concert).await;
    let mut line = line(&servers, &concert, 16).await;
    let mut listeners = Vec::new();
    for (at, person) in line.iter().enumerate() {
        // Each has a stream at one instance and a socket at the other.
        let elsewhere = person.clone().at(&servers[(at + 1) % 2].base);
        listeners.push([person.listen(Kind::Sse).await, elsewhere.listen(Kind::WebSocket).await]);
    }
    let all_agree = async |line: &mut Vec<Person>, listeners: &mut Vec<[Listener; 2]>| {
        for (person, both) in line.iter_mut().zip(listeners) {
            for listener in both.iter_mut() {
                agree(person, listener).await;
            }
        }
    };
    all_agree(&mut line, &mut listeners).await;
    for step in 0..4 {
        match step {
            0 => drop(admit(&servers[0], &concert, json!({ "max_active": 5 })).await.expect(200)),
            1 => drop(line[9].delete("/queue").await.expect(204)),
            2 => {
                line[0].delete("/queue").await.expect(204);
                line[12].delete("/queue").await.expect(204);
            }
            _ => drop(admit(&servers[1], &concert, json!({ "max_active": 8 })).await.expect(200)),
        }
        all_agree(&mut line, &mut listeners).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_and_streams_agree_over_instances_on_postgres() {
    polling_and_streams_agree(Setup::default().on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_and_streams_agree_over_instances_on_redis() {
    polling_and_streams_agree(Setup::default().on_postgres().await.with("queue.backend=redis")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_moves_by_its_own_share() {
    let server = Setup::default().with("admission.max_active=2").with(r#"admission.lanes=[{name="fans", share=0.5}]"#).start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    admit(&server, &concert, json!({ "mode": "paused" })).await.expect(200);
    let mut line = line(std::slice::from_ref(&server), &concert, 3).await;
    let (mut fan, mut stranger) = (server.person_in("fans").await, server.person_in("unknown").await);
    assert_eq!(fan.join(&concert).await.expect(201).number("ahead"), 0, "first of its lane");
    assert_eq!(stranger.join(&concert).await.expect(201).number("ahead"), 3, "in the general lane");
    let mut listener = line[1].listen(Kind::WebSocket).await;
    admit(&server, &concert, json!({ "mode": "running" })).await.expect(200);
    fan.await_turn().await;
    line[0].await_turn().await;
    assert_eq!(line[1].status().await.text("status"), "waiting", "two turns, one for each lane");
    agree(&mut line[1], &mut listener).await;
    let wrong = json!({ "name": "x", "lane": "x".repeat(65) });
    let refused = Answer::to(server.http().post(format!("{}/api/v1/dev/users", server.base)).json(&wrong)).await;
    assert_eq!(refused.expect_problem(400, "invalid_request").text("errors/0/field"), "lane");
}

/// `POST /api/v1/queue/extend`.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_extended_as_often_as_configured() {
    let server = Setup::default().with("admission.max_active=1").with("admission.extensions_max=1").start().await;
    let (concert, date) = server.one_date(seats(50, 1_000)).await;
    let mut line = line(std::slice::from_ref(&server), &concert, 2).await;
    line[0].await_turn().await;
    let mut listener = line[0].listen(Kind::Sse).await;
    listener.next().await.unwrap();
    let before = line[0].status().await;
    let waiting = line[1].post("/queue/extend", "unused", Value::Null).await.expect_problem(403, "queue_waiting");
    assert_eq!(waiting.text("queue/status"), "waiting");
    server.advance(100);
    let longer = line[0].post("/queue/extend", "unused", Value::Null).await.expect(200);
    assert!(longer.text("active_until") > before.text("active_until"), "{longer:?}");
    let frame = listener.until("queue").await;
    assert_eq!(frame["active_until"], longer.text("active_until"));
    let again = line[0].post("/queue/extend", "unused", Value::Null).await.expect(200);
    assert_eq!(again.text("token"), longer.text("token"), "the same request, sent again, extends nothing");
    line[0].queue_token = Some(longer.text("token"));
    line[0].post("/queue/extend", "unused", Value::Null).await.expect_problem(422, "extension_limit_exceeded");
    server.advance(550);
    line[0].hold("h", &date, &[1]).await.expect(201);
    server.advance(100);
    line[0].post("/queue/extend", "unused", Value::Null).await.expect_problem(403, "queue_token_expired");
}
