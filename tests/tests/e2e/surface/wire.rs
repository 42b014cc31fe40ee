//! Bytes on a connection, below any client library, and a process that is stopped in the middle of a request.

use std::time::Duration;

use crate::abuse::{read, text};
use boxoffice_tests::{PATIENCE, Process, Server, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn connect(base: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect(base.trim_start_matches("http://")).await
}

/// Sends `pieces` one after the other and reads the answer to its end.
async fn send(base: &str, pieces: &[&str]) -> String {
    let mut stream = connect(base).await.unwrap();
    for piece in pieces {
        stream.write_all(piece.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    text(&read(&mut stream, |_| false).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_whole_in_chunks_after_a_continue_or_not_at_all() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let head = |key: &str, rest: &str| {
        let token = &buyer.token;
        format!(
            "POST /api/v1/wallet/charges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nidempotency-key: {key}\r\n\
             connection: close\r\n{rest}\r\n"
        )
    };
    let json = "content-type: application/json\r\n";
    let chunked = format!("{json}transfer-encoding: chunked\r\n");
    let answer = send(&server.base, &[&head("1", &chunked), "5\r\n{\"amo\r\n", "8\r\nunt\":15}\r\n", "0\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer =
        send(&server.base, &[&head("2", &format!("{json}content-length: 13\r\nexpect: 100-continue\r\n")), "{\"amount\":15}"]).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201"), "{answer}");
    // Without a length there is no body.
    let answer = send(&server.base, &[&head("3", json), "{\"amount\":15}"]).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("a body is required"), "{answer}");
    // An empty chunk is no body either, and needs no type.
    let answer = send(&server.base, &[&head("4", "transfer-encoding: chunked\r\n"), "0\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("a body is required"), "{answer}");
    let answer = send(&server.base, &[&head("5", "transfer-encoding: chunked\r\n"), "2\r\n{}\r\n0\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    assert_eq!(buyer.balance().await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_bounded_though_no_length_is_announced() {
    let server = boxoffice_tests::Setup::default().with("http.max_body_bytes=1024").start().await;
    let buyer = server.person().await;
    let mut stream = connect(&server.base).await.unwrap();
    let head = format!(
        "POST /api/v1/wallet/charges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        buyer.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body never ends, and the request is answered all the same.
    stream.write_all(format!("800\r\n{}\r\n", "x".repeat(0x800)).as_bytes()).await.unwrap();
    let answer = text(&read(&mut stream, |bytes| text(bytes).contains("request_id")).await);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_are_answered() {
    let server = Server::start().await;
    let buyer = server.person().await;
    let answer = send(&server.base, &[&format!("GET /api/v1/wallet HTTP/1.0\r\nAUTHORIZATION: bearer {}\r\n\r\n", buyer.token)]).await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("x-request-id: "), "{answer}");
    let answer = send(&server.base, &["OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("application/problem+json"), "{answer}");
    let answer = send(&server.base, &["GET http://x/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Bytes that are no HTTP end their own connection alone.
    for nonsense in ["\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let answer = send(&server.base, &[nonsense]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{nonsense:?}: {answer}");
    }
    buyer.get("/wallet").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_at_sigterm_is_answered_and_the_exit_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("boxoffice.db");
    let process = Process::start(&database, &[]).await.unwrap();
    let (base, buyer) = (process.base.clone(), process.person(false).await);
    let mut stream = connect(&base).await.unwrap();
    let head = format!(
        "POST /api/v1/wallet/charges HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: 15\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        buyer.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server has begun the request: it waits for the body.
    let go_on = text(&read(&mut stream, |bytes| bytes.ends_with(b"\r\n\r\n")).await);
    assert_eq!(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
    let ended = tokio::spawn(process.terminate());
    eventually("no new connection is served", async || {
        let refused = match connect(&base).await {
            Err(_) => true,
            Ok(mut late) => {
                // The kernel may accept it into the backlog, but the server never answers.
                let asked = late.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.is_ok();
                let answered = tokio::time::timeout(Duration::from_millis(200), late.read_u8()).await;
                !asked || !matches!(answered, Ok(Ok(_)))
            }
        };
        refused.then_some(())
    })
    .await;
    assert!(!ended.is_finished(), "the process waits for the request");
    stream.write_all(b"{\"amount\":1234}").await.unwrap();
    let answer = text(&read(&mut stream, |_| false).await);
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("\"balance\":1234"), "{answer}");
    let status = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    // The charge that was answered is in the file.
    let again = Process::start(&database, &[]).await.unwrap();
    assert_eq!(buyer.at(&again.base).balance().await, 1_234);
    assert_eq!(again.terminate().await.unwrap().code(), Some(0));
}
