//! The draw among buyers who join before a sale, checked from what is published: over HTTP, and with `boxoffice draw
//! verify`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use boxoffice_tests::{Answer, Person, Process, Server, Setup, at_once, concert, eventually, seats};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

const PEOPLE: usize = 200;
/// How long until the sale starts, seconds.
const START_S: i64 = 3_600;

/// A concert whose sale starts in an hour, and people who have joined before it, spread over `servers`.
async fn come_early(servers: &[Server], count: usize) -> (String, Vec<Person>) {
    let mut document = concert(&servers[0], "concert", &[seats(500, 1_000)]);
    document["sale_starts_at"] = json!(servers[0].time(START_S));
    let (concert, _) = servers[0].put_on_sale(&document).await;
    for server in servers {
        server.shows(&concert).await;
    }
    let mut people = Vec::with_capacity(count);
    for at in 0..count {
        people.push(servers[at % servers.len()].person().await);
    }
    let joined = at_once(people.into_iter().map(|mut person| {
        let concert = concert.clone();
        async move {
            let answer = person.join(&concert).await.expect(201);
            assert_eq!((answer.text("status"), answer.at("place")), ("pre_sale".to_owned(), &Value::Null));
            assert!(answer.at("draw/commitment").is_string() && answer.at("draw/seed").is_null(), "{answer:?}");
            person
        }
    }))
    .await;
    (concert, joined)
}

async fn draw(server: &Server, concert: &str) -> Answer {
    Answer::to(server.http().get(format!("{}/api/v1/concerts/{concert}/draw", server.base))).await.expect(200)
}

/// The draw keys of all pages of the list, in order.
async fn entries(server: &Server, concert: &str, limit: usize) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let url = format!("{}/api/v1/concerts/{concert}/draw/entries?limit={limit}{cursor}", server.base);
        let page = Answer::to(server.http().get(url)).await.expect(200);
        all.extend(page.at("items").as_array().unwrap().iter().map(|item| item["draw_key"].as_str().unwrap().to_owned()));
        match page.at("next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn verify(arguments: &[&str]) -> Output {
    let mut command = Command::new(Process::binary().unwrap());
    command.args(["draw", "verify", "--json"]).args(arguments).output().await.unwrap()
}

/// The server's places of `people` are those that `boxoffice draw verify` computes.
async fn places_are_as_recomputed(server: &Server, concert: &str, people: &mut [Person]) {
    let users: Vec<_> = people.iter().flat_map(|person| ["--user".to_owned(), person.id.clone()]).collect();
    let arguments: Vec<_> = [server.base.as_str(), concert].into_iter().chain(users.iter().map(String::as_str)).collect();
    let verified = verify(&arguments).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verified["verified"], &verified["entries"]), (&json!(true), &json!(people.len())));
    let listed = verified["places"].as_array().unwrap().iter();
    let recomputed: BTreeMap<_, _> = listed.map(|place| (place["of"].as_str().unwrap(), place["place"].as_i64().unwrap())).collect();
    for person in people {
        assert_eq!(person.status().await.number("place"), recomputed[person.id.as_str()]);
    }
}

fn tampered(file: &Path, published: &Value, tamper: impl FnOnce(&mut Value)) {
    let mut published = published.clone();
    tamper(&mut published);
    std::fs::write(file, published.to_string()).unwrap();
}

/// `GET /api/v1/concerts/{id}/draw`, `GET /api/v1/concerts/{id}/draw/entries`.
#[tokio::test(flavor = "multi_thread")]
async fn every_place_can_be_recomputed_over_two_instances_and_after_a_restart() {
    let setup = Setup::default().on_postgres().await.with("queue.backend=redis").with("admission.max_active=10");
    let mut servers = setup.start_many(2).await;
    let (concert, mut people) = come_early(&servers, PEOPLE).await;
    // Before the start there is the commitment, and nothing else.
    let before = draw(&servers[0], &concert).await;
    assert_eq!(before.text("algorithm"), "sha256-v1");
    assert!(["entries", "entries_hash", "beacon", "seed"].iter().all(|key| before.at(key).is_null()), "{before:?}");
    assert_eq!(entries(&servers[0], &concert, 50).await, [""; 0]);
    let early = verify(&[&servers[0].base, &concert]).await;
    assert!(!early.status.success() && String::from_utf8_lossy(&early.stderr).contains("seed"), "nothing can be verified yet");

    servers[0].advance(START_S + 1);
    for server in &servers {
        eventually("the draw", async || draw(server, &concert).await.at("seed").is_string().then_some(())).await;
    }
    let after = draw(&servers[0], &concert).await;
    assert_eq!(draw(&servers[1], &concert).await.body, after.body);
    assert_eq!((after.text("commitment"), after.number("entries")), (before.text("commitment"), PEOPLE as i64));
    let list = entries(&servers[0], &concert, 7).await;
    assert!(list.len() == PEOPLE && list.is_sorted(), "ascending, each once");
    assert_eq!(entries(&servers[1], &concert, 200).await, list);
    for wrong in ["cursor=AAAA", "limit=201", "page=2"] {
        let url = format!("{}/api/v1/concerts/{concert}/draw/entries?{wrong}", servers[0].base);
        Answer::to(servers[0].http().get(url)).await.expect_problem(400, "invalid_request");
    }
    for server in &servers {
        places_are_as_recomputed(server, &concert, &mut people).await;
    }

    // A saved draw can be verified later, unless it was tampered with.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draw.json");
    let name = file.to_str().unwrap();
    assert!(verify(&[&servers[0].base, &concert, "--save", name]).await.status.success());
    assert!(verify(&["--file", name, "--user", &people[0].id]).await.status.success());
    let published: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let one_less = |published: &mut Value| drop(published["entries"].as_array_mut().unwrap().pop());
    let other_seed = |published: &mut Value| published["draw"]["seed"] = json!("00".repeat(32));
    let other_key = |published: &mut Value| published["entries"][0]["draw_key"] = json!("00".repeat(32));
    type Tamper = fn(&mut Value);
    let tampers: [(&str, Tamper); 3] = [("entries:", one_less), ("commitment:", other_seed), ("entries_hash:", other_key)];
    for (named, tamper) in tampers {
        tampered(&file, &published, tamper);
        let refused = verify(&["--file", name]).await;
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && errors.contains(named), "{errors}");
    }

    let last = servers.pop().unwrap().restart().await;
    eventually("the draw", async || draw(&last, &concert).await.at("seed").is_string().then_some(())).await;
    let mut people: Vec<_> = people.into_iter().map(|person| person.at(&last.base)).collect();
    places_are_as_recomputed(&last, &concert, &mut people).await;
}

/// A beacon that answers 404 until the flag is set, and its pulse from then on.
async fn beacon() -> (String, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pulse/{{unix}}", listener.local_addr().unwrap());
    let is_out = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let pulse = is_out.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 2_048];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
            let unix = line.trim_start_matches("GET /pulse/").split(' ').next().unwrap_or_default().to_owned();
            let is_out = pulse.load(std::sync::atomic::Ordering::SeqCst);
            let (status, body) = if is_out { ("200 OK", format!("pulse of {unix}\n")) } else { ("404 Not Found", String::new()) };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            // It fails when the client has closed the connection.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, is_out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beacon_that_is_late_delays_the_draw_and_is_mixed_in() {
    let (url, is_out) = beacon().await;
    let servers = Setup::default().with(&format!("draw.beacon_url={url}")).start_many(1).await;
    let (concert, mut people) = come_early(&servers, 20).await;
    let server = &servers[0];
    server.advance(START_S + 1);
    eventually("the list is closed", async || draw(server, &concert).await.at("entries").is_i64().then_some(())).await;
    let ready = async || Answer::to(server.http().get(format!("{}/health/ready", server.base))).await.expect(200);
    let detail = eventually("readiness names the beacon", async || {
        let ready = ready().await;
        let checks = ready.at("checks").as_array().unwrap().clone();
        checks.iter().find(|check| check["name"] == "beacon").and_then(|check| check["detail"].as_str().map(str::to_owned))
    })
    .await;
    assert!(detail.contains("404"), "{detail}");
    assert_eq!(people[0].status().await.text("status"), "pre_sale");
    let closed = draw(server, &concert).await;
    assert!(closed.at("entries_hash").is_string() && closed.at("seed").is_null() && closed.at("beacon").is_null(), "{closed:?}");

    is_out.store(true, std::sync::atomic::Ordering::SeqCst);
    eventually("the draw", async || draw(server, &concert).await.at("seed").is_string().then_some(())).await;
    let drawn = draw(server, &concert).await;
    assert!(drawn.text("beacon").starts_with("pulse of 1") || drawn.text("beacon").starts_with("pulse of 2"), "{drawn:?}");
    assert_eq!(drawn.at("entries_hash"), closed.at("entries_hash"));
    places_are_as_recomputed(server, &concert, &mut people).await;
    assert!(ready().await.at("checks").as_array().unwrap().iter().all(|check| check["detail"].is_null()));
}
