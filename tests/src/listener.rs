//! A client that follows its place in the queue, by server-sent events or by a WebSocket, and evaluates the frames by the
//! formula that clients are given.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::person::Person;
use crate::wait::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sse,
    WebSocket,
}

/// What the server sent, in order.
#[derive(Debug)]
enum Received {
    Frame(Value),
    /// How long to wait before the next connection, milliseconds.
    Retry(u64),
    /// With the close code, if it was a WebSocket that the server closed.
    End(Option<u16>),
}

/// An open stream. Closed when dropped.
#[derive(Debug)]
pub struct Listener {
    received: mpsc::UnboundedReceiver<Received>,
    reader: JoinHandle<()>,
    /// By the frames so far; `None` before the first one.
    pub standing: Option<Standing>,
    /// `Some` once the stream has ended, with the close code of a WebSocket.
    pub end: Option<Option<u16>>,
    retry_ms: Option<u64>,
}

/// Where the client stands by the frames so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub seq: u64,
    pub status: String,
    pub place: u64,
    pub ahead: Option<u64>,
    admitted: u64,
}

impl Standing {
    fn follow(before: Option<Self>, frame: &Value) -> Self {
        let number = |key: &str| frame[key].as_u64();
        let seq = number("seq").expect("every frame has a seq");
        let kind = frame["type"].as_str().expect("every frame has a type");
        if kind == "queue" {
            let status = frame["status"].as_str().expect("a status").to_owned();
            let admitted = number("admitted").expect("how many were admitted");
            return Self { seq, status, place: number("place").unwrap_or_default(), ahead: number("ahead"), admitted };
        }
        let mut now = before.expect("the first frame is one's own");
        assert_eq!(seq, now.seq + 1, "a gap before {frame}");
        now.seq = seq;
        match kind {
            "position" => {
                let admitted = number("admitted").expect("how many were admitted");
                let left = frame["left"].as_array().expect("who left").iter().filter_map(Value::as_u64);
                let gone = admitted - now.admitted + left.filter(|place| *place < now.place).count() as u64;
                now.admitted = admitted;
                now.ahead = now.ahead.map(|ahead| ahead.checked_sub(gone).expect("no more left than were ahead"));
            }
            "active" => (now.status, now.ahead) = ("active".to_owned(), Some(0)),
            "expired" => (now.status, now.ahead) = ("expired".to_owned(), None),
            "sold_out" if now.status == "waiting" => "sold_out".clone_into(&mut now.status),
            "available" if now.status == "sold_out" => "waiting".clone_into(&mut now.status),
            _ => {}
        }
        now
    }
}

impl Listener {
    /// Sends exactly this request to `base` and opens the stream.
    ///
    /// # Errors
    /// The status and the body of the refusal.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn open(base: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, Value)> {
        let address = base.trim_start_matches("http://");
        let mut wire = BufReader::new(TcpStream::connect(address).await.expect("the server listens"));
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        wire.write_all(format!("{request}\r\n").as_bytes()).await.expect("the server reads");
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, wire.read_line(&mut line)).await.expect("it answers").expect("it answers");
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_ascii_lowercase());
        }
        let status: u16 = head.first().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).expect("a status");
        let kind = match status {
            101 => Kind::WebSocket,
            200 => Kind::Sse,
            _ => {
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).and_then(|length| length.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                wire.read_exact(&mut body).await.expect("the body");
                return Err((status, serde_json::from_slice(&body).unwrap_or_default()));
            }
        };
        let (sender, received) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let end = match kind {
                Kind::Sse => read_events(&mut wire, &sender).await,
                Kind::WebSocket => read_messages(&mut wire, &sender).await,
            };
            // It fails when the listener was dropped.
            let _ = sender.send(Received::End(end));
        });
        Ok(Self { received, reader, standing: None, end: None, retry_ms: None })
    }

    /// The next frame; `None` once the stream has ended.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.received.recv()).await.expect("a frame, or the end") {
                Some(Received::Retry(ms)) => self.retry_ms = Some(ms),
                received => return self.take(received),
            }
        }
    }

    /// How long the server asked to wait before the next connection, if it did.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn take(&mut self, received: Option<Received>) -> Option<Value> {
        match received? {
            Received::Frame(frame) => {
                self.standing = Some(Standing::follow(self.standing.take(), &frame));
                Some(frame)
            }
            Received::Retry(ms) => {
                self.retry_ms = Some(ms);
                None
            }
            Received::End(end) => {
                self.end = Some(end);
                None
            }
        }
    }

    /// Waits for a frame of this type.
    ///
    /// # Panics
    /// When the stream ends before.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended before a frame `{kind}`: {:?}", self.standing));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Applies the frames that have come so far.
    pub fn catch_up(&mut self) -> Option<&Standing> {
        while let Ok(received) = self.received.try_recv() {
            self.take(Some(received));
        }
        self.standing.as_ref()
    }

    /// Reads to the end: the code that the server closed with.
    pub async fn to_the_end(&mut self) -> Option<u16> {
        while self.end.is_none() {
            self.next().await;
        }
        self.end.flatten()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Person {
    /// Opens a stream with this person's token.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn listen(&self, kind: Kind) -> Listener {
        self.try_listen(kind, &[]).await.expect("a stream")
    }

    /// The same with more headers.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_listen(&self, kind: Kind, more: &[(&str, &str)]) -> Result<Listener, (u16, Value)> {
        let token = self.queue_token.clone().unwrap_or_default();
        match kind {
            Kind::Sse => {
                let headers: Vec<_> = [("Queue-Token", &*token)].into_iter().chain(more.iter().copied()).collect();
                Listener::open(self.base(), "/api/v1/queue/stream", &headers).await
            }
            Kind::WebSocket => {
                let headers: Vec<_> = HANDSHAKE.into_iter().chain(more.iter().copied()).collect();
                Listener::open(self.base(), &format!("/api/v1/queue/socket?token={token}"), &headers).await
            }
        }
    }
}

/// The headers that ask for a WebSocket: the example of RFC 6455.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn read_events(wire: &mut BufReader<TcpStream>, sender: &mpsc::UnboundedSender<Received>) -> Option<u16> {
    let (mut event, mut id, mut data) = (String::new(), String::new(), String::new());
    loop {
        let mut line = String::new();
        if wire.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("retry", ms)) => sender.send(Received::Retry(ms.parse().expect("milliseconds"))).ok()?,
            Some(("event", text)) => text.clone_into(&mut event),
            Some(("id", text)) => text.clone_into(&mut id),
            Some(("data", text)) => text.clone_into(&mut data),
            _ if !data.is_empty() => {
                let frame: Value = serde_json::from_str(&data).expect("frames are JSON");
                assert_eq!(
                    (frame["type"].as_str(), frame["seq"].to_string()),
                    (Some(&*event), id.clone()),
                    "`event` and `id` repeat the frame's type and seq"
                );
                data.clear();
                if sender.send(Received::Frame(frame)).is_err() {
                    return None;
                }
            }
            _ => {}
        }
    }
}

async fn read_messages(wire: &mut BufReader<TcpStream>, sender: &mpsc::UnboundedSender<Received>) -> Option<u16> {
    loop {
        let [first, length] = [wire.read_u8().await.ok()?, wire.read_u8().await.ok()?];
        let length = match length {
            126 => usize::from(wire.read_u16().await.ok()?),
            127 => usize::try_from(wire.read_u64().await.ok()?).ok()?,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        wire.read_exact(&mut payload).await.ok()?;
        match first {
            0x81 => sender.send(Received::Frame(serde_json::from_slice(&payload).expect("frames are JSON"))).ok()?,
            // A ping is answered, masked with zeros.
            0x89 => wire.write_all(&[&[0x8a, 0x80 | length as u8, 0, 0, 0, 0], &*payload].concat()).await.ok()?,
            0x88 => {
                let (code, reason) = payload.split_first_chunk()?;
                if let Some(ms) = reason.strip_prefix(b"retry_ms=") {
                    let ms = std::str::from_utf8(ms).ok().and_then(|ms| ms.parse().ok()).expect("milliseconds");
                    sender.send(Received::Retry(ms)).ok()?;
                }
                return Some(u16::from_be_bytes(*code));
            }
            other => panic!("a message of kind {other:#x}"),
        }
    }
}
