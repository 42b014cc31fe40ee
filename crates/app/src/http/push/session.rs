//! One open stream: frames are written as they come, and whoever is not there any more is noticed.
//!
//! There is one task for each, so it holds little: the socket, the subscription, a timer. What is read lies on the
//! stack and is gone before the task sleeps; frames are shared with everybody who gets the same.
//!
//! *Bounds.* A frame that is not taken for `http.write_timeout_ms` ends it, so does a second heartbeat that is not answered
//! (WebSocket), what [`super::incoming`] refuses, and [`super::super::App`]'s end. Frames that wait are bounded by the
//! hub. Dropping the task drops the subscription, by which the room learns that the connection is gone.
//!
//! *Coming back.* A client that loses its stream, or is told to go, learns how long to wait before it connects again:
//! by `retry:` in an event stream, by the reason of a WebSocket's close. The times differ, so that a crowd that lost
//! its server comes back over [`RETRY_MS`] and not at once.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use boxoffice_engine::push::{End, Form, Next, Subscription};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::incoming::{Heard, Incoming, NORMAL};
use crate::http::door::Place;
use crate::http::limits::Stream;

/// A heartbeat each, give or take a fifth.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// WebSocket: heartbeats without any answer after which nobody is there.
const UNANSWERED_MAX: u8 = 2;
/// How long the other side may take to close once it was told to.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is still read, and thrown away, of a peer that is told to go, bytes: it must find the reason before the reset.
const DISCARDED_MAX: usize = 1 << 20;
/// How long a client is to wait before it connects again, milliseconds; each is given its own time.
const RETRY_MS: RangeInclusive<u64> = 1_000..=8_000;

const PING: [u8; 2] = [0x89, 0];
const COMMENT: &[u8] = b":\n\n";
const GOING_AWAY: u16 = 1_001;
const TRY_AGAIN_LATER: u16 = 1_013;

/// See the module's opening.
pub(super) struct Session {
    wire: TcpStream,
    subscription: Subscription,
    form: Form,
    incoming: Incoming,
    unanswered: u8,
    /// How long a frame may wait for the other side to read.
    stall: Duration,
    /// As what it is counted, while it is there.
    _counted: Counted,
}

type Counted = (Stream, Option<Place>);

impl Session {
    pub(super) fn new(wire: TcpStream, subscription: Subscription, form: Form, stall: Duration, counted: Counted) -> Self {
        Self { wire, subscription, form, incoming: Incoming::default(), unanswered: 0, stall, _counted: counted }
    }

    pub(super) async fn run(mut self, head: Vec<u8>) {
        // Frames are small, and each is to be seen when it is sent.
        let _ = self.wire.set_nodelay(true);
        if self.write(&head).await.is_err() {
            return;
        }
        drop(head);
        // Whoever came together is not asked together.
        let mut beat_at = Instant::now() + HEARTBEAT.mul_f64(rand::random());
        loop {
            tokio::select! {
                next = self.subscription.next() => {
                    let written = match next {
                        Next::Frame(frame) => self.write(&frame).await,
                        Next::End(end) => return self.end(end).await,
                    };
                    if written.is_err() {
                        return;
                    }
                }
                ready = self.wire.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    match self.hear() {
                        Heard::Nothing => {}
                        Heard::Answer(pong) => if self.write(&pong).await.is_err() { return },
                        Heard::Close(code) => return self.close(code).await,
                        Heard::Gone => return,
                    }
                }
                () = sleep_until(beat_at) => {
                    beat_at = Instant::now() + HEARTBEAT.mul_f64(0.8 + 0.4 * rand::random::<f64>());
                    self.incoming.begin_anew();
                    let beat: &[u8] = match self.form {
                        Form::Sse => COMMENT,
                        Form::WebSocket if self.unanswered >= UNANSWERED_MAX => return,
                        Form::WebSocket => {
                            self.unanswered += 1;
                            &PING
                        }
                    };
                    if self.write(beat).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Reads what there is.
    fn hear(&mut self) -> Heard {
        let mut buffer = [0; 512];
        let read = match self.wire.try_read(&mut buffer) {
            Ok(0) => return Heard::Gone,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(_) => return Heard::Gone,
        };
        self.unanswered = 0;
        self.incoming.take(self.form, read)
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write(&self.wire, bytes, self.stall).await
    }

    async fn end(self, end: End) {
        match end {
            End::Over => self.close(NORMAL).await,
            End::Closing => self.close(GOING_AWAY).await,
            End::Slow => self.close(TRY_AGAIN_LATER).await,
        }
    }

    /// Says goodbye and lets the other side close, so that what was written last arrives.
    async fn close(self, code: u16) {
        let Self { mut wire, form, subscription, stall, _counted, .. } = self;
        drop(subscription);
        let _ = timeout(FAREWELL, async move {
            write(&wire, &farewell(form, code), stall).await?;
            wire.shutdown().await?;
            let mut discarded = 0;
            while discarded < DISCARDED_MAX {
                wire.readable().await?;
                match wire.try_read(&mut [0; 4_096]) {
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

/// The last words: when to come back, to a client that is to come back.
fn farewell(form: Form, code: u16) -> Vec<u8> {
    let comes_back = matches!(code, GOING_AWAY | TRY_AGAIN_LATER);
    match form {
        Form::Sse if comes_back => retry_line(),
        Form::Sse => Vec::new(),
        Form::WebSocket => {
            let reason = if comes_back { format!("retry_ms={}", retry_ms()) } else { String::new() };
            // Some twenty bytes, and a control frame may have 125.
            let mut frame = vec![0x88, 2 + reason.len() as u8];
            frame.extend(code.to_be_bytes());
            frame.extend(reason.bytes());
            frame
        }
    }
}

/// The field of an event stream that says when to come back (WHATWG HTML, 9.2.6).
pub(super) fn retry_line() -> Vec<u8> {
    format!("retry: {}\n\n", retry_ms()).into_bytes()
}

fn retry_ms() -> u64 {
    rand::random_range(RETRY_MS)
}

/// Writes all of it, as fast as it is taken.
async fn write(wire: &TcpStream, mut bytes: &[u8], stall: Duration) -> io::Result<()> {
    let by = Instant::now() + stall;
    while !bytes.is_empty() {
        match wire.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => timeout_at(by, wire.writable()).await??,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_different_times_to_come_back_at() {
        let times: std::collections::HashSet<_> = (0..64).map(|_| retry_line()).collect();
        assert!(times.len() > 32, "{} times of 64", times.len());
        for line in times {
            let line = String::from_utf8(line).unwrap();
            let ms = line.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n")).and_then(|ms| ms.parse().ok());
            assert!(ms.is_some_and(|ms| RETRY_MS.contains(&ms)), "{line:?}");
        }
    }

    #[test]
    fn a_close_that_asks_to_come_back_says_when() {
        for (code, says_when) in [(NORMAL, false), (GOING_AWAY, true), (TRY_AGAIN_LATER, true)] {
            let frame = farewell(Form::WebSocket, code);
            assert_eq!((frame[0], usize::from(frame[1])), (0x88, frame.len() - 2));
            assert_eq!(frame[2..4], code.to_be_bytes());
            assert_eq!(frame[4..].starts_with(b"retry_ms="), says_when);
            assert_eq!(farewell(Form::Sse, code).starts_with(b"retry: "), says_when);
        }
    }
}
