//! One keep-alive connection that costs almost nothing, so that the server dominates a measurement.
//!
//! A connection that fails is dropped and opened again by the next request; a command sent on it may have been applied.
//! Answers are read whole and must have a `Content-Length`, as this server's do.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The most headers of an answer.
const HEADERS_MAX: usize = 32;
/// The largest answer, bytes; a longer one is an error.
const ANSWER_MAX: usize = 1 << 20;

pub(super) struct Answer {
    pub(super) status: u16,
    /// The `Location` header.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

pub(super) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// A request's bytes; `body` is JSON.
pub(super) fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        text.push_str("Content-Length: 0\r\n\r\n");
    }
    text.into_bytes()
}

impl Connection {
    /// Connects with the first request.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::with_capacity(4_096) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The open connection, unless the server has closed it because it was idle.
    fn kept(&mut self) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        let is_open = matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        is_open.then_some(stream)
    }

    pub(super) async fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        // Taken out, so that a failed or abandoned exchange leaves no half-read answer to the next one.
        let mut stream = match self.kept() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some(answer) = parse(&self.buffer)? {
                self.stream = Some(stream);
                return Ok(answer);
            }
            if self.buffer.len() > ANSWER_MAX {
                return Err(io::Error::other("the answer is too long"));
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The answer, once all of it has arrived.
fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let at = match head.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(at) => at,
        httparse::Status::Partial => return Ok(None),
    };
    let status = head.code.unwrap_or_default();
    let named = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    let length =
        match named("content-length").map(|value| std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<usize>().ok())) {
            Some(Some(length)) => length,
            None if status == 204 || status == 304 => 0,
            _ => return Err(io::Error::other("the answer has no Content-Length")),
        };
    let location = named("location").and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
    Ok(bytes.get(at..at.saturating_add(length)).map(|body| Answer { status, location, body: body.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_once_all_of_it_has_arrived() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\nLocation: /a\r\nX: y\r\n\r\nbody";
        for at in 0..whole.len() {
            assert!(parse(&whole[..at]).unwrap().is_none(), "{at} bytes");
        }
        let answer = parse(whole).unwrap().unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.location.as_deref()), (201, b"body".as_slice(), Some("/a")));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap().status, 204);
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"SMTP\r\n").is_err());
    }

    #[test]
    fn a_request_names_host_headers_and_body() {
        let address = "127.0.0.1:80".parse().unwrap();
        let text = String::from_utf8(request(address, "POST", "/a", &[("K", "v")], Some("{}"))).unwrap();
        assert_eq!(text, "POST /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nK: v\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
        assert!(request(address, "GET", "/a", &[], None).ends_with(b"Content-Length: 0\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_opened_again_after_the_server_closed_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut served = Vec::new();
            for answers in [2, 1] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 1_024];
                for _ in 0..answers {
                    assert!(stream.read(&mut bytes).await.unwrap() > 0);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
                served.push(answers);
            }
            served
        });
        let mut connection = Connection::new(address);
        let get = request(address, "GET", "/", &[], None);
        assert_eq!(connection.send(&get).await.unwrap().body, b"ok");
        assert_eq!(connection.send(&get).await.unwrap().body, b"ok");
        // The server has closed it; the socket becomes readable in a moment.
        connection.stream.as_ref().unwrap().readable().await.unwrap();
        assert_eq!(connection.send(&get).await.unwrap().body, b"ok");
        assert_eq!(server.await.unwrap(), [2, 1]);
    }
}
