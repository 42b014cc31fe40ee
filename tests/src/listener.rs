//! Somebody who listens to how their place moves, by server-sent events or by a WebSocket, and makes of the frames what
//! a client is told to.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{PATIENCE, Person};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sse,
    WebSocket,
}

/// What came, in order.
#[derive(Debug)]
enum Heard {
    Frame(Value),
    /// How long to wait before the next connection, milliseconds.
    Retry(u64),
    /// With the code of a WebSocket that was closed by the server.
    End(Option<u16>),
}

/// An open stream. Closed when dropped.
#[derive(Debug)]
pub struct Listener {
    heard: mpsc::UnboundedReceiver<Heard>,
    reader: JoinHandle<()>,
    /// By the frames so far; `None` before the first one.
    pub standing: Option<Standing>,
    /// Once it has ended.
    pub end: Option<Option<u16>>,
    retry_ms: Option<u64>,
}

/// What the frames have come to, by the formula that clients are told.
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
                now.ahead = now.ahead.map(|ahead| ahead.checked_sub(gone).expect("nobody is ahead of the first"));
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
    /// A request at `base`, exactly as it is given; otherwise the status and the body it is refused with.
    ///
    /// # Errors
    /// The refusal.
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
        let (tell, heard) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let end = match kind {
                Kind::Sse => read_events(&mut wire, &tell).await,
                Kind::WebSocket => read_messages(&mut wire, &tell).await,
            };
            // Nobody asks any more.
            let _ = tell.send(Heard::End(end));
        });
        Ok(Self { heard, reader, standing: None, end: None, retry_ms: None })
    }

    /// The next frame; `None` when it has ended.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.heard.recv()).await.expect("a frame, or the end") {
                Some(Heard::Retry(ms)) => self.retry_ms = Some(ms),
                heard => return self.take(heard),
            }
        }
    }

    /// How long the server asked to wait before the next connection, if it has.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn take(&mut self, heard: Option<Heard>) -> Option<Value> {
        match heard? {
            Heard::Frame(frame) => {
                self.standing = Some(Standing::follow(self.standing.take(), &frame));
                Some(frame)
            }
            Heard::Retry(ms) => {
                self.retry_ms = Some(ms);
                None
            }
            Heard::End(end) => {
                self.end = Some(end);
                None
            }
        }
    }

    /// Waits for a frame of this type.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("it ends without {kind}: {:?}", self.standing));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Takes what has come so far.
    pub fn catch_up(&mut self) -> Option<&Standing> {
        while let Ok(heard) = self.heard.try_recv() {
            self.take(Some(heard));
        }
        self.standing.as_ref()
    }

    /// Reads to the end, and gives the code that the server closed with.
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
    /// Listens with the token that this person has.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn listen(&self, kind: Kind) -> Listener {
        self.try_listen(kind, &[]).await.expect("nothing against it")
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

/// What asks for a WebSocket: the example of RFC 6455.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn read_events(wire: &mut BufReader<TcpStream>, tell: &mpsc::UnboundedSender<Heard>) -> Option<u16> {
    let (mut event, mut id, mut data) = (String::new(), String::new(), String::new());
    loop {
        let mut line = String::new();
        if wire.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some(("retry", ms)) => tell.send(Heard::Retry(ms.parse().expect("milliseconds"))).ok()?,
            Some(("event", text)) => text.clone_into(&mut event),
            Some(("id", text)) => text.clone_into(&mut id),
            Some(("data", text)) => text.clone_into(&mut data),
            _ if !data.is_empty() => {
                let frame: Value = serde_json::from_str(&data).expect("frames are JSON");
                assert_eq!((frame["type"].as_str(), frame["seq"].to_string()), (Some(&*event), id.clone()), "an event says what it is");
                data.clear();
                if tell.send(Heard::Frame(frame)).is_err() {
                    return None;
                }
            }
            _ => {}
        }
    }
}

async fn read_messages(wire: &mut BufReader<TcpStream>, tell: &mpsc::UnboundedSender<Heard>) -> Option<u16> {
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
            0x81 => tell.send(Heard::Frame(serde_json::from_slice(&payload).expect("frames are JSON"))).ok()?,
            // A ping is answered, masked with zeros.
            0x89 => wire.write_all(&[&[0x8a, 0x80 | length as u8, 0, 0, 0, 0], &*payload].concat()).await.ok()?,
            0x88 => {
                let (code, reason) = payload.split_first_chunk()?;
                if let Some(ms) = reason.strip_prefix(b"retry_ms=") {
                    let ms = std::str::from_utf8(ms).ok().and_then(|ms| ms.parse().ok()).expect("milliseconds");
                    tell.send(Heard::Retry(ms)).ok()?;
                }
                return Some(u16::from_be_bytes(*code));
            }
            other => panic!("a message of kind {other:#x}"),
        }
    }
}
