//! One open stream: frames are written as they are published, and a client that is gone is noticed.
//!
//! Each stream has its own task, so it holds little: the socket, the subscription, a timer. Bytes that are read stay on the
//! stack only until the task sleeps; a frame is shared by all subscribers that get it.
//!
//! *Bounds.* A stream ends when a frame is not taken for `http.write_timeout_ms`, at a second unanswered heartbeat
//! (WebSocket), by what [`super::incoming`] refuses, and at shutdown. Queued frames are bounded by the hub. Dropping the
//! task drops the subscription, by which the room learns that the connection is gone.
//!
//! *Reconnecting.* A client whose stream is closed by the server is given a time to wait before it reconnects:
//! by `retry:` in an event stream, by the reason of a WebSocket's close. The times differ, so that the clients of a
//! server that went away reconnect over [`RETRY_MS`] and not at once.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use boxoffice_engine::push::{End, Form, Next, Subscription};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::incoming::{Incoming, NORMAL, Received};
use crate::http::connections::ConnectionPermit;
use crate::http::limits::StreamPermit;

/// The interval of heartbeats, plus or minus a fifth.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// WebSocket: unanswered heartbeats after which the client is gone.
const UNANSWERED_MAX: u8 = 2;
/// How long the client may take to close after our close.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Bytes of a closing client that are still read and discarded: it must receive the close before a reset.
const DISCARDED_MAX: usize = 1 << 20;
/// How long a client waits before it reconnects, milliseconds; each is given its own time.
const RETRY_MS: RangeInclusive<u64> = 1_000..=8_000;

const PING: [u8; 2] = [0x89, 0];
const COMMENT: &[u8] = b":\n\n";
const GOING_AWAY: u16 = 1_001;
const TRY_AGAIN_LATER: u16 = 1_013;

/// See the module's opening.
pub(super) struct OpenStream {
    socket: TcpStream,
    subscription: Subscription,
    form: Form,
    incoming: Incoming,
    unanswered: u8,
    /// How long a frame may wait for the client to read.
    stall: Duration,
    /// Its share of the limits, until it ends.
    _permits: Permits,
}

type Permits = (StreamPermit, Option<ConnectionPermit>);

/// Whether a stream goes on; otherwise the code it is closed with, `None` if the client is gone.
type Step = Result<(), Option<u16>>;

impl OpenStream {
    pub(super) fn new(socket: TcpStream, subscription: Subscription, form: Form, stall: Duration, permits: Permits) -> Self {
        Self { socket, subscription, form, incoming: Incoming::default(), unanswered: 0, stall, _permits: permits }
    }

    pub(super) async fn run(mut self, head: Vec<u8>) {
        // Frames are small, and each is sent at once.
        let _ = self.socket.set_nodelay(true);
        if self.write(&head).await.is_err() {
            return;
        }
        drop(head);
        // The first heartbeats of clients that came together are spread.
        let mut beat_at = Instant::now() + HEARTBEAT.mul_f64(rand::random());
        loop {
            let next = tokio::select! {
                next = self.subscription.next() => match next {
                    Next::Frame(frame) => self.write(&frame).await.map_err(|_| None),
                    Next::End(end) => Err(Some(code_of(end))),
                },
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.receive().await,
                    Err(_) => Err(None),
                },
                () = sleep_until(beat_at) => {
                    beat_at = Instant::now() + HEARTBEAT.mul_f64(0.8 + 0.4 * rand::random::<f64>());
                    self.beat().await
                }
            };
            match next {
                Ok(()) => {}
                Err(Some(code)) => return self.close(code).await,
                Err(None) => return,
            }
        }
    }

    /// Reads the bytes that have arrived, and answers a ping.
    async fn receive(&mut self) -> Step {
        match self.read() {
            Received::Nothing => Ok(()),
            Received::Answer(pong) => self.write(&pong).await.map_err(|_| None),
            Received::Close(code) => Err(Some(code)),
            Received::Gone => Err(None),
        }
    }

    async fn beat(&mut self) -> Step {
        self.incoming.reset();
        let beat: &[u8] = match self.form {
            Form::Sse => COMMENT,
            Form::WebSocket if self.unanswered >= UNANSWERED_MAX => return Err(None),
            Form::WebSocket => {
                self.unanswered += 1;
                &PING
            }
        };
        self.write(beat).await.map_err(|_| None)
    }

    /// Reads once.
    fn read(&mut self) -> Received {
        let mut buffer = [0; 512];
        let read = match self.socket.try_read(&mut buffer) {
            Ok(0) => return Received::Gone,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
            Err(_) => return Received::Gone,
        };
        self.unanswered = 0;
        self.incoming.take(self.form, read)
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write(&self.socket, bytes, self.stall).await
    }

    /// Closes, and waits for the client to close, so that the last bytes arrive.
    async fn close(self, code: u16) {
        let Self { mut socket, form, subscription, stall, _permits, .. } = self;
        drop(subscription);
        let _ = timeout(CLOSE_MAX, async move {
            write(&socket, &close_frame(form, code), stall).await?;
            socket.shutdown().await?;
            let mut discarded = 0;
            while discarded < DISCARDED_MAX {
                socket.readable().await?;
                match socket.try_read(&mut [0; 4_096]) {
                    Ok(0) => return Ok(()),
                    Ok(read) => discarded += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
        .await;
    }
}

fn code_of(end: End) -> u16 {
    match end {
        End::Over => NORMAL,
        End::Closing => GOING_AWAY,
        End::Slow => TRY_AGAIN_LATER,
    }
}

/// The last bytes: they tell a client that should reconnect when to do so.
fn close_frame(form: Form, code: u16) -> Vec<u8> {
    let reconnects = matches!(code, GOING_AWAY | TRY_AGAIN_LATER);
    match form {
        Form::Sse if reconnects => retry_line(),
        Form::Sse => Vec::new(),
        Form::WebSocket => {
            let reason = if reconnects { format!("retry_ms={}", retry_ms()) } else { String::new() };
            // Some twenty bytes; a control frame may have 125.
            let mut frame = vec![0x88, 2 + reason.len() as u8];
            frame.extend(code.to_be_bytes());
            frame.extend(reason.bytes());
            frame
        }
    }
}

/// The field of an event stream with the time to reconnect (WHATWG HTML, 9.2.6).
pub(super) fn retry_line() -> Vec<u8> {
    format!("retry: {}\n\n", retry_ms()).into_bytes()
}

fn retry_ms() -> u64 {
    rand::random_range(RETRY_MS)
}

/// Writes all bytes, as fast as the client takes them.
async fn write(socket: &TcpStream, mut bytes: &[u8], stall: Duration) -> io::Result<()> {
    let by = Instant::now() + stall;
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => timeout_at(by, socket.writable()).await??,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_different_times_to_reconnect() {
        let times: std::collections::HashSet<_> = (0..64).map(|_| retry_line()).collect();
        assert!(times.len() > 32, "{} times of 64", times.len());
        for line in times {
            let line = String::from_utf8(line).unwrap();
            let ms = line.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).and_then(|ms| ms.parse().ok());
            assert!(ms.is_some_and(|ms| RETRY_MS.contains(&ms)), "{line:?}");
        }
    }

    #[test]
    fn a_close_after_which_clients_reconnect_gives_a_time() {
        for (code, gives_a_time) in [(NORMAL, false), (GOING_AWAY, true), (TRY_AGAIN_LATER, true)] {
            let frame = close_frame(Form::WebSocket, code);
            assert_eq!((frame[0], usize::from(frame[1])), (0x88, frame.len() - 2));
            assert_eq!(frame[2..4], code.to_be_bytes());
            assert_eq!(frame[4..].starts_with(b"retry_ms="), gives_a_time);
            assert_eq!(close_frame(Form::Sse, code).starts_with(b"retry: "), gives_a_time);
        }
    }
}
