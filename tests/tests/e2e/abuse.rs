//! Clients that stay connected without a request, announce more than they send, or do not read their answers: each costs
//! the server little, and other clients nothing.

use std::time::Duration;

use boxoffice_tests::{HANDSHAKE, PATIENCE, Person, Process, Server, Setup, at_once, eventually, seats};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A server in a process of its own, whose memory and processor time can be read.
struct Shop {
    _folder: TempDir,
    process: Process,
}

impl Shop {
    async fn open(set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder.path().join("boxoffice.db"), set).await.unwrap();
        Self { _folder: folder, process }
    }

    /// A person with a place in the queue of `concert`.
    async fn joined(&self, concert: &str) -> Person {
        let mut person = self.process.person(false).await;
        eventually("the room is open", async || (person.join(concert).await.status == 201).then_some(())).await;
        person
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        // A small buffer: the server soon cannot write what is not read.
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(self.process.base.trim_start_matches("http://").parse().unwrap()).await.unwrap()
    }

    /// How much its memory has grown since it was `before_kib`, MiB.
    fn grown_mib(&self, before_kib: u64) -> u64 {
        self.process.resident_kib().unwrap().saturating_sub(before_kib) >> 10
    }
}

/// Reads until `enough` or to the end.
pub(crate) async fn read(wire: &mut TcpStream, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        while !enough(&bytes) {
            if !matches!(wire.read_buf(&mut bytes).await, Ok(1..)) {
                break;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer or an end");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_claims_too_much_is_refused_from_its_header() {
    const SENT: usize = 64 << 20;
    let shop = Shop::open(&[]).await;
    let (concert, _) = shop.process.one_date(seats(50, 1_000)).await;
    let person = shop.joined(&concert).await;
    let before = shop.process.resident_kib().unwrap();
    let mut wire = shop.connect().await;
    let token = person.queue_token.clone().unwrap();
    let mut request = format!("GET /api/v1/queue/socket?token={token} HTTP/1.1\r\nhost: x\r\n");
    for (name, value) in HANDSHAKE {
        request += &format!("{name}: {value}\r\n");
    }
    wire.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let head = read(&mut wire, |bytes| bytes.windows(4).any(|end| end == b"\r\n\r\n")).await;
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // The header of a binary message of a TiB, masked with zeros.
    let (mut reading, mut writing) = wire.into_split();
    let received = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, reading.read_to_end(&mut bytes)).await.expect("it is closed");
        bytes
    });
    writing.write_all(&[&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat()).await.unwrap();
    let payload = vec![0; 1 << 16];
    for _ in 0..SENT / payload.len() {
        if writing.write_all(&payload).await.is_err() {
            break;
        }
    }
    let received = received.await.unwrap();
    // The last frame is the close: 1009, no reason.
    assert_eq!(received.last_chunk(), Some(&[0x88, 2, 0x03, 0xf1]), "{:?}", received.len());
    let grown = shop.grown_mib(before);
    assert!(grown < 16, "{grown} MiB for a frame of {} MiB", SENT >> 20);
}

/// The head of a charge, without the header that gives the length of its body.
fn charge(person: &Person, key: &str) -> String {
    format!(
        "POST /api/v1/wallet/charges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\n",
        person.token
    )
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The answers on a connection, split by their own lengths: heads and bodies. `heads` says which requests were HEAD.
fn answers(mut text: &str, heads: &[bool]) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    for is_head in heads {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer at {text:?} after {answers:?}"));
        let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ").and_then(|n| n.parse().ok()));
        let length = if *is_head { 0 } else { length.unwrap_or(0) };
        answers.push((head.to_owned(), rest[..length].to_owned()));
        text = &rest[length..];
    }
    assert_eq!(text, "", "after {answers:?}");
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_a_pipeline_is_shaped_by_its_own_request() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let body = "content-length: 12\r\n\r\n{\"amount\":1}";
    let get = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let head = "HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let old = "GET /health/live HTTP/1.0\r\n\r\n";
    let last = "GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for round in 0..5 {
        let post = format!("{}{body}", charge(&buyer, &format!("key-{round}")));
        let chunked = format!("{}transfer-encoding: chunked\r\n\r\n4\r\n{{\"am\r\n8\r\nount\":1}}\r\n0\r\n\r\n", charge(&buyer, "chunked"));
        for (pipeline, heads) in [
            (vec![&*post, head, last], vec![false, true, false]),
            (vec![head, &*post, head, last], vec![true, false, true, false]),
            (vec![head, get, &*chunked, last], vec![true, false, false, false]),
            (vec![&*chunked, get, old], vec![false, false, false]),
        ] {
            let mut wire = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
            wire.write_all(pipeline.concat().as_bytes()).await.unwrap();
            let all = text(&read(&mut wire, |_| false).await);
            let answers = answers(&all, &heads);
            for (request, (head, body)) in pipeline.iter().zip(&answers) {
                let version = if request.contains("HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" };
                let status = if request.starts_with("POST") { 201 } else { 200 };
                assert!(head.starts_with(&format!("{version} {status}")), "{request:?}: {head:?}");
                let expected = match request {
                    _ if request.starts_with("HEAD") => "",
                    _ if request.starts_with("POST") => "\"balance\"",
                    _ => "{\"status\":\"live\"}",
                };
                assert!(body.contains(expected) && body.is_empty() == expected.is_empty(), "{request:?}: {body:?}");
            }
        }
    }
    assert_eq!(buyer.balance().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_answered_as_a_problem() {
    let server = Setup::default().with("http.head_timeout_ms=300").start().await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    for (sent, status, code) in [
        ("\u{1}\u{2}\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/9.9\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "invalid_request"),
        (&*long, 431, "head_too_large"),
        ("GET / HTTP/1.1\r\nhost:", 408, "request_timeout"),
    ] {
        let mut wire = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
        wire.write_all(sent.as_bytes()).await.unwrap();
        let answer = text(&read(&mut wire, |_| false).await);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{sent:?}: {answer:?}"));
        let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{sent:?}: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")) && head.contains("application/problem+json"), "{sent:?}: {head}");
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status)), "{sent:?}");
        assert!(problem["request_id"].as_str().is_some_and(|id| head.contains(id)), "{sent:?}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_and_bounded_for_its_user() {
    let server = Setup::default()
        .with("http.body_timeout_ms=1500")
        .with("http.requests_in_flight_per_user=10")
        .with("http.bytes_per_s_min=1000")
        .start()
        .await;
    let (slow, other) = (server.person().await, server.person().await);
    let open = async |nth: usize| {
        let mut wire = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
        let begun = format!("{}content-length: 13\r\n\r\n{{\"am", charge(&slow, &format!("key-{nth}")));
        wire.write_all(begun.as_bytes()).await.unwrap();
        wire
    };
    let mut wires = Vec::new();
    for nth in 0..20 {
        wires.push(open(nth).await);
    }
    other.charge(5).await;
    let answers = at_once(wires.into_iter().map(|mut wire| async move { text(&read(&mut wire, |_| false).await) })).await;
    let count = |status: &str, code: &str| answers.iter().filter(|answer| answer.starts_with(status) && answer.contains(code)).count();
    let (late, too_many) = (count("HTTP/1.1 408", "request_timeout"), count("HTTP/1.1 429", "too_many_requests"));
    assert!(late >= 10 && too_many > 0 && late + too_many == 20, "{answers:#?}");
    // A body that comes at the minimum rate, a thousand bytes a second, is waited for: longer than the time-out.
    let mut body = b"ount\":".to_vec();
    body.resize(4_000, b' ');
    body.extend(b"15}");
    let mut wire = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
    let head = format!("{}connection: close\r\ncontent-length: {}\r\n\r\n{{\"am", charge(&slow, "steady"), body.len() + 4);
    wire.write_all(head.as_bytes()).await.unwrap();
    for piece in body.chunks(800) {
        wire.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let answer = text(&read(&mut wire, |_| false).await);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_room_for_health_and_operators() {
    let server = Setup::default().with("http.connections_max=30").with("http.head_timeout_ms=60000").start().await;
    let (operator, buyer) = (server.operator().await, server.person().await);
    let address = server.base.trim_start_matches("http://").to_owned();
    let ask = async |path: &str, token: &str| {
        let mut wire = TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        wire.write_all(request.as_bytes()).await.unwrap();
        text(&read(&mut wire, |_| false).await)
    };
    let mut silent = Vec::new();
    for nth in 0..300 {
        let mut wire = TcpStream::connect(&address).await.unwrap();
        if nth % 2 == 0 {
            wire.write_all(b"GET /hea").await.ok();
        }
        silent.push(wire);
    }
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let answer = ask(path, &buyer.token).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let answer = ask("/api/v1/concerts", &operator.token).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("a buyer is refused", async || {
        let answer = ask("/api/v1/wallet", &buyer.token).await;
        (answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded")).then_some(())
    })
    .await;
    drop(silent);
    eventually("there is room again", async || ask("/api/v1/wallet", &buyer.token).await.starts_with("HTTP/1.1 200").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_bounded_for_every_purpose() {
    let server = Setup::default().with("http.connections_per_address=5").start().await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    // Each waits for its answer, so that it is counted, on either worker, before the next one comes.
    for _ in 0..5 {
        let mut wire = TcpStream::connect(&address).await.unwrap();
        wire.write_all(b"GET /api/v1/concerts HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = text(&read(&mut wire, |answer| text(answer).contains("next_cursor")).await);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        open.push(wire);
    }
    let ask = async |path: &str| {
        let mut wire = TcpStream::connect(&address).await.unwrap();
        wire.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        text(&read(&mut wire, |_| false).await)
    };
    let answer = ask("/api/v1/concerts").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("too_many_requests"), "{answer}");
    assert!(ask("/health/live").await.starts_with("HTTP/1.1 200"));
    open.clear();
    eventually("room for another", async || ask("/api/v1/concerts").await.starts_with("HTTP/1.1 200").then_some(())).await;
}

/// Sends until the other side takes nothing more for a while, or closes.
async fn fill(wire: &mut TcpStream, bytes: &[u8]) -> u64 {
    let mut sent = 0;
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(300), wire.write(bytes)).await {
        sent += count as u64;
        if sent > 64 << 20 {
            break;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_not_read_costs_no_processor_and_ends() {
    let shop = Shop::open(&["http.write_timeout_ms=4000", "http.bytes_per_s_min=10000000"]).await;
    let person = shop.process.person(false).await;
    let get = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    let docs = "GET /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    let head = "HEAD /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    let charges: String =
        (0..200).map(|n| format!("{}content-length: 12\r\n\r\n{{\"amount\":1}}", charge(&person, &n.to_string()))).collect();
    // A body that is refused in the middle and is not read to its end.
    let refused =
        format!("{}transfer-encoding: chunked\r\n\r\n{}", charge(&person, "x"), "4000\r\n".to_owned() + &"y".repeat(0x4000) + "\r\n");
    let mut wires = Vec::new();
    for pipeline in [get.clone(), docs, head, charges, refused + &get] {
        let mut wire = shop.connect().await;
        fill(&mut wire, pipeline.as_bytes()).await;
        wires.push(wire);
    }
    eventually("it uses no processor", async || {
        let before = shop.process.processor().unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (shop.process.processor().unwrap() - before < Duration::from_millis(60)).then_some(())
    })
    .await;
    for (nth, mut wire) in wires.into_iter().enumerate() {
        eventually(&format!("connection {nth} is ended"), async || {
            matches!(timeout(Duration::from_millis(50), wire.write(b"GET / HTTP/1.1\r\n")).await, Ok(Err(_))).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_is_not_read_is_shared_and_its_connection_ends() {
    const READERS: usize = 40;
    let shop = Shop::open(&["http.write_timeout_ms=3000", "http.bytes_per_s_min=10000000"]).await;
    let (concert, date) = shop.process.one_date(seats(60_000, 1_000)).await;
    let mut person = shop.joined(&concert).await;
    person.await_turn().await;
    let ask = |coding: &str, query: &str| {
        let (token, turn) = (&person.token, person.queue_token.clone().unwrap());
        format!(
            "GET /api/v1/dates/{date}/seats{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nqueue-token: {turn}\r\n\
             accept-encoding: {coding}\r\n\r\n"
        )
    };
    // The first request renders the map.
    let mut first = shop.connect().await;
    first.write_all(ask("identity", "").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let whole = read(&mut first, |_| false).await;
    assert!(whole.starts_with(b"HTTP/1.1 200") && whole.len() > 4 << 20, "{}", whole.len());
    let before = shop.process.resident_kib().unwrap();
    let mut readers = Vec::new();
    for nth in 0..READERS {
        let mut wire = shop.connect().await;
        let query = ["", "?status=available"][nth / 2 % 2];
        wire.write_all(ask(["identity", "gzip"][nth % 2], query).as_bytes()).await.unwrap();
        readers.push(wire);
    }
    for wire in &mut readers {
        let mut byte = [0];
        timeout(PATIENCE, wire.read_exact(&mut byte)).await.expect("an answer begins").unwrap();
    }
    let grown = shop.grown_mib(before);
    assert!(grown < 64, "{grown} MiB for {READERS} readers of {} MiB", whole.len() >> 20);
    eventually("half of the connections are closed", async || {
        let figures = reqwest::get(format!("{}/metrics", shop.process.base)).await.ok()?.text().await.ok()?;
        let open: usize = figures.lines().find_map(|line| line.strip_prefix("boxoffice_connections "))?.parse().ok()?;
        (open < READERS / 2 + 6).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_bodies_cost_no_more_than_their_users_bound() {
    let shop = Shop::open(&[]).await;
    let person = shop.process.person(false).await;
    let before = shop.process.resident_kib().unwrap();
    let size = 1 << 20;
    let sent = at_once((0..60).map(|nth| {
        let head = format!("{}content-length: {size}\r\n\r\n", charge(&person, &nth.to_string()));
        let address = shop.process.base.trim_start_matches("http://").to_owned();
        async move {
            let mut wire = TcpStream::connect(address).await.unwrap();
            let body = vec![b' '; size - 1];
            let _ = wire.write_all(&[head.as_bytes(), &body].concat()).await;
            let mut first = [0; 12];
            let refused = timeout(Duration::from_secs(2), wire.read_exact(&mut first)).await;
            (wire, matches!(refused, Ok(Ok(_))).then(|| text(&first)))
        }
    }))
    .await;
    let waiting = sent.iter().filter(|(_, refused)| refused.is_none()).count();
    let refused = sent.iter().filter(|(_, refused)| refused.as_deref() == Some("HTTP/1.1 429")).count();
    assert!(waiting <= 4 && refused >= 40, "{waiting} waiting, {refused} refused");
    let grown = shop.grown_mib(before);
    // It includes the buffers of sixty connections, and what the allocator keeps of them. Without the bound it was twice
    // the bodies.
    assert!(grown < 64, "{grown} MiB for {} MiB sent", (60 * size) >> 20);
}
