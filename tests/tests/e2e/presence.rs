//! A buyer who was connected and is gone loses turn and holds; a buyer who only polls never does.

use boxoffice_domain::ConcertId;
use boxoffice_domain::waiting::INSTANCE_REPORTS_S;
use boxoffice_tests::{Kind, Person, Process, Server, Setup, at_once, eventually, seats};
use tokio::io::AsyncWriteExt as _;

/// The clock is moved in steps shorter than the time after which an instance without a report counts as lost.
const STEP_S: i64 = 6;

async fn time_passes(servers: &[Server], concert: &str, seconds: i64) {
    let concert = ConcertId(concert.parse().unwrap());
    for _ in 0..seconds.div_euclid(STEP_S) + 1 {
        // They share the clock.
        servers[0].advance(STEP_S);
        for server in servers.iter().filter(|server| server.running.stats.websockets.get() > 0) {
            let room = &server.running.room;
            let soon = chrono::TimeDelta::seconds(INSTANCE_REPORTS_S);
            eventually("a report of the instance", async || {
                room.look(concert, |room_now, now| room_now.heard_at(room.instance()).is_some_and(|at| now - at < soon))
                    .unwrap()
                    .then_some(())
            })
            .await;
        }
    }
}

async fn is_present(servers: &[Server]) {
    eventually("a listener", async || servers.iter().any(|server| server.running.stats.websockets.get() > 0).then_some(())).await;
}

async fn holds(person: &mut Person, concert: &str, date: &str, seat: u32) -> String {
    person.enter(concert).await;
    person.hold(&format!("h{seat}"), date, &[seat]).await.expect(201).text("id")
}

async fn reservation(person: &Person, id: &str) -> String {
    person.get(&format!("/reservations/{id}")).await.expect(200).text("status")
}

async fn buyers_who_are_gone_lose_turn_and_holds(setup: Setup) {
    let setup = setup.with("presence.grace_s=30").with("admission.active_ttl_s=36000").with("hold.ttl_s=36000");
    let servers = setup.start_many(2).await;
    let (concert, date) = servers[0].one_date(seats(50, 1_000)).await;
    servers[1].shows(&concert).await;
    let mut people = Vec::new();
    for seat in 1..=4 {
        let mut person = servers[0].person().await;
        people.push((holds(&mut person, &concert, &date, seat).await, person));
    }
    let [(gone_held, gone), (moved_held, moved), (polls_held, polls), (paid_held, paid)] = &mut people[..] else { unreachable!() };
    paid.charge(10_000).await;
    let first = (gone.listen(Kind::WebSocket).await, moved.listen(Kind::WebSocket).await, paid.listen(Kind::WebSocket).await);
    is_present(&servers).await;
    time_passes(&servers, &concert, 40).await;
    assert_eq!((gone.status().await.text("status"), moved.status().await.text("status")), ("active".into(), "active".into()));
    paid.pay("p", paid_held).await.expect(201);
    drop(first);
    let elsewhere = moved.clone().at(&servers[1].base).listen(Kind::WebSocket).await;
    eventually("only the second instance has a listener", async || {
        (servers[0].running.stats.websockets.get() == 0 && servers[1].running.stats.websockets.get() == 1).then_some(())
    })
    .await;
    time_passes(&servers, &concert, 48).await;
    eventually("the hold comes back", async || (reservation(gone, gone_held).await == "released").then_some(())).await;
    assert_eq!(gone.status().await.text("status"), "expired");
    assert_eq!((reservation(moved, moved_held).await, moved.status().await.text("status")), ("held".into(), "active".into()));
    assert_eq!((reservation(polls, polls_held).await, polls.status().await.text("status")), ("held".into(), "active".into()));
    assert_eq!(reservation(paid, paid_held).await, "confirmed", "a payment in time is not undone");
    let abandoned: u64 = servers.iter().map(|server| server.running.stats.abandoned.get()).sum();
    assert_eq!(abandoned, 1, "once, over both instances");
    let mut next = servers[1].person().await;
    next.enter(&concert).await;
    next.hold("again", &date, &[1]).await.expect(201);
    drop(elsewhere);
    servers[0].audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_who_are_gone_lose_turn_and_holds_on_postgres() {
    buyers_who_are_gone_lose_turn_and_holds(Setup::default().on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_who_are_gone_lose_turn_and_holds_on_redis() {
    buyers_who_are_gone_lose_turn_and_holds(Setup::default().on_postgres().await.with("queue.backend=redis")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_away_keep_a_place() {
    let server = Setup::default().with("admission.max_active=1").with("admission.active_ttl_s=36000").start().await;
    let (concert, _) = server.one_date(seats(50, 1_000)).await;
    let (mut first, mut waits) = (server.person().await, server.person().await);
    first.enter(&concert).await;
    waits.join(&concert).await.expect(201);
    let listener = waits.listen(Kind::WebSocket).await;
    let servers = [server];
    time_passes(&servers, &concert, 12).await;
    drop(listener);
    eventually("gone", async || (servers[0].running.stats.websockets.get() == 0).then_some(())).await;
    time_passes(&servers, &concert, 600).await;
    let stands = waits.status().await;
    assert_eq!((stands.text("status"), stands.number("place"), stands.number("ahead")), ("waiting".into(), 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_killed_instance_count_as_gone() {
    let setup =
        Setup::default().on_postgres().await.with("presence.grace_s=1").with("admission.active_ttl_s=36000").with("hold.ttl_s=36000");
    let settings: Vec<_> = setup.settings().to_vec();
    let servers = setup.start_many(1).await;
    let (concert, date) = servers[0].one_date(seats(50, 1_000)).await;
    let mut person = servers[0].person().await;
    let held = holds(&mut person, &concert, &date, 1).await;
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let process = Process::start(&servers[0].database(), &settings).await.unwrap();
    let _listener = eventually("the other instance knows the entry", async || {
        let listener = person.clone().at(&process.base).try_listen(Kind::WebSocket, &[]).await.ok()?;
        Some(listener)
    })
    .await;
    let room = ConcertId(concert.parse().unwrap());
    // From then on its connection is missed.
    let entry = boxoffice_domain::QueueEntryId(person.status().await.text("entry_id").parse().unwrap());
    eventually("the room knows of the connection", async || {
        servers[0].running.room.look(room, |room, _| room.is_connected(entry)).unwrap().then_some(())
    })
    .await;
    process.kill().await.unwrap();
    servers[0].advance(boxoffice_domain::waiting::INSTANCE_LOST_S + 5);
    eventually("the hold comes back", async || (reservation(&person, &held).await == "released").then_some(())).await;
    assert_eq!(person.status().await.text("status"), "expired");
}

/// As when a mobile network fails: a few transactions give back all the holds, and promotion goes on. There are 250 people,
/// or as many as `BOXOFFICE_TEST_GONE` says; each is two open files of this process.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_failure_gives_seats_back_in_batches_and_others_get_turns() {
    const NEXT: usize = 20;
    let gone: u32 = std::env::var("BOXOFFICE_TEST_GONE").map_or(250, |count| count.parse().expect("a number"));
    let max_active = format!("admission.max_active={gone}");
    let setup = Setup::default().on_postgres().await.with("queue.backend=redis").with(&max_active);
    let setup = setup.with("presence.grace_s=30").with("admission.active_ttl_s=36000").with("hold.ttl_s=36000");
    let servers = setup.start_many(1).await;
    let (concert, date) = servers[0].one_date(seats(gone, 1_000)).await;
    let people = servers[0].people_with_a_turn(gone as usize, &concert).await;
    let listeners = at_once(people.iter().cloned().zip(1..).map(|(person, seat)| {
        let date = date.clone();
        async move {
            person.hold("h", &date, &[seat]).await.expect(201);
            person.listen(Kind::WebSocket).await
        }
    }))
    .await;
    let mut next = Vec::new();
    for _ in 0..NEXT {
        let mut person = servers[0].person().await;
        person.join(&concert).await.expect(201);
        next.push(person);
    }
    // One connection stays, so that `time_passes` waits for the reports of the instance.
    let _waits = next[0].listen(Kind::WebSocket).await;
    let websockets = &servers[0].running.stats.websockets;
    eventually("all are there", async || (websockets.get() == u64::from(gone) + 1).then_some(())).await;
    time_passes(&servers, &concert, 12).await;
    drop(listeners);
    eventually("all are gone", async || (websockets.get() == 1).then_some(())).await;
    let before = servers[0].running.traffic.counts().commits;
    time_passes(&servers, &concert, 48).await;
    let began = std::time::Instant::now();
    let date_id = boxoffice_domain::DateId(date.parse().unwrap());
    eventually("the seats come back", async || {
        (servers[0].running.seats.counts(date_id).await.unwrap().available == u64::from(gone)).then_some(())
    })
    .await;
    let commits = servers[0].running.traffic.counts().commits - before;
    let took = began.elapsed();
    println!("{gone} holds came back within {took:?} and {commits} commits, including those of the outbox and of the mirror");
    assert!(commits < u64::from(gone), "fewer than one for each: {commits}");
    assert_eq!(servers[0].running.stats.abandoned.get(), u64::from(gone));
    for person in &mut next {
        person.await_turn().await;
    }
    servers[0].audit().await;
}

/// As when the network is cut or the machine sleeps: the connection is never closed, and no heartbeat is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_answers_no_heartbeats_is_gone() {
    let setup = Setup::default().with("presence.grace_s=30").with("admission.active_ttl_s=36000").with("hold.ttl_s=36000");
    let servers = [setup.start().await];
    let (concert, date) = servers[0].one_date(seats(50, 1_000)).await;
    let (mut cut, mut there) = (servers[0].person().await, servers[0].person().await);
    let (cut_held, there_held) = (holds(&mut cut, &concert, &date, 1).await, holds(&mut there, &concert, &date, 2).await);
    let _answers = there.listen(Kind::WebSocket).await;
    let (address, token) = (servers[0].base.trim_start_matches("http://"), cut.queue_token.clone().unwrap());
    let mut wire = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/queue/socket?token={token} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    wire.write_all(request.as_bytes()).await.unwrap();
    eventually("both are there", async || (servers[0].running.stats.websockets.get() == 2).then_some(())).await;
    // Three heartbeats, of up to thirty seconds.
    for _ in 0..120 {
        if servers[0].running.stats.websockets.get() < 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(servers[0].running.stats.websockets.get(), 1, "the other one answers");
    time_passes(&servers, &concert, 48).await;
    eventually("the hold comes back", async || (reservation(&cut, &cut_held).await == "released").then_some(())).await;
    assert_eq!(reservation(&there, &there_held).await, "held");
}
